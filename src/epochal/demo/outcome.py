"""What came of a demo's training, in plain values: the report and the picture are made from it."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from epochal.core.summary import Summary
from epochal.demo.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """One finished training of the demo.

    ``deeds`` maps a callback's name to what it did; ``folder`` is all that the training wrote, ``summary.dir`` what
    Epochal wrote of it.
    """

    plan: Plan
    summary: Summary
    folder: Path
    deeds: Mapping[str, str]

    @property
    def series(self) -> list[float]:
        """The watched metric of each epoch; NaN where it was not measured."""
        return [row.get(self.plan.watched, math.nan) for row in self.summary.history]

    @property
    def best(self) -> tuple[int, float] | None:
        """The epoch, from 1, of the best value of the watched metric, and the value; None when nothing was measured."""
        measured = [(value, -epoch) for epoch, value in enumerate(self.series, 1) if math.isfinite(value)]
        if not measured:
            return None
        value, negated = max(measured)
        return -negated, value

    @property
    def learnt(self) -> bool:
        """Say whether the goal was reached."""
        return self.best is not None and self.best[1] >= self.plan.goal

    def panels(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Return the points (epoch from 1, value) of every line of every plot."""
        rows = [*enumerate(self.summary.history, 1)]
        return {
            title: {
                label: [(float(epoch), row[metric]) for epoch, row in rows if metric in row]
                for label, metric in lines.items()
            }
            for title, lines in self.plan.curves.items()
        }


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a run's metrics.csv, none where it was not written."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def rates(rows: Sequence[Mapping[str, str]]) -> list[float]:
    """Return the learning rate of the first parameter group after each epoch.

    >>> rates([{"epoch": "0", "lr/pg0": "0.1"}, {"epoch": "1", "lr/pg0": "0.05"}])
    [0.1, 0.05]
    """
    names = [name for name in (rows[0] if rows else ()) if name.startswith("lr/")]
    return [float(row[names[0]]) for row in rows if row[names[0]]] if names else []
