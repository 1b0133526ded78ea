"""The picture of a learning-rate range test."""

from typing import TYPE_CHECKING, Any

from epochal.callbacks.figure import COLOURS, GRID, INK, new_figure, plain_axes

if TYPE_CHECKING:
    from epochal.callbacks.range_test import RangeTest

PALE, LINE, MARK, OTHER = "#8c959f", COLOURS[0], COLOURS[5], COLOURS[2]


def draw(test: "RangeTest", suggestion: float | None, rate: float) -> Any:
    """Return the figure: losses and their average over the rate, the suggestion, and the training's own rate."""
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
    if suggestion is not None:
        height = test.smoothed[test.tried.index(suggestion)]
        axes.plot([suggestion], [height], color=MARK, marker="o", markersize=9, linestyle="none",
                  label=f"suggestion {suggestion:.3g}")  # fmt: skip
        axes.axvline(suggestion, color=MARK, linewidth=1, linestyle=":")
    ended = {"all rates": "all rates tried", "diverged": "the loss diverged", "not finite": "the loss was not finite"}
    axes.set_title(f"Range test: {len(test.tried)} steps, {ended[test.ended]}", color=INK, fontsize=11)
    axes.legend(frameon=True, edgecolor=GRID, framealpha=0.9, labelcolor=INK, loc="best")
    return figure


def limits(test: "RangeTest") -> tuple[float, float]:
    """Return the lowest and highest loss to show: a last one that shot up would flatten all the others."""
    low, high = min(*test.losses, *test.smoothed), max(test.smoothed)
    first = sorted(test.losses)[: max(int(0.95 * len(test.losses)), 1)]
    high = max(high, first[-1])
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin
