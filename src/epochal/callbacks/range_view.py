"""The picture of a learning-rate range test."""

from math import log
from typing import TYPE_CHECKING, Any

from epochal.callbacks.figure import COLOURS, GRID, INK, new_figure, plain_axes

if TYPE_CHECKING:
    from epochal.callbacks.range_test import RangeTest

PALE, LINE, MARK, OTHER = "#8c959f", COLOURS[0], COLOURS[5], COLOURS[2]


def draw(test: "RangeTest", rate: float) -> Any:
    """Return the figure: losses and their average, the steepest fall with the suggestion, the training's own rate."""
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    axes.plot(test.tried, test.losses, color=PALE, linewidth=0.9, label="loss")
    axes.plot(test.tried, test.smoothed, color=LINE, linewidth=2, label=f"average (smooth={test.smooth:g})")
    axes.set_xscale("log")
    axes.set_ylim(*limits(test))
    axes.set_xlabel("learning rate", color=INK)
    axes.set_ylabel("loss", color=INK)
    plain_axes(axes)
    if test.start <= rate <= test.end:
        axes.axvline(rate, color=OTHER, linewidth=1.4, linestyle="--", label=f"now {rate:.3g}")
    fall = test.steepest()
    if fall is not None:
        rates = test.tried[fall.first : fall.first + fall.width]
        suggestion = test.tried[fall.middle]
        axes.plot(rates, [fall.level + fall.slope * log(one / suggestion) for one in rates], color=MARK, linewidth=1.6)
        label = f"suggestion {suggestion:.3g}"
        axes.plot([suggestion], [fall.level], color=MARK, marker="o", markersize=9, linestyle="none", label=label)
        axes.axvline(suggestion, color=MARK, linewidth=1, linestyle=":")
    ended = {"all rates": "all rates tried", "diverged": "the loss diverged", "not finite": "the loss was not finite"}
    axes.set_title(f"Range test: {len(test.tried)} steps, {ended[test.ended]}", color=INK, fontsize=11)
    axes.legend(frameon=True, edgecolor=GRID, framealpha=0.9, labelcolor=INK, loc="best")
    return figure


def limits(test: "RangeTest") -> tuple[float, float]:
    """Return the lowest and highest loss to show: one that shot up at the end would flatten all before.

    >>> from epochal.callbacks.range_test import RangeTest
    >>> test = RangeTest(0.1, 10.0, 3, smooth=0.0, diverged=4.0)
    >>> _ = [test.add(rate, loss) for rate, loss in zip(test.rates(), (2.0, 1.0, 99.0))]
    >>> limits(test)
    (0.75, 2.25)
    """
    turn = test.smoothed.index(test.best) + 1
    low, high = min(test.losses), max(*test.losses[:turn], *test.smoothed[:turn])
    margin = 0.25 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
