"""What a run's series are called where people look at them, and how a curve is read: whole, or as few ranges."""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from epochal.runs.newest import LAST, End, Stretch, cut, stretches_of, upto
from epochal.runs.points import BUCKET, Points, Range, coarser, decode, decode_ranges, ranges
from epochal.runs.tail import SEALED

__all__ = ["Stretch", "curves", "parts", "read_points", "read_ranges", "stretches_of"]

EPOCH = "epoch/"  # before the mean of what was logged in batches
LEVELS = 3  # of ranges: 16 points, 256 points, a whole chunk
SPARE = 8  # buckets read for each one that is wanted
FEW = 16  # chunks that are read at a time


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


def parts(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> Iterator[Points]:
    """Yield the points of a series in these stretches, in order, some chunks at a time.

    Where no transaction holds it still, the file may be written meanwhile: each point comes once all the same.
    """
    query = """SELECT first, points FROM chunks WHERE series = ? AND attempt = ? AND first > ? AND first + count > ?
        AND first_step <= ? ORDER BY first LIMIT ?"""
    for one in cut(connection, series, stretches):
        had = 0
        while True:
            found = connection.execute(query, (series, one.attempt, had - SEALED, had, one.end.step, FEW)).fetchall()
            for first, data in found:
                points = decode(data)
                yield upto(points.part(max(had - first, 0)), one.end)
                had = first + len(points)
            if len(found) < FEW:
                break


def read_points(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> Points:
    """Return all points of a series in these stretches, in order."""
    points = Points()
    for part in parts(connection, series, stretches):
        points.extend(part)
    return points


def read_ranges(
    connection: sqlite3.Connection,
    series: int,
    stretches: Sequence[Stretch],
    *,
    most: int = 2000,
    begin: int = 0,
    end: int | None = None,
    of: int | None = None,
) -> list[Range]:
    """Return a curve between two steps as at most ``most`` ranges: of single points where they are that few.

    ``of``: they are a part of so many points, which as a whole would be at most ``most`` ranges. At most some
    ``8 * most`` buckets are read, whatever the length of the curve.
    """
    last = End(LAST if end is None else end)
    heads = [
        head
        for one in cut(connection, series, stretches)
        for head in heads_of(connection, series, one._replace(end=min(one.end, last)), begin)
    ]
    level, count = 0, sum(head.size for head in heads)
    if of is not None and of > most:
        most = -(-most * count // of) or 1
    while level < LEVELS and count > SPARE * most:
        level, count = level + 1, count // BUCKET
    if level == 0:
        return of_points(connection, heads, most)
    buckets = [bucket for head in heads for bucket in of_chunk(connection, head, level)]
    return coarser(buckets, -(-len(buckets) // most)) if len(buckets) > most else buckets


def of_points(connection: sqlite3.Connection, heads: Sequence[ChunkHead], most: int) -> list[Range]:
    """Return the points of chunks as at most so many ranges: one of each, whatever its value, where they are so few."""
    query = "SELECT points FROM chunks WHERE rowid = ?"
    points = Points()
    for head in heads:
        points.extend(head.wanted or decode(connection.execute(query, (head.rowid,)).fetchone()[0]))
    if len(points) > most:
        return ranges(points, -(-len(points) // most))
    return list(map(Range, points.steps, points.times, points.values, points.values))


def heads_of(connection: sqlite3.Connection, series: int, stretch: Stretch, begin: int) -> list[ChunkHead]:
    """Return the chunks of a stretch from a step on; of those wanted in part, the points that are."""
    found = connection.execute(
        "SELECT rowid, first_step, last_step, first_time, low, high, count FROM chunks"
        " WHERE series = ? AND attempt = ? AND last_step >= ? AND first_step <= ? ORDER BY first",
        (series, stretch.attempt, begin, stretch.end.step),
    )
    heads: list[ChunkHead] = []
    for head in [ChunkHead(*row) for row in found]:
        if begin <= head.first_step and stretch.end.covers(head.last_step):
            heads.append(head)
            continue
        (data,) = connection.execute("SELECT points FROM chunks WHERE rowid = ?", (head.rowid,)).fetchone()
        points = upto(decode(data), stretch.end)
        points = points.part(bisect_left(points.steps, begin))
        if len(points):
            heads.append(head._replace(size=len(points), wanted=points))
    return heads


def of_chunk(connection: sqlite3.Connection, head: ChunkHead, level: int) -> list[Range]:
    """Return a chunk's buckets of a level: 1 and 2 of 16 and 256 points, 3 the whole of it."""
    points = head.wanted
    if points is None and level == LEVELS:
        return [Range(head.first_step, head.first_time, nan_if_none(head.low), nan_if_none(head.high))]
    if points is None:
        column = ("ranges1", "ranges2")[level - 1]
        query = f"SELECT {column}, CASE WHEN {column} IS NULL THEN points END FROM chunks WHERE rowid = ?"
        data, instead = connection.execute(query, (head.rowid,)).fetchone()
        if data is not None:
            return decode_ranges(data)
        points = decode(instead)  # an open chunk has no ranges yet
    buckets = ranges(points)
    for _ in range(level - 1):
        buckets = coarser(buckets)
    return buckets


def nan_if_none(value: float | None) -> float:
    """Return NaN for None: SQLite keeps NaN as NULL."""
    return float("nan") if value is None else value
