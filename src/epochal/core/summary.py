"""What a training was, once it is over."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Summary(NamedTuple):
    """One finished training in numbers: ``run.past`` holds those of a host's earlier trainings.

    ``costs`` maps a callback's name to its calls and seconds, when times were asked for; ``failures`` a guarded
    callback's name to how often it failed; ``seconds`` is the wall time from ``on_train_start``.
    """

    name: str
    dir: "Path | None"
    epochs: int
    steps: int
    seconds: float
    end_reason: str | None
    stop_reason: str | None
    fitness: float | None
    best_fitness: float | None
    best_epoch: int | None
    history: tuple[Mapping[str, float], ...]
    checkpoints: int
    checkpoint_errors: int
    failures: Mapping[str, int]
    switched_off: tuple[str, ...]
    costs: Mapping[str, tuple[int, float]]
    notes: tuple[str, ...]
