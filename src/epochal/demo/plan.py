"""What a demo trains, and the callbacks that all demos have in common."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochal.core.callback import Callback
    from epochal.core.run import Run

LEVELS = (0.25, 0.5, 0.75, 0.9, 0.95)  # of the quality, worth a word when they are passed


@dataclass(frozen=True)
class Plan:
    """One training: what it is called, how long it may last, what is watched, and what counts as learnt.

    ``watched`` is the metric that early stopping and checkpoints go by, ``quality`` what people call it; a training
    that stays below ``goal`` has failed, one that is above it ends after so many ``minutes``. ``curves`` maps a plot's
    title to its lines, and these to the metrics they show.

    >>> Plan(name="d", title="a net learns", data="digits", epochs=9, watched="val/auc", quality="AUC").goal
    0.8
    """

    name: str
    title: str
    data: str
    epochs: int
    watched: str
    quality: str
    goal: float = 0.8
    patience: int = 6
    min_delta: float = 0.01
    minutes: float = 3.0
    curves: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


def callbacks(plan: Plan) -> "list[Callback]":
    """Return the callbacks of a demo: nothing in them knows which trainer they will serve."""
    from epochal.callbacks.checkpoint import Checkpoint
    from epochal.callbacks.early_stopping import EarlyStopping
    from epochal.callbacks.progress import Progress
    from epochal.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
    from epochal.callbacks.stop import Stop
    from epochal.conditions.best import Best
    from epochal.conditions.level import Target
    from epochal.conditions.schedule import Elapsed, Every
    from epochal.loggers.csv import CSVLogger
    from epochal.loggers.mlflow import MLflowLogger
    from epochal.loggers.tensorboard import TensorBoardLogger

    live = True if sys.stdout.isatty() else None  # also for Ultralytics, whose own bar the demo keeps quiet
    shown = list(dict.fromkeys(metric for lines in [*plan.curves.values()][::-1] for metric in lines.values()))
    return [
        EarlyStopping(plan.watched, patience=plan.patience, min_delta=plan.min_delta, restore_best=True),
        Checkpoint(when=Best(plan.watched) | Every(epochs=1), keep_last=1, keep_best=1, name="Checkpoint(best, last)"),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=2),
        Stop(when=Elapsed(minutes=plan.minutes) & Target(plan.watched, plan.goal), name="Stop(good and late)"),
        TensorBoardLogger(),
        MLflowLogger(experiment="epochal demo"),
        CSVLogger(),
        Progress(live=live, callback_times=True, summary=False, metrics=shown),
    ]


class Milestones:
    """Notes the epoch, from 1, at which the quality first passed each of some levels."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.passed: dict[float, int] = {}

    def watch(self, run: "Run") -> None:
        """Register a plain function with the run, as anybody would in a script."""

        @run.on("on_fit_epoch_end")
        def milestones(run: "Run") -> None:
            for level in LEVELS:
                if run.metrics.get(self.metric, 0.0) >= level:
                    self.passed.setdefault(level, run.epoch + 1)

    def __str__(self) -> str:
        """Tell the levels that were passed.

        >>> milestones = Milestones("val/accuracy")
        >>> milestones.passed = {0.25: 3, 0.5: 3, 0.75: 4}
        >>> str(milestones)
        '0.5 at epoch 3, 0.75 at epoch 4'
        """
        highest = {epoch: level for level, epoch in self.passed.items()}
        return ", ".join(f"{level:g} at epoch {epoch}" for epoch, level in highest.items())
