"""Where a run can be delivered to."""

from enum import StrEnum

LOGGERS = {"mlflow": "MLflowLogger", "tensorboard": "TensorBoardLogger", "wandb": "WandbLogger"}  # by their module


class To(StrEnum):
    """A destination."""

    mlflow = "mlflow"
    tensorboard = "tensorboard"
    wandb = "wandb"
