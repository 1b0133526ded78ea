"""The end of one series: points that are not sealed yet, and what of them the file lacks."""

from collections.abc import Iterator
from math import isfinite
from typing import Any, NamedTuple

from epochal.runs.points import Points, coarser, encode, encode_ranges, extremes, ranges, thinned

SEALED = 4096  # points of a chunk that is never written again
ROWS = 64  # open chunks of a series before they are joined


class Change(NamedTuple):
    """What a file needs to hold the first ``upto`` of a tail's points: perhaps open chunks go, chunks come."""

    joins: bool
    chunks: tuple[dict[str, Any], ...]
    upto: int


class Newest:
    """The newest, the least and the greatest value of a series, and where they were measured."""

    __slots__ = ("count", "epoch", "high", "high_step", "low", "low_step", "step", "time", "value")

    def __init__(self) -> None:
        self.step = self.epoch = self.count = 0
        self.time = self.value = 0.0
        self.low: float | None = None
        self.high: float | None = None
        self.low_step: int | None = None
        self.high_step: int | None = None

    def take(self, *, step: int, epoch: int, time: float, value: float) -> None:
        """Take one more value."""
        self.step, self.epoch, self.time, self.value = step, epoch, time, value
        self.count += 1
        if not isfinite(value):
            return
        if self.low is None or value < self.low:
            self.low, self.low_step = value, step
        if self.high is None or value > self.high:
            self.high, self.high_step = value, step

    def row(self) -> dict[str, Any]:
        """Return the row of the table ``newest``, without its series."""
        return {name: getattr(self, name) for name in self.__slots__}

    def load(self, row: dict[str, Any]) -> None:
        """Go on from the row that an earlier training left."""
        for name in self.__slots__:
            setattr(self, name, row[name])


class Tail:
    """The open points of one series in one attempt; only ``upto`` of the newest change says what is in the file.

    >>> tail = Tail("train/loss", "batch", attempt=0)
    >>> tail.append(step=1, epoch=0, time=0.5, value=2.0)
    >>> change = tail.change()
    >>> len(change.chunks), change.upto
    (1, 1)
    >>> tail.written(change)
    >>> tail.change() is None
    True
    """

    def __init__(self, name: str, scope: str, *, attempt: int) -> None:
        self.name, self.scope, self.attempt = name, scope, attempt
        self.series: int | None = None  # its number in the file
        self.newest = Newest()
        self.restart(attempt)

    def restart(self, attempt: int) -> None:
        """Begin with an attempt that has no points."""
        self.attempt = attempt
        self.open = Points()
        self.first = 0  # the number of the first open point
        self.durable = self.rows = 0  # open points, and the chunks of them, that the file holds
        self.asked = 0  # open points of a change that is being written

    @property
    def lacking(self) -> int:
        """How many points the file lacks."""
        return len(self.open) - self.durable

    def append(self, *, step: int, epoch: int, time: float, value: float) -> None:
        """Add one point."""
        self.open.append(step=step, time=time, epoch=epoch, value=value)
        self.newest.take(step=step, epoch=epoch, time=time, value=value)

    def change(self) -> Change | None:
        """Return what the file needs, None if it has everything; until ``written`` or ``failed`` no point goes."""
        count = self.asked = len(self.open)
        if count == self.durable:
            return None
        if count < SEALED and self.rows < ROWS:
            return Change(False, (self.chunk(self.durable, count),), count)
        return Change(True, tuple(self.chunk(*part) for part in parts(count)), count)

    def chunk(self, start: int, end: int) -> dict[str, Any]:
        """Return the row of a chunk, without its series and attempt."""
        points = self.open.part(start, end)
        low, high = extremes(points.values)
        sealed = len(points) == SEALED
        fine = ranges(points) if sealed else []
        return {
            "first": self.first + start, "count": len(points), "sealed": sealed,
            "first_step": points.steps[0], "last_step": points.steps[-1],
            "first_time": points.times[0], "last_time": points.times[-1],
            "low": low, "high": high, "last": points.values[-1], "points": encode(points),
            "ranges1": encode_ranges(fine) if sealed else None,
            "ranges2": encode_ranges(coarser(fine)) if sealed else None,
        }  # fmt: skip

    def written(self, change: Change) -> None:
        """Let go of what is sealed in the file now."""
        sealed = change.upto // SEALED * SEALED
        if sealed:
            self.open, self.first = self.open.part(sealed), self.first + sealed
        self.durable, self.asked = change.upto - sealed, 0
        self.rows = (1 if self.durable else 0) if change.joins else self.rows + 1

    def failed(self) -> None:
        """Nothing was written: points may go again."""
        self.asked = 0

    def thin(self) -> int:
        """Leave out about half of the points that wait, but no extremes of four; return how many went."""
        begin = max(self.asked, self.durable)
        waiting = self.open.part(begin)
        if len(waiting) < 8:
            return 0
        self.open = self.open.part(0, begin)
        self.open.extend(kept := thinned(waiting))
        return len(waiting) - len(kept)

    def forget_file(self) -> None:
        """The file is gone: a new one needs all that is still here."""
        self.series = None
        self.durable = self.rows = self.asked = 0


def parts(count: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each chunk of so many points.

    >>> list(parts(5000))
    [(0, 4096), (4096, 5000)]
    """
    for start in range(0, count, SEALED):
        yield start, min(start + SEALED, count)
