"""Small curves for a terminal, drawn with Braille dots: two columns and four rows of dots in every character."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # Unicode's bit of each dot, by column and row
BLANK = 0x2800
MARGIN = 7  # characters for the numbers at the left


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its points are (x, y), in the order of x; not finite ones are left out.

    >>> Curve("val/loss", [(0, 1.0), (1, float("nan"))]).finite
    [(0, 1.0)]
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "cyan"

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True)
class Frame:
    """What part of the plane is shown, on how many dots."""

    left: float
    right: float
    low: float
    high: float
    columns: int
    rows: int

    def dot(self, x: float, y: float) -> tuple[int, int]:
        """Return the column and the row, from the top, of the dot nearest to a point.

        >>> Frame(0, 10, 0, 1, columns=21, rows=5).dot(5, 1)
        (10, 0)
        """
        along = (x - self.left) / (self.right - self.left or 1.0)
        up = (y - self.low) / (self.high - self.low or 1.0)
        return round(along * (self.columns - 1)), round((1 - up) * (self.rows - 1))


def plot(
    curves: Sequence[Curve],
    *,
    title: str,
    width: int = 44,
    height: int = 10,
    mark: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Text:
    """Draw curves over a common axis, with a dotted vertical line at ``mark``.

    Sizes are in characters and count the plot without its title and axes; ``low`` and ``high`` are the ends of the
    vertical axis where the data should not choose them.

    >>> print(plot([Curve("loss", [(1, 4.0), (2, 2.0), (3, 1.0)])], title="loss", width=8, height=2))
    loss
          4 ┤⠑⠢⢄
          1 ┤   ⠉⠒⠤⠤⣀
            └┬──────┬
             1      3
    """
    frame = frame_of(curves, columns=2 * width, rows=4 * height, low=low, high=high)
    canvas = Canvas(width, height)
    if mark is not None:
        column, _ = frame.dot(mark, frame.low)
        canvas.draw(((column, row) for row in range(0, frame.rows, 2)), "yellow dim")
    for curve in curves:
        canvas.draw(line(frame, curve.finite), curve.style)
    text = Text(title, style="bold")
    for number, row in enumerate(canvas.lines()):
        text.append(f"\n{axis_label(frame, number, height):>{MARGIN}} ┤", style="dim").append_text(row)
    text.append(bottom(frame, width, mark), style="dim")
    return text


def frame_of(
    curves: Sequence[Curve], *, columns: int, rows: int, low: float | None = None, high: float | None = None
) -> Frame:
    """Return the frame that holds all points."""
    points = [point for curve in curves for point in curve.finite] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    bottom_edge, top = min(ys) if low is None else low, max(ys) if high is None else high
    return Frame(min(xs), max(xs), bottom_edge, top, columns, rows)


def line(frame: Frame, points: Sequence[tuple[float, float]]) -> Iterator[tuple[int, int]]:
    """Yield the dots of straight lines from point to point."""
    dots = [frame.dot(x, y) for x, y in points]
    if len(dots) == 1:
        yield dots[0]
    for (x0, y0), (x1, y1) in pairwise(dots):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            yield round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)


class Canvas:
    """Characters whose dots are set one by one; a character has the style of what was drawn on it last."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.bits = [[0] * width for _ in range(height)]
        self.styles = [[""] * width for _ in range(height)]

    def draw(self, dots: Iterator[tuple[int, int]], style: str) -> None:
        """Set dots, given as column and row; those outside are left out."""
        for x, y in dots:
            row, column = y // 4, x // 2
            if 0 <= row < len(self.bits) and 0 <= column < self.width:
                self.bits[row][column] |= DOTS[x % 2][y % 4]
                self.styles[row][column] = style

    def lines(self) -> Iterator[Text]:
        """Yield the rows, from the top."""
        for bits, styles in zip(self.bits, self.styles, strict=True):
            text = Text()
            for value, style in zip(bits, styles, strict=True):
                text.append(chr(BLANK + value) if value else " ", style=style)
            text.rstrip()
            yield text


def axis_label(frame: Frame, row: int, height: int) -> str:
    """Return the number at a row: at the top, in the middle and at the bottom."""
    if row not in (0, height // 2, height - 1) or frame.high == frame.low:
        return ""
    share = row / max(height - 1, 1)
    return f"{frame.high - share * (frame.high - frame.low):.3g}"


def bottom(frame: Frame, width: int, mark: float | None) -> str:
    """Return the horizontal axis: a line with ticks, and the numbers under them."""
    places = {frame.dot(x, frame.low)[0] // 2: f"{x:g}" for x in (frame.left, frame.right, mark) if x is not None}
    ticks = "".join("┬" if column in places else "─" for column in range(width))
    numbers = [" "] * (width + 4)
    for column, label in sorted(places.items()):
        start = column - (len(label) - 1) // 2
        if column == 0 or not any(one.strip() for one in numbers[max(start - 1, 0) : start + len(label)]):
            numbers[start : start + len(label)] = label
    return f"\n{'':>{MARGIN}} └{ticks}\n{'':>{MARGIN}}  {''.join(numbers).rstrip()}"
