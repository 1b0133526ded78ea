"""The points of one series as columns, how they lie in a file, and how few of them still tell all extremes."""

import sys
from array import array
from collections.abc import Sequence
from math import isfinite, nan
from typing import NamedTuple

BUCKET = 16  # points, or buckets of the level below, that make one bucket of a level


class Points:
    """Steps, times, epochs and values of one series, in the order in which they were logged.

    ``times`` are seconds since 1970. A value may be NaN or infinite, and is kept as it is.

    >>> points = Points()
    >>> points.append(step=1, time=0.5, epoch=0, value=2.0)
    >>> len(points), points.steps[0], points.values[0]
    (1, 1, 2.0)
    """

    __slots__ = ("epochs", "steps", "times", "values")

    def __init__(self) -> None:
        self.steps, self.times = array("q"), array("d")
        self.epochs, self.values = array("i"), array("d")

    def __len__(self) -> int:
        return len(self.steps)

    def append(self, *, step: int, time: float, epoch: int, value: float) -> None:
        """Add one point at the end."""
        self.steps.append(step)
        self.times.append(time)
        self.epochs.append(epoch)
        self.values.append(value)

    def extend(self, other: "Points") -> None:
        """Add another's points at the end."""
        self.steps.extend(other.steps)
        self.times.extend(other.times)
        self.epochs.extend(other.epochs)
        self.values.extend(other.values)

    def part(self, start: int, end: int | None = None) -> "Points":
        """Return the points from ``start`` to before ``end``."""
        part = Points()
        part.steps, part.times = self.steps[start:end], self.times[start:end]
        part.epochs, part.values = self.epochs[start:end], self.values[start:end]
        return part

    def at(self, places: Sequence[int]) -> "Points":
        """Return the points at these places."""
        chosen = Points()
        chosen.steps.extend([self.steps[place] for place in places])
        chosen.times.extend([self.times[place] for place in places])
        chosen.epochs.extend([self.epochs[place] for place in places])
        chosen.values.extend([self.values[place] for place in places])
        return chosen


class Range(NamedTuple):
    """What a bucket tells: where it begins, and the least and the greatest of its finite values, NaN if it has none."""

    step: int
    time: float
    low: float
    high: float


def encode(points: Points) -> bytes:
    """Return points as bytes: the columns steps, times, values, epochs, little-endian, 28 bytes a point.

    >>> points = Points()
    >>> points.append(step=1, time=0.5, epoch=0, value=2.0)
    >>> len(encode(points)), decode(encode(points)).values[0]
    (28, 2.0)
    """
    return b"".join(_little(column).tobytes() for column in (points.steps, points.times, points.values, points.epochs))


def decode(data: bytes) -> Points:
    """Return the points that ``encode`` made bytes of; ValueError where that cannot be."""
    count, rest = divmod(len(data), 28)
    if rest:
        raise ValueError(f"{len(data)} bytes are no whole number of points of 28 bytes")
    points = Points()
    for column, begin, size in (
        (points.steps, 0, 8), (points.times, 8, 8), (points.values, 16, 8), (points.epochs, 24, 4)
    ):  # fmt: skip
        column.frombytes(data[begin * count : (begin + size) * count])
        if sys.byteorder == "big":
            column.byteswap()
    return points


def ranges(points: Points, many: int = BUCKET) -> list[Range]:
    """Return the buckets of ``many`` points each, the last perhaps smaller.

    >>> points = Points()
    >>> for step in range(20):
    ...     points.append(step=step, time=0.0, epoch=0, value=float(-step))
    >>> ranges(points)
    [Range(step=0, time=0.0, low=-15.0, high=0.0), Range(step=16, time=0.0, low=-19.0, high=-16.0)]
    """
    return _grouped(points.steps, points.times, points.values, points.values, many)


def coarser(finer: Sequence[Range], many: int = BUCKET) -> list[Range]:
    """Return the buckets of ``many`` buckets each.

    >>> len(coarser([Range(0, 0.0, 1.0, 2.0)] * 17))
    2
    """
    if not finer:
        return []
    steps, times, lows, highs = zip(*finer, strict=True)
    return _grouped(steps, times, lows, highs, many)


def _grouped(
    steps: Sequence[int], times: Sequence[float], lows: Sequence[float], highs: Sequence[float], many: int
) -> list[Range]:
    """Return the buckets of ``many`` each of what these columns hold."""
    whole = 0
    if many > 1 and isfinite(sum(lows)) and isfinite(sum(highs)):  # then each of them is
        whole = len(lows) // many * many
    columns = [lows[place:whole:many] for place in range(many)]
    others = columns if highs is lows else [highs[place:whole:many] for place in range(many)]
    starts = steps[:whole:many], times[:whole:many]
    found = list(map(Range, *starts, map(min, *columns), map(max, *others))) if whole else []
    for begin in range(whole, len(steps), many):
        end = begin + many
        found.append(Range(steps[begin], times[begin], extremes(lows[begin:end])[0], extremes(highs[begin:end])[1]))
    return found


def extremes(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest finite value, NaN where there is none.

    >>> extremes([2.0, float("nan"), 1.0]), extremes([float("inf")])
    ((1.0, 2.0), (nan, nan))
    """
    low, high = min(values), max(values)
    if isfinite(low) and isfinite(high) and isfinite(sum(values)):
        return low, high
    finite = [value for value in values if isfinite(value)]
    return (min(finite), max(finite)) if finite else (nan, nan)


def thinned(points: Points) -> Points:
    """Return about half as many points: of each four the least and the greatest, of not finite ones the first.

    >>> points = Points()
    >>> for step, value in enumerate([3.0, 1.0, 2.0, 5.0, 4.0]):
    ...     points.append(step=step, time=0.0, epoch=0, value=value)
    >>> list(thinned(points).values)
    [1.0, 5.0, 4.0]
    """
    kept: list[int] = []
    for begin in range(0, len(points), 4):
        four = points.values[begin : begin + 4]
        if isfinite(sum(four)):  # then each of them is
            places = {four.index(min(four)), four.index(max(four))}
        else:
            finite = [value for value in four if isfinite(value)]
            odd = [place for place, value in enumerate(four) if not isfinite(value)][:1]
            places = {*odd, *(four.index(end(finite)) for end in (min, max) if finite)}
        kept.extend(begin + place for place in sorted(places))
    return points.at(kept)


def encode_ranges(found: Sequence[Range]) -> bytes:
    """Return buckets as bytes: the columns steps, times, low, high, 32 bytes a bucket.

    >>> decode_ranges(encode_ranges([Range(7, 0.5, 1.0, 2.0)]))
    [Range(step=7, time=0.5, low=1.0, high=2.0)]
    """
    columns = [array("q", [one.step for one in found])]
    columns += [array("d", [one[field] for one in found]) for field in (1, 2, 3)]
    return b"".join(_little(column).tobytes() for column in columns)


def decode_ranges(data: bytes) -> list[Range]:
    """Return the buckets that ``encode_ranges`` made bytes of."""
    count = len(data) // 32
    columns = [array("q"), array("d"), array("d"), array("d")]
    for index, column in enumerate(columns):
        column.frombytes(data[8 * index * count : 8 * (index + 1) * count])
        if sys.byteorder == "big":
            column.byteswap()
    return [Range(*bucket) for bucket in zip(*columns, strict=True)]


def _little(column: "array[int] | array[float]") -> "array[int] | array[float]":
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column
