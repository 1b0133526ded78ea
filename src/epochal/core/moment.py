"""A moment: what a condition is told at a safe point."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Ended = Literal["batch", "validation", "epoch"]

NOTHING: Mapping[str, float] = MappingProxyType({})
NO_ARRIVALS: Mapping[str, tuple[float, ...]] = MappingProxyType({})


class Moment(NamedTuple):
    """One safe point of a training: the end of a batch, of a validation, or of an epoch after all callbacks.

    >>> now = Moment("epoch", epoch=2, batch=9, step=30, seconds=1.5, settled={"val/loss": 0.25})
    >>> now.settled["val/loss"]
    0.25

    ``settled`` holds the values that became settled at this very moment (once per validation for what the validation
    logs and for ``fitness``, else once per epoch, at its end), under Epochal's names and under the trainer's own.
    ``arrived`` holds, for the names a condition watches, every value that reached the host since the last moment, in
    their order. ``seconds`` counts from ``on_train_start`` in this process, on a monotonic clock.
    """

    ended: Ended
    epoch: int
    batch: int | None = None
    step: int = 0
    seconds: float = 0.0
    settled: Mapping[str, float] = NOTHING
    arrived: Mapping[str, tuple[float, ...]] = NO_ARRIVALS
