"""What a run's series are called where people look at them, and how a curve is read: whole, or as few ranges."""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from epochal.runs.points import Points, Range, coarser, decode, decode_ranges, ranges

EPOCH = "epoch/"  # before the mean of what was logged in batches


class Stretch(NamedTuple):
    """The steps behind ``begin`` up to ``end`` (None: all) of one attempt count; later attempts repeat the others."""

    attempt: int
    begin: int
    end: int | None


class ChunkHead(NamedTuple):
    """Where a chunk begins and ends, and its extremes: what is read of it to know whether to read more."""

    rowid: int
    first_step: int
    last_step: int
    first_time: float
    low: float
    high: float
    size: int


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


def read_points(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> Points:
    """Return all points of a series in these stretches, in order."""
    points = Points()
    for stretch in stretches:
        for (data,) in connection.execute(
            "SELECT points FROM chunks WHERE series = ? AND attempt = ? AND first_step <= ? ORDER BY first",
            (series, stretch.attempt, stretch.end if stretch.end is not None else 1 << 62),
        ):
            points.extend(within(decode(data), stretch.end))
    return points


def within(points: Points, end: int | None) -> Points:
    """Return the points up to a step; steps never fall inside an attempt."""
    if end is None or not len(points) or points.steps[-1] <= end:
        return points
    return points.part(0, bisect_right(points.steps, end))


def read_ranges(
    connection: sqlite3.Connection,
    series: int,
    stretches: Sequence[Stretch],
    *,
    most: int = 2000,
    begin: int = 0,
    end: int | None = None,
) -> list[Range]:
    """Return a curve between two steps as few ranges: of single points if they are at most ``most``, else coarser.

    At most some ``16 * most`` buckets are read, whatever the length of the curve.
    """
    last = end if end is not None else 1 << 62
    heads: list[tuple[Stretch, list[ChunkHead]]] = []
    for stretch in stretches:
        upto = last if stretch.end is None else min(last, stretch.end)
        found = connection.execute(
            "SELECT rowid, first_step, last_step, first_time, low, high, count FROM chunks"
            " WHERE series = ? AND attempt = ? AND last_step >= ? AND first_step <= ? ORDER BY first",
            (series, stretch.attempt, begin, upto),
        )
        heads.append((stretch._replace(end=upto), [ChunkHead(*row) for row in found]))
    count = sum(head.size for _, chunks in heads for head in chunks)
    level = 0
    while level < 3 and count > most:
        count //= 16
        level += 1
    buckets = [
        bucket
        for stretch, chunks in heads
        for head in chunks
        for bucket in of_chunk(connection, head, level)
        if begin <= bucket.step and (stretch.end is None or bucket.step <= stretch.end)
    ]
    while len(buckets) > 2 * most:
        buckets = coarser(buckets)
    return buckets


def of_chunk(connection: sqlite3.Connection, head: ChunkHead, level: int) -> list[Range]:
    """Return a chunk's buckets of a level: 0 its points, 1 and 2 of 16 and 256 points, 3 the whole of it."""
    if level == 3 or head.size == 1:
        return [Range(head.first_step, head.first_time, nan_if_none(head.low), nan_if_none(head.high))]
    column = ("points", "ranges1", "ranges2")[level]
    query = f"SELECT {column}, CASE WHEN {column} IS NULL THEN points END FROM chunks WHERE rowid = ?"
    data, instead = connection.execute(query, (head.rowid,)).fetchone()
    if level and data is not None:
        return decode_ranges(data)
    points = decode(data or instead)  # an open chunk has no ranges yet
    if level == 0:
        return [Range(*one) for one in zip(points.steps, points.times, points.values, points.values, strict=True)]
    return ranges(points) if level == 1 else coarser(ranges(points))


def nan_if_none(value: float | None) -> float:
    """Return NaN for None: SQLite keeps NaN as NULL."""
    return float("nan") if value is None else value
