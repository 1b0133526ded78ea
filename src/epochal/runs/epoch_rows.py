"""What an epoch measured, handed over once every callback has had its say in it."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.host import Record
from epochal.core.metrics import At

if TYPE_CHECKING:
    from epochal.core.run import Run


class EpochRows:
    """Notes where an epoch ended (``note``), and later (``take``) returns what its history holds by then.

    A row has the means of what was logged in batches, ``lr/<group>``, ``fitness`` and ``seconds`` of the training.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.pending: Record | None = None
        self.row: tuple[int, Mapping[str, float]] = (0, {})  # the length of the history with this epoch, and its row

    def note(self) -> None:
        """Remember where this epoch ended; call it at ``on_fit_epoch_end``, after ``take``."""
        engine = self.run.engine
        extra: dict[str, Any] = {f"lr/{group}": float(rate) for group, rate in self.run.lr.items()}
        extra["seconds"] = round(time.monotonic() - engine.started, 3)
        self.row = len(engine.history), engine.history[-1]
        self.pending = Record("epoch", extra, At(engine.epoch, None, engine.step), time.time())

    def take(self) -> Record | None:
        """Return the noted epoch, once."""
        pending, self.pending = self.pending, None
        if pending is None:
            return None
        engine = self.run.engine
        length, row = self.row
        if len(engine.history) == length:  # else the run was set back meanwhile
            row = engine.history[-1]
        values = {**row, **pending.values}
        fitness = engine.metrics.entries.get("fitness")
        if fitness is not None and engine.fitness_rule.value is not None and fitness.at.epoch == pending.at.epoch:
            values["fitness"] = engine.fitness_rule.value
        return pending._replace(values=values)
