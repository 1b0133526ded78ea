"""What a run's series are called where people look at them, and how a curve is read: whole, or as few ranges."""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from epochal.runs.newest import LAST, Stretch, current, upto
from epochal.runs.points import BUCKET, Points, Range, coarser, decode, decode_ranges, ranges

__all__ = ["Stretch", "current", "curves", "read_points", "read_ranges"]

EPOCH = "epoch/"  # before the mean of what was logged in batches
LEVELS = 3  # of ranges: 16 points, 256 points, a whole chunk
SPARE = 8  # buckets read for each one that is wanted


class ChunkHead(NamedTuple):
    """Where a chunk begins and ends, and its extremes: what is read of it to know whether to read more."""

    rowid: int
    first_step: int
    last_step: int
    first_time: float
    low: float | None
    high: float | None
    size: int
    wanted: Points | None = None  # of a chunk that is wanted in part


def curves(series: Iterable[tuple[int, str, str]]) -> dict[str, int]:
    """Return the names of a run's curves and their series, from its rows (number, name, scope).

    What was logged in batches has its name, its mean over each epoch is ``epoch/<name>``; all else has its name.

    >>> curves([(1, "train/loss", "batch"), (2, "train/loss", "epoch"), (3, "val/loss", "point")])
    {'train/loss': 1, 'epoch/train/loss': 2, 'val/loss': 3}
    """
    known = {(name, scope): number for number, name, scope in series}
    batches = {name for name, scope in known if scope == "batch"}
    points = {name for name, scope in known if scope == "point"}
    named: dict[str, int] = {}
    for (name, scope), number in known.items():
        if scope == "epoch" and name in batches:
            named[f"{EPOCH}{name}"] = number
        elif scope == "epoch" and name in points:
            continue  # the validation's own value, again
        elif scope == "point" and name in batches:
            named[f"point/{name}"] = number
        else:
            named[name] = number
    return named


def read_points(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> Points:
    """Return all points of a series in these stretches, in order.

    What an attempt measured at the very step behind which the next one begins counts unless that one measured it again.
    """
    points = Points()
    for stretch in stretches:
        found = Points()
        for (data,) in connection.execute(
            "SELECT points FROM chunks WHERE series = ? AND attempt = ? AND first_step <= ? ORDER BY first",
            (series, stretch.attempt, stretch.end if stretch.end is not None else LAST),
        ):
            found.extend(upto(decode(data), stretch.end))
        if len(found) and len(points) and points.steps[-1] >= found.steps[0]:
            points = points.part(0, bisect_left(points.steps, found.steps[0]))
        points.extend(found)
    return points


def read_ranges(
    connection: sqlite3.Connection,
    series: int,
    stretches: Sequence[Stretch],
    *,
    most: int = 2000,
    begin: int = 0,
    end: int | None = None,
) -> list[Range]:
    """Return a curve between two steps as at most ``most`` ranges: of single points where they are that few.

    At most some ``8 * most`` buckets are read, whatever the length of the curve.
    """
    last = LAST if end is None else end
    found = [
        heads_of(connection, series, one.attempt, begin, last if one.end is None else min(last, one.end))
        for one in stretches
    ]
    level, count = 0, sum(head.size for heads in found for head in heads)
    while level < LEVELS and count > SPARE * most:
        level, count = level + 1, count // BUCKET
    buckets: list[Range] = []
    for heads in found:
        fresh = [bucket for head in heads for bucket in of_chunk(connection, head, level)]
        if level == 0 and fresh and buckets and buckets[-1].step >= fresh[0].step:
            del buckets[bisect_left(buckets, fresh[0].step, key=lambda bucket: bucket.step) :]
        buckets += fresh
    return coarser(buckets, -(-len(buckets) // most)) if len(buckets) > most else buckets


def heads_of(connection: sqlite3.Connection, series: int, attempt: int, begin: int, end: int) -> list[ChunkHead]:
    """Return the chunks of an attempt between two steps; of those wanted in part, the points that are."""
    found = connection.execute(
        "SELECT rowid, first_step, last_step, first_time, low, high, count FROM chunks"
        " WHERE series = ? AND attempt = ? AND last_step >= ? AND first_step <= ? ORDER BY first",
        (series, attempt, begin, end),
    )
    heads: list[ChunkHead] = []
    for head in [ChunkHead(*row) for row in found]:
        if begin <= head.first_step and head.last_step <= end:
            heads.append(head)
            continue
        (data,) = connection.execute("SELECT points FROM chunks WHERE rowid = ?", (head.rowid,)).fetchone()
        points = upto(decode(data), end)
        points = points.part(bisect_left(points.steps, begin))
        heads.append(head._replace(size=len(points), wanted=points))
    return heads


def of_chunk(connection: sqlite3.Connection, head: ChunkHead, level: int) -> list[Range]:
    """Return a chunk's buckets of a level: 0 its points, 1 and 2 of 16 and 256 points, 3 the whole of it."""
    points = head.wanted
    if points is None and level == LEVELS:
        return [Range(head.first_step, head.first_time, nan_if_none(head.low), nan_if_none(head.high))]
    if points is None:
        column = ("points", "ranges1", "ranges2")[level]
        query = f"SELECT {column}, CASE WHEN {column} IS NULL THEN points END FROM chunks WHERE rowid = ?"
        data, instead = connection.execute(query, (head.rowid,)).fetchone()
        if level and data is not None:
            return decode_ranges(data)
        points = decode(data or instead)  # an open chunk has no ranges yet
    if level == 0:
        return [Range(*one) for one in zip(points.steps, points.times, points.values, points.values, strict=True)]
    buckets = ranges(points)
    for _ in range(level - 1):
        buckets = coarser(buckets)
    return buckets


def nan_if_none(value: float | None) -> float:
    """Return NaN for None: SQLite keeps NaN as NULL."""
    return float("nan") if value is None else value
