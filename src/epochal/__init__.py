"""Epochal: one callback system for every trainer."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from epochal.callbacks.checkpoint import Checkpoint
    from epochal.callbacks.early_stopping import EarlyStopping
    from epochal.callbacks.learning_rate import LearningRate
    from epochal.callbacks.progress import Progress
    from epochal.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
    from epochal.callbacks.stop import Stop
    from epochal.callbacks.terminate_on_nan import TerminateOnNaN
    from epochal.callbacks.time_limit import TimeLimit
    from epochal.checkpointing.checkpoint import checkpoint
    from epochal.conditions.base import Condition
    from epochal.conditions.best import Best
    from epochal.conditions.level import Diverged, NonFinite, Target
    from epochal.conditions.plateau import Plateau
    from epochal.conditions.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveIncreases
    from epochal.conditions.schedule import Elapsed, Every
    from epochal.core.callback import Callback
    from epochal.core.errors import EpochalError, MetricNotFound
    from epochal.core.run import Run
    from epochal.integrations.attach import attach
    from epochal.integrations.pytorch import Loop
    from epochal.loggers.csv import CSVLogger
    from epochal.loggers.json import JSONLogger
    from epochal.loggers.mlflow import MLflowLogger
    from epochal.loggers.tensorboard import TensorBoardLogger

__version__ = "0.1.0"
_HOMES = {
    "Best": "conditions.best",
    "CSVLogger": "loggers.csv",
    "Callback": "core.callback",
    "Checkpoint": "callbacks.checkpoint",
    "Condition": "conditions.base",
    "Diverged": "conditions.level",
    "EarlyStopping": "callbacks.early_stopping",
    "Elapsed": "conditions.schedule",
    "EpochalError": "core.errors",
    "Every": "conditions.schedule",
    "GeneralizationLoss": "conditions.prechelt",
    "JSONLogger": "loggers.json",
    "LearningRate": "callbacks.learning_rate",
    "Loop": "integrations.pytorch",
    "MLflowLogger": "loggers.mlflow",
    "MetricNotFound": "core.errors",
    "NonFinite": "conditions.level",
    "Plateau": "conditions.plateau",
    "Progress": "callbacks.progress",
    "ProgressQuotient": "conditions.prechelt",
    "ReduceLROnPlateau": "callbacks.reduce_lr_on_plateau",
    "Run": "core.run",
    "Stop": "callbacks.stop",
    "SuccessiveIncreases": "conditions.prechelt",
    "Target": "conditions.level",
    "TensorBoardLogger": "loggers.tensorboard",
    "TerminateOnNaN": "callbacks.terminate_on_nan",
    "TimeLimit": "callbacks.time_limit",
    "attach": "integrations.attach",
    "checkpoint": "checkpointing.checkpoint",
}
__all__ = [  # a literal list for type checkers; a test compares it with the table
    "Best",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Condition",
    "Diverged",
    "EarlyStopping",
    "Elapsed",
    "EpochalError",
    "Every",
    "GeneralizationLoss",
    "JSONLogger",
    "LearningRate",
    "Loop",
    "MLflowLogger",
    "MetricNotFound",
    "NonFinite",
    "Plateau",
    "Progress",
    "ProgressQuotient",
    "ReduceLROnPlateau",
    "Run",
    "Stop",
    "SuccessiveIncreases",
    "Target",
    "TensorBoardLogger",
    "TerminateOnNaN",
    "TimeLimit",
    "attach",
    "checkpoint",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: importing epochal imports nothing else."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'epochal' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"epochal.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
