"""Curves in a terminal: every dot is where its value says, whatever the values are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.demo.terminal_plot import BLANK, DOTS, Curve, plot

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def dots_of(text: str, width: int, height: int) -> set[tuple[int, int]]:
    """The dots (column, row from the top) that a drawn plot shows, read back from its Braille characters."""
    rows = [line.split("┤", 1)[1].ljust(width) for line in text.splitlines() if "┤" in line]
    assert len(rows) == height
    return {
        (2 * column + x, 4 * row + y)
        for row, line in enumerate(rows)
        for column, char in enumerate(line)
        if char != " "
        for x in (0, 1)
        for y in range(4)
        if (ord(char) - BLANK) & DOTS[x][y]
    }


def test_a_rising_line_goes_from_corner_to_corner():
    dots = dots_of(plot([Curve("y", [(0, 0.0), (1, 1.0)])], title="t", width=6, height=3).plain, 6, 3)
    assert (0, 11) in dots
    assert (11, 0) in dots
    assert len(dots) == 12


@given(st.lists(numbers, min_size=2, max_size=30))
def test_every_value_is_at_its_height_and_nothing_is_outside(values):
    width, height = 20, 5
    text = plot([Curve("y", [*enumerate(values)])], title="t", width=width, height=height).plain
    dots = dots_of(text, width, height)
    low, high = min(values), max(values)
    for x, y in enumerate(values):
        column = x / (len(values) - 1) * (2 * width - 1)
        row = (1 - (y - low) / (high - low)) * (4 * height - 1) if high > low else 4 * height - 1
        assert any(abs(c - column) <= 0.51 and abs(r - row) <= 0.51 for c, r in dots)
    assert all(len(line) <= width + 12 for line in text.splitlines())


@pytest.mark.parametrize(
    "points", [[], [(1, 2.0)], [(1, math.nan)], [(1, 1.0), (2, math.nan), (3, math.inf), (4, 0.5)]]
)
def test_what_cannot_be_drawn_is_left_out(points):
    assert plot([Curve("y", points)], title="t", width=8, height=2, mark=1).plain.startswith("t\n")


def test_the_marked_place_has_a_tick_and_its_number():
    text = plot([Curve("y", [(1, 0.0), (21, 1.0)])], title="t", width=41, height=3, mark=11).plain
    ticks, below = text.splitlines()[-2:]
    assert [i for i, char in enumerate(ticks) if char == "┬"] == [9, 29, 49]
    assert below.split() == ["1", "11", "21"]
