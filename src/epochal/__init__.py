"""Epochal: one callback system for every trainer."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from epochal.callbacks.activation_monitor import ActivationMonitor
    from epochal.callbacks.checkpoint import Checkpoint
    from epochal.callbacks.early_stopping import EarlyStopping
    from epochal.callbacks.ema import EMA
    from epochal.callbacks.freeze_layers import FreezeLayers
    from epochal.callbacks.gradient_accumulation import GradientAccumulation
    from epochal.callbacks.gradient_clip import GradientClip
    from epochal.callbacks.gradient_monitor import GradientMonitor
    from epochal.callbacks.layers import Layers
    from epochal.callbacks.learning_rate import LearningRate
    from epochal.callbacks.learning_rate_finder import LearningRateFinder
    from epochal.callbacks.loss_spike import LossSpike
    from epochal.callbacks.memory_snapshot import MemorySnapshot
    from epochal.callbacks.model_summary import ModelSummary
    from epochal.callbacks.notifier import Notifier
    from epochal.callbacks.prediction_plots import PredictionPlots
    from epochal.callbacks.profile import Profile
    from epochal.callbacks.progress import Progress
    from epochal.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
    from epochal.callbacks.save_on_exception import SaveOnException
    from epochal.callbacks.stop import Stop
    from epochal.callbacks.system_stats import SystemStats
    from epochal.callbacks.terminate_on_nan import TerminateOnNaN
    from epochal.callbacks.throughput import Throughput
    from epochal.callbacks.time_limit import TimeLimit
    from epochal.callbacks.watchdog import Watchdog
    from epochal.callbacks.weight_average import WeightAverage
    from epochal.callbacks.where_is_nan import WhereIsNaN
    from epochal.callbacks.write_predictions import WritePredictions
    from epochal.checkpointing.checkpoint import checkpoint
    from epochal.conditions.base import Condition
    from epochal.conditions.best import Best
    from epochal.conditions.level import Diverged, NonFinite, Target
    from epochal.conditions.plateau import Plateau
    from epochal.conditions.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveIncreases
    from epochal.conditions.schedule import Elapsed, Every
    from epochal.conditions.spike import Spike
    from epochal.core.callback import Callback
    from epochal.core.declared import Between
    from epochal.core.errors import EpochalError, MetricNotFound, Preempted
    from epochal.core.run import Run
    from epochal.data.resumable_loader import ResumableLoader
    from epochal.integrations.attach import attach
    from epochal.integrations.pytorch import Loop
    from epochal.loggers.csv import CSVLogger
    from epochal.loggers.json import JSONLogger
    from epochal.loggers.mlflow import MLflowLogger
    from epochal.loggers.tensorboard import TensorBoardLogger
    from epochal.loggers.wandb import WandbLogger

__version__ = "0.1.0"
_HOMES = {
    "ActivationMonitor": "callbacks.activation_monitor",
    "Best": "conditions.best",
    "Between": "core.declared",
    "CSVLogger": "loggers.csv",
    "Callback": "core.callback",
    "Checkpoint": "callbacks.checkpoint",
    "Condition": "conditions.base",
    "Diverged": "conditions.level",
    "EMA": "callbacks.ema",
    "EarlyStopping": "callbacks.early_stopping",
    "Elapsed": "conditions.schedule",
    "EpochalError": "core.errors",
    "Every": "conditions.schedule",
    "FreezeLayers": "callbacks.freeze_layers",
    "GeneralizationLoss": "conditions.prechelt",
    "GradientAccumulation": "callbacks.gradient_accumulation",
    "GradientClip": "callbacks.gradient_clip",
    "GradientMonitor": "callbacks.gradient_monitor",
    "JSONLogger": "loggers.json",
    "Layers": "callbacks.layers",
    "LearningRate": "callbacks.learning_rate",
    "LearningRateFinder": "callbacks.learning_rate_finder",
    "Loop": "integrations.pytorch",
    "LossSpike": "callbacks.loss_spike",
    "MLflowLogger": "loggers.mlflow",
    "MemorySnapshot": "callbacks.memory_snapshot",
    "MetricNotFound": "core.errors",
    "ModelSummary": "callbacks.model_summary",
    "NonFinite": "conditions.level",
    "Notifier": "callbacks.notifier",
    "Plateau": "conditions.plateau",
    "PredictionPlots": "callbacks.prediction_plots",
    "Preempted": "core.errors",
    "Profile": "callbacks.profile",
    "Progress": "callbacks.progress",
    "ProgressQuotient": "conditions.prechelt",
    "ReduceLROnPlateau": "callbacks.reduce_lr_on_plateau",
    "ResumableLoader": "data.resumable_loader",
    "Run": "core.run",
    "SaveOnException": "callbacks.save_on_exception",
    "Spike": "conditions.spike",
    "Stop": "callbacks.stop",
    "SuccessiveIncreases": "conditions.prechelt",
    "SystemStats": "callbacks.system_stats",
    "Target": "conditions.level",
    "TensorBoardLogger": "loggers.tensorboard",
    "TerminateOnNaN": "callbacks.terminate_on_nan",
    "Throughput": "callbacks.throughput",
    "TimeLimit": "callbacks.time_limit",
    "WandbLogger": "loggers.wandb",
    "Watchdog": "callbacks.watchdog",
    "WeightAverage": "callbacks.weight_average",
    "WhereIsNaN": "callbacks.where_is_nan",
    "WritePredictions": "callbacks.write_predictions",
    "attach": "integrations.attach",
    "checkpoint": "checkpointing.checkpoint",
}
__all__ = [  # a literal list for type checkers; a test compares it with the table
    "EMA",
    "ActivationMonitor",
    "Best",
    "Between",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Condition",
    "Diverged",
    "EarlyStopping",
    "Elapsed",
    "EpochalError",
    "Every",
    "FreezeLayers",
    "GeneralizationLoss",
    "GradientAccumulation",
    "GradientClip",
    "GradientMonitor",
    "JSONLogger",
    "Layers",
    "LearningRate",
    "LearningRateFinder",
    "Loop",
    "LossSpike",
    "MLflowLogger",
    "MemorySnapshot",
    "MetricNotFound",
    "ModelSummary",
    "NonFinite",
    "Notifier",
    "Plateau",
    "PredictionPlots",
    "Preempted",
    "Profile",
    "Progress",
    "ProgressQuotient",
    "ReduceLROnPlateau",
    "ResumableLoader",
    "Run",
    "SaveOnException",
    "Spike",
    "Stop",
    "SuccessiveIncreases",
    "SystemStats",
    "Target",
    "TensorBoardLogger",
    "TerminateOnNaN",
    "Throughput",
    "TimeLimit",
    "WandbLogger",
    "Watchdog",
    "WeightAverage",
    "WhereIsNaN",
    "WritePredictions",
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
