"""Points as columns: bytes and back, buckets against brute force, thinning that keeps every extreme."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.runs.newest import joined, newest_of
from epochal.runs.points import BUCKET, Points, coarser, decode, decode_ranges, encode, encode_ranges, ranges, thinned

VALUES = st.floats(allow_nan=True, allow_infinity=True)
LISTS = st.lists(VALUES, max_size=300)


def points_of(values):
    points = Points()
    for step, value in enumerate(values):
        points.append(step=step, time=step / 8, epoch=step // 7, value=value)
    return points


def same(one, other):
    return one == other or (one != one and other != other)


@given(LISTS)
def test_points_come_back_as_they_were(values):
    points = points_of(values)
    again = decode(encode(points))
    assert (again.steps, again.times, again.epochs) == (points.steps, points.times, points.epochs)
    assert all(map(same, again.values, values))
    assert len(encode(points)) == 28 * len(values)


def test_bytes_that_are_no_points_are_told():
    with pytest.raises(ValueError, match="29 bytes are no whole number of points"):
        decode(bytes(29))


def finite(values):
    return [value for value in values if math.isfinite(value)]


@given(LISTS)
def test_buckets_are_what_brute_force_finds(values):
    points = points_of(values)
    fine = ranges(points)
    levels = (fine, BUCKET), (ranges(points, 3), 3), (coarser(fine), BUCKET**2), (coarser(fine, 3), 3 * BUCKET)
    for level, many in levels:
        assert len(level) == math.ceil(len(values) / many)
        for number, bucket in enumerate(level):
            inside = finite(values[number * many : (number + 1) * many])
            assert bucket.step == number * many
            assert same(bucket.low, min(inside, default=math.nan))
            assert same(bucket.high, max(inside, default=math.nan))
    assert str(decode_ranges(encode_ranges(fine))) == str(fine)


@given(LISTS)
def test_thinning_keeps_extremes_and_what_is_not_finite(values):
    points = points_of(values)
    kept = thinned(points)
    assert list(kept.steps) == sorted(set(kept.steps))
    assert all(same(value, values[step]) for step, value in zip(kept.steps, kept.values, strict=True))
    assert len(kept) <= 3 * math.ceil(len(values) / 4)
    for begin in range(0, len(values), 4):
        four = values[begin : begin + 4]
        left = [value for step, value in zip(kept.steps, kept.values, strict=True) if begin <= step < begin + 4]
        assert {min(finite(four), default=None), max(finite(four), default=None)} <= {*finite(left), None}
        assert len(finite(four)) == len(four) or len(finite(left)) < len(left)


@given(LISTS, st.integers(0, 300))
def test_what_two_parts_come_to_is_what_the_whole_comes_to(values, cut):
    points = points_of(values)
    whole = newest_of(points)
    assert str(joined(newest_of(points.part(0, cut)), newest_of(points.part(cut)))) == str(whole)
    assert str(newest_of(points, ranges(points))) == str(whole)
    if whole is None:
        assert not values
    else:
        inside = finite(values)
        assert whole.low == min(inside, default=None)
        assert whole.high == max(inside, default=None)
        assert whole.high_step == (None if not inside else values.index(whole.high))
        assert (whole.step, whole.count) == (len(values) - 1, len(values))
