"""What a ``Checkpoint`` with ``compat=`` saves and keeps: another library's arguments, read as it reads them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epochal.checkpointing.retention import Keep, Ranks
from epochal.conditions.presets import SAVES, SavePreset, Saves, preset
from epochal.conditions.save_due import OWNER, SaveDue
from epochal.core.errors import ArgumentError


@dataclass(frozen=True)
class KeepAs:
    """How a library keeps checkpoints: ``last`` and ``best`` may be -1 for all.

    >>> _, keeping = saving_as("transformers", {"metric": "val/loss", "keep_last": 3})
    >>> keeping.last, keeping.preset.shared
    (3, True)
    """

    preset: SavePreset
    last: int
    best: int
    every: int

    def rule(self, metric: str | None, due: SaveDue, *, over: bool) -> Keep:
        """Return the rule for a run's checkpoints; ``over``: the training is."""
        row, best = self.preset, due.state.best
        poisoned = row.habits.ties and best is not None and math.isnan(best)
        alone = over and row.shared and self.last == 1
        return Keep(
            last=0 if alone else self.last,
            best=0 if poisoned else sys.maxsize if self.best == -1 else self.best,
            metric=metric,
            mode=due.rule.mode,
            every=self.every or None,
            shared=row.shared,
            over=alone,
            ranks=Ranks(row.never_best, row.later, row.habits.single != "nothing", due.instead),
        )

    def saves_the_end(self, due: SaveDue) -> bool:
        """Say whether the end of a training is saved because nothing else was, as Lightning does for save_last."""
        return self.preset.ranked and self.last == 1 and not due.state.saves


def saving_as(compat: Saves, given: Mapping[str, Any]) -> tuple[SaveDue, KeepAs]:
    """Return when a library saves and what it keeps; ``given`` holds the arguments that were given.

    >>> saving_as("lightning", {"metric": "val/loss", "keep_best": 3})[1].best
    3

    Raises ``ArgumentError`` for what the library does not have or does not take.
    """
    row = preset(SAVES, compat, given, owner=OWNER)
    last, best, every = keep_last(row, given), keep_best(row, given), period(row, given)
    metric, best_only = given.get("metric"), bool(given.get("best_only"))
    if metric is None and not row.ranked:
        metric = "fitness"
    if metric is None and best > 1:
        raise ArgumentError(f"Checkpoint: keep_best={best} needs a metric to rank by; pass metric=, or keep_best=1")
    if row.period == "also" and best_only and given.get("keep_last") is None:
        last = 0
    due = SaveDue(
        metric,
        compat=compat,
        mode=given.get("mode"),
        best_only=best_only or (row.period == "also" and last == 0),
        initial_best=given.get("initial_best"),
        keep_best=best,
        every_n_epochs=every,
    )
    if metric is None and best == 1:  # without a metric it is the newest
        last, best = 1, 0
    return due, KeepAs(row, last, best, max(every or 0, 0) if row.period == "also" else 0)


def keep_last(row: SavePreset, given: Mapping[str, Any]) -> int:
    """Return how many of the newest stay, -1 for all."""
    last = given.get("keep_last")
    if last is None:
        return row.last
    whole(last, "keep_last", at_least=-1, flag=row.ranked)
    if row.ranked and last > 1:
        raise ArgumentError(f"Checkpoint: keep_last={last}, but {row.theirs} has save_last only: pass 1 or 0")
    if row.shared and last <= 0:  # no limit
        return -1
    return int(last)


def keep_best(row: SavePreset, given: Mapping[str, Any]) -> int:
    """Return how many of the best stay, -1 for all."""
    best = given.get("keep_best")
    if best is None:
        return row.best
    whole(best, "keep_best", at_least=-1)
    if not row.ranked and best not in (0, 1):
        raise ArgumentError(f"Checkpoint: keep_best={best}, but {row.theirs} keeps one best only: leave it out")
    return row.best if row.shared else int(best)


def period(row: SavePreset, given: Mapping[str, Any]) -> int | None:
    """Return every how many epochs; less than 1 is never."""
    every = given.get("every_n_epochs")
    if every is not None:
        whole(every, "every_n_epochs", at_least=0 if row.ranked else -1)
    return every


def whole(value: object, name: str, *, at_least: int, flag: bool = False) -> None:
    """Raise ``ArgumentError`` unless a value is a whole number of at least so much, or a ``flag`` True or False.

    >>> whole(1.5, "keep_last", at_least=-1)
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Checkpoint: keep_last must be a whole number of at least -1, not 1.5
    """
    if not isinstance(value, int) or (isinstance(value, bool) and not flag) or value < at_least:
        raise ArgumentError(f"Checkpoint: {name} must be a whole number of at least {at_least}, not {value!r}")
