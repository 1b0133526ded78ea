"""What a series has come to: its newest, least and greatest value; and what of its attempts counts."""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import reduce
from math import inf
from typing import Any, NamedTuple

from epochal.runs.points import BUCKET, Points, Range, decode, extremes

LAST = 1 << 62  # a step, or an epoch, that no training comes to
ATTEMPTS = """SELECT id, from_step, from_epoch, from_step = 0 OR EXISTS (SELECT 1 FROM epochs e WHERE
    e.epoch = a.from_epoch - 1 AND e.last_step = a.from_step AND e.attempt < a.id), (SELECT max(e.time) FROM events e
    WHERE a.from_step > 0 AND e.kind = 'save' AND e.step = a.from_step AND e.attempt < a.id) FROM attempts a
    ORDER BY id"""
Attempts = Sequence[tuple[int, int, int, bool, float | None]]


class End(NamedTuple):
    """Where what an attempt has measured was measured again: behind a step, and at that step from an epoch on.

    ``saved``: what was measured at that step until then was not, whatever its epoch.
    """

    step: int = LAST
    epoch: int = LAST
    saved: float = -inf

    def is_before(self, step: int, epoch: int) -> bool:
        """Say whether what was measured there was measured again.

        >>> End(100, 5).is_before(100, 5), End(100, 5).is_before(100, 4), End(100).is_before(100, 5)
        (True, False, False)
        """
        return (step, epoch) >= self[:2]

    def covers(self, step: int) -> bool:
        """Say whether all that was measured up to a step counts, whatever its epoch."""
        return (step, LAST) <= self[:2]


class Stretch(NamedTuple):
    """What counts of an attempt: all before ``end``.

    ``again``: the step behind which it began inside an epoch; what it measures at that very step, as a validation that
    comes after a save, counts for what attempts before have measured there after ``saved``. -1 where it began with an
    epoch.
    """

    attempt: int
    end: End = End()
    again: int = -1
    saved: float = -inf


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


def ends(attempts: Attempts) -> list[Stretch]:
    """Return what later attempts have left of each, from (number, from_step, from_epoch, began with that epoch, save).

    >>> [one.end[:2] for one in ends([(1, 0, 0, True, None), (2, 100, 5, True, None), (3, 50, 2, True, None)])][:2]
    [(50, 2), (50, 2)]
    """
    found: list[Stretch] = []
    end = End()
    for number, step, epoch, whole, saved in reversed(attempts):
        found.append(Stretch(number, end, -1 if whole else step, -inf if saved is None else saved))
        end = min(end, End(step, epoch if whole else LAST))
    return found[::-1]


def current(attempts: Attempts) -> list[Stretch]:
    """Return what counts of the attempts that no later one has repeated wholly.

    >>> [one.attempt for one in current([(1, 0, 0, True, None), (2, 100, 5, True, None), (3, 50, 2, True, None)])]
    [1, 3]
    """
    both = zip(ends(attempts), attempts, strict=True)
    return [one for one, (_, step, epoch, *_) in both if (step, epoch) < one.end[:2]]


def stretches_of(connection: sqlite3.Connection) -> list[Stretch]:
    """Return what counts of a file's attempts."""
    return current(connection.execute(ATTEMPTS).fetchall())


def cut(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return what counts of a series: without what an attempt has measured again at the step behind which it began."""
    found: list[Stretch] = []
    limit = End()
    for one in reversed(stretches):
        found.append(one._replace(end=min(one.end, limit)))
        if one.again < 0:
            continue
        query = "SELECT first_step FROM chunks WHERE series = ? AND attempt = ? ORDER BY first LIMIT 1"
        first = connection.execute(query, (series, one.attempt)).fetchone()
        if first is not None and first[0] <= one.again:
            limit = min(limit, End(first[0], -1, one.saved))
    return found[::-1]


def newest_of(points: Points, fine: Sequence[Range] = ()) -> Newest | None:
    """Return what points come to, None if there are none; ``fine``: their buckets, where these are known already.

    >>> points = Points()
    >>> for step, value in enumerate([3.0, 1.0, float("inf"), 2.0]):
    ...     points.append(step=step, time=0.0, epoch=0, value=value)
    >>> newest_of(points)
    Newest(step=3, epoch=0, time=0.0, value=2.0, low=1.0, low_step=1, high=3.0, high_step=0, count=4)
    """
    if not len(points):
        return None
    values, steps = points.values, points.steps
    lows, highs = ([one.low for one in fine], [one.high for one in fine]) if fine else (values, values)
    low, high = extremes(lows)[0], extremes(highs)[1]
    size, known = BUCKET if fine else 1, low == low
    return Newest(
        steps[-1], points.epochs[-1], points.times[-1], values[-1],
        low if known else None, steps[values.index(low, size * lows.index(low))] if known else None,
        high if known else None, steps[values.index(high, size * highs.index(high))] if known else None,
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
    end = stretch.end
    heads = connection.execute(
        "SELECT rowid, last_step, low, high, count FROM chunks WHERE series = ? AND attempt = ? AND first_step <= ?"
        " ORDER BY first",
        (series, stretch.attempt, end.step),
    ).fetchall()
    whole = [head for head in heads if end.covers(head[1])]
    finite = [head for head in whole if head[2] is not None]
    read = {head[0] for head in heads if not end.covers(head[1])} | {head[0] for head in whole[-1:]}
    if finite:
        read |= {min(finite, key=lambda head: head[2])[0], max(finite, key=lambda head: head[3])[0]}
    found: Newest | None = None
    for rowid in [head[0] for head in heads if head[0] in read]:
        (data,) = connection.execute("SELECT points FROM chunks WHERE rowid = ?", (rowid,)).fetchone()
        found = joined(found, newest_of(upto(decode(data), end)))
    count = sum(head[4] for head in whole if head[0] not in read)
    return found and found._replace(count=found.count + count)


def upto(points: Points, end: End) -> Points:
    """Return the points before an end; neither steps nor epochs fall inside an attempt."""
    steps = points.steps
    if not len(points) or end.covers(steps[-1]):
        return points
    first = bisect_left(steps, end.step)
    last = bisect_right(steps, end.step, first)
    again = bisect_left(points.epochs, end.epoch, first, last)
    return points.part(0, max(again, bisect_right(points.times, end.saved, first, last)))


def before(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch], attempt: int) -> Newest | None:
    """Return what the attempts before one have left of a series."""
    found = cut(connection, series, stretches)
    return summed(connection, series, [one for one in found if one.attempt < attempt])


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
    if connection.execute("SELECT count(*) FROM attempts").fetchone()[0] < 2:
        return
    stretches = stretches_of(connection)
    for (series,) in connection.execute("SELECT id FROM series").fetchall():
        store(connection, series, summed(connection, series, cut(connection, series, stretches)))
