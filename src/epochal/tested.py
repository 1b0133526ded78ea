"""The versions that Epochal was tested with; made by `make constraints`."""

from collections.abc import Mapping

TESTED: Mapping[str, str] = {
    "accelerate": "1.15.0",
    "cloudpickle": "3.1.2",
    "keras": "3.15.1",
    "lightning": "2.6.6",
    "matplotlib": "3.11.2",
    "mlflow": "3.17.2",
    "numpy": "2.4.6",
    "nvidia-ml-py": "13.615.71",
    "optuna": "5.0.0",
    "orjson": "3.13.0",
    "pandas": "3.1.1",
    "pillow": "13.0.0",
    "polars": "2.1.0",
    "psutil": "7.2.2",
    "pyarrow": "25.0.1",
    "rich": "15.0.0",
    "safetensors": "0.8.0",
    "scikit-learn": "1.9.1",
    "starlette": "1.10.0",
    "tensorboard": "2.21.0",
    "tensorflow": "2.21.0",
    "torch": "2.15.0",
    "torchinfo": "1.8.0",
    "transformers": "5.23.0",
    "typer": "0.29.2",
    "ultralytics": "8.4.190",
    "uvicorn": "0.54.0",
    "wandb": "0.31.0",
}
