"""The newest, the least and the greatest value of a series, and where they were measured."""

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from epochal.runs.points import Points, decode, extremes

LAST = 1 << 62  # a step that no training comes to


class Stretch(NamedTuple):
    """The steps behind ``begin`` up to ``end`` (None: all) of one attempt count; later attempts repeat the others."""

    attempt: int
    begin: int
    end: int | None


class Newest(NamedTuple):
    """What a series has come to; ``low`` and ``high`` are the extremes of its finite values, None if it has none."""

    step: int
    epoch: int
    time: float
    value: float
    low: float | None
    low_step: int | None
    high: float | None
    high_step: int | None
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


def current(attempts: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Return what of each attempt, (number, from_step) in their order, no later one repeats.

    >>> current([(1, 0), (2, 100), (3, 50)])
    [Stretch(attempt=1, begin=0, end=50), Stretch(attempt=3, begin=50, end=None)]
    """
    found: list[Stretch] = []
    end: int | None = None
    for number, begin in reversed(attempts):
        if end is None or begin < end:
            found.append(Stretch(number, begin, end))
            end = begin
    return found[::-1]


def newest_of(points: Points) -> Newest | None:
    """Return what points come to, None if there are none.

    >>> points = Points()
    >>> for step, value in enumerate([3.0, 1.0, float("inf"), 2.0]):
    ...     points.append(step=step, time=0.0, epoch=0, value=value)
    >>> newest_of(points)
    Newest(step=3, epoch=0, time=0.0, value=2.0, low=1.0, low_step=1, high=3.0, high_step=0, count=4)
    """
    if not len(points):
        return None
    low, high = extremes(points.values)
    known = low == low
    return Newest(
        points.steps[-1], points.epochs[-1], points.times[-1], points.values[-1],
        low if known else None, points.steps[points.values.index(low)] if known else None,
        high if known else None, points.steps[points.values.index(high)] if known else None,
        len(points),
    )  # fmt: skip


def joined(earlier: Newest | None, later: Newest | None) -> Newest | None:
    """Return what two parts of a series come to, one behind the other; of equal extremes the earlier one counts.

    >>> joined(Newest(1, 0, 0.5, 2.0, 2.0, 1, 2.0, 1, 1), Newest(2, 0, 1.0, 3.0, 3.0, 2, 3.0, 2, 1))
    Newest(step=2, epoch=0, time=1.0, value=3.0, low=2.0, low_step=1, high=3.0, high_step=2, count=2)
    """
    if earlier is None or later is None:
        return later if earlier is None else earlier
    low, high = (earlier.low, earlier.low_step), (earlier.high, earlier.high_step)
    if later.low is not None and (earlier.low is None or later.low < earlier.low):
        low = later.low, later.low_step
    if later.high is not None and (earlier.high is None or later.high > earlier.high):
        high = later.high, later.high_step
    return Newest(*later[:4], *low, *high, earlier.count + later.count)


def summed(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> Newest | None:
    """Return what the file holds of a series in these stretches comes to; few chunks are read for it."""
    return reduce(joined, (of_stretch(connection, series, one) for one in stretches), None)


def of_stretch(connection: sqlite3.Connection, series: int, stretch: Stretch) -> Newest | None:
    """Return what one stretch comes to: whole chunks by their extremes, the chunk over its end point by point."""
    end = LAST if stretch.end is None else stretch.end
    heads = connection.execute(
        "SELECT rowid, last_step, low, high, count FROM chunks WHERE series = ? AND attempt = ? AND first_step <= ?"
        " ORDER BY first",
        (series, stretch.attempt, end),
    ).fetchall()
    whole = [head for head in heads if head[1] <= end]
    finite = [head for head in whole if head[2] is not None]
    read = {head[0] for head in heads if head[1] > end} | {head[0] for head in whole[-1:]}
    if finite:
        read |= {min(finite, key=lambda head: head[2])[0], max(finite, key=lambda head: head[3])[0]}
    found: Newest | None = None
    for rowid in [head[0] for head in heads if head[0] in read]:
        (data,) = connection.execute("SELECT points FROM chunks WHERE rowid = ?", (rowid,)).fetchone()
        found = joined(found, newest_of(upto(decode(data), end)))
    count = sum(head[4] for head in whole if head[0] not in read)
    return found and found._replace(count=found.count + count)


def upto(points: Points, end: int | None) -> Points:
    """Return the points up to a step; steps never fall inside an attempt."""
    if end is None or not len(points) or points.steps[-1] <= end:
        return points
    return points.part(0, bisect_right(points.steps, end))


def load(connection: sqlite3.Connection, series: int) -> Newest | None:
    """Return what the table says of a series."""
    row = connection.execute(f"SELECT {', '.join(Newest._fields)} FROM newest WHERE series = ?", (series,)).fetchone()
    if row is None:
        return None
    return Newest(*row)._replace(value=float("nan") if row[3] is None else row[3])


def store(connection: sqlite3.Connection, series: int, newest: Newest | None) -> None:
    """Have the table say what a series comes to, nothing where none of its points counts any more."""
    if newest is None:
        connection.execute("DELETE FROM newest WHERE series = ?", (series,))
        return
    row: dict[str, Any] = {"series": series, **newest._asdict()}
    places = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT OR REPLACE INTO newest ({', '.join(row)}) VALUES ({places})", row)


def recount(connection: sqlite3.Connection) -> None:
    """Have the table say for every series what counts now that another attempt begins."""
    attempts = connection.execute("SELECT id, from_step FROM attempts ORDER BY id").fetchall()
    stretches = current(attempts)
    if len(attempts) > 1:
        for (series,) in connection.execute("SELECT id FROM series").fetchall():
            store(connection, series, summed(connection, series, stretches))
