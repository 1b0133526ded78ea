"""The end of one series: points that are not sealed yet, and what of them the file lacks."""

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

from epochal.runs.newest import Newest, joined, newest_of
from epochal.runs.points import Points, coarser, encode, encode_ranges, ranges, thinned

SEALED = 4096  # points of a chunk that is never written again
ROWS = 64  # small chunks of a series before they are joined


class Change(NamedTuple):
    """What a file needs to hold the first ``upto`` of a tail's points.

    ``drops``: chunks from this point of the tail on go first, None if none does. ``newest``: what they come to.
    """

    drops: int | None
    chunks: tuple[dict[str, Any], ...]
    upto: int
    newest: Newest | None


class Tail:
    """The open points of one series in one attempt; only ``upto`` of the newest change says what is in the file.

    Each write adds a small chunk. Of 64 small ones one is made, of 4096 points one that stays, with its levels: each
    point is written about three times.

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
        self.name, self.scope = name, scope
        self.series: int | None = None  # its number in the file
        self.restart(attempt)

    def restart(self, attempt: int) -> None:
        """Begin with an attempt that has no points."""
        self.attempt = attempt
        self.open = Points()
        self.first = 0  # the number of the first open point
        self.durable = 0  # open points that the file holds
        self.rows = self.joined = 0  # small chunks of them in the file, behind so many that are joined already
        self.asked = 0  # open points of a change that is being written
        self.newest: Newest | None = None  # what the attempt's points in the file come to
        self.base: Newest | None = None  # what earlier attempts left, where it is known
        self.based = False

    @property
    def lacking(self) -> int:
        """How many points the file lacks."""
        return len(self.open) - self.durable

    def append(self, *, step: int, epoch: int, time: float, value: float) -> None:
        """Add one point."""
        self.open.append(step=step, time=time, epoch=epoch, value=value)

    def change(self) -> Change | None:
        """Return what the file needs, None if it has everything; until ``written`` or ``failed`` no point goes."""
        count = self.asked = len(self.open)
        if count == self.durable:
            return None
        adds = count < SEALED and self.rows < ROWS
        begin = self.durable if adds else self.joined if count < SEALED else 0
        chunks, each = zip(*(self.chunk(*part) for part in parts(begin, count)), strict=True)
        newest = reduce(joined, each, self.newest)
        known = 0 if self.newest is None else self.newest.count
        newest = newest and newest._replace(count=known + count - self.durable)  # some chunks are written again
        return Change(None if adds else begin, chunks, count, newest)

    def chunk(self, start: int, end: int) -> tuple[dict[str, Any], Newest]:
        """Return the row of a chunk, without its series and attempt, and what its points come to."""
        points = self.open.part(start, end)
        sealed = len(points) == SEALED
        fine = ranges(points) if sealed else []
        newest = newest_of(points, fine)
        assert newest is not None
        row = {
            "first": self.first + start, "count": len(points), "sealed": sealed,
            "first_step": points.steps[0], "last_step": points.steps[-1],
            "first_time": points.times[0], "last_time": points.times[-1],
            "low": newest.low, "high": newest.high, "last": newest.value, "points": encode(points),
            "ranges1": encode_ranges(fine) if sealed else None,
            "ranges2": encode_ranges(coarser(fine)) if sealed else None,
        }  # fmt: skip
        return row, newest

    def written(self, change: Change) -> None:
        """Let go of what is sealed in the file now."""
        sealed = change.upto // SEALED * SEALED
        if sealed:
            self.open, self.first = self.open.part(sealed), self.first + sealed
        self.durable, self.asked, self.newest = change.upto - sealed, 0, change.newest
        if change.drops is None:
            self.rows += 1
        else:
            self.rows, self.joined = 0, self.durable

    def failed(self) -> None:
        """Nothing was written: points may go again, and its number may have been in what was taken back."""
        self.asked, self.series = 0, None

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
        self.series, self.newest, self.base, self.based = None, None, None, False
        self.durable = self.rows = self.joined = self.asked = 0


def parts(begin: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each chunk of the points from ``begin`` on.

    >>> list(parts(0, 5000))
    [(0, 4096), (4096, 5000)]
    """
    for start in range(begin, count, SEALED):
        yield start, min(start + SEALED, count)
