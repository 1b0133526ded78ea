"""A validation that somebody asked for in a training of Ultralytics, between two batches; and its clock in a pause."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from epochal.core.engine import Engine
from epochal.integrations.asked import as_asked, is_asked

EMA = (
    "yaml",
    "nc",
    "args",
    "names",
    "stride",
    "class_weights",
)  # what the average takes from the model at an epoch's end


def validate_as_asked(engine: Engine, trainer: Any) -> None:
    """Validate the average of the weights as at an epoch's end, as long as somebody asks."""
    if trainer.args.val and engine.batch + 1 == engine.num_batches:
        return  # the epoch's own comes next
    while is_asked(engine):
        with as_asked(engine), undecided(trainer):
            trainer.ema.update_attr(trainer.model, include=list(EMA))
            trainer._clear_memory(0.5)  # as at an epoch's end: a validation needs room
            trainer.validate()


@contextmanager
def undecided(trainer: Any) -> Generator[None]:
    """Let Ultralytics know nothing of a validation: its best fitness decides by epochs which weights are best.pt."""
    names = ("metrics", "fitness", "best_fitness")
    known = {name: getattr(trainer, name) for name in names}
    plots = trainer.validator.args.plots
    try:
        yield
    finally:
        for name, value in known.items():
            setattr(trainer, name, value)
        trainer.validator.args.plots = plots


def keep_time(trainer: Any, seconds: float) -> None:
    """Leave a pause out of what ``time=`` limits, and of an epoch's time."""
    for name in ("train_time_start", "epoch_time_start"):
        if hasattr(trainer, name):
            setattr(trainer, name, getattr(trainer, name) + seconds)
