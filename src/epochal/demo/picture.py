"""The curves of a training as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.errors import MissingExtra

INK, GRID = "#24292f", "#d8dee4"
COLOURS = ("#0969da", "#1a7f37", "#bf8700", "#8250df")
MARK = "#cf222e"

Panels = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]


def write_picture(path: Path, panels: Panels, *, title: str, best: tuple[int, float, str] | None = None) -> Path:
    """Draw one panel per title, each with its lines of (epoch from 1, value), and return the file.

    ``best`` marks an epoch in every panel, and its value in the one with the line that goes through it: the epoch
    (from 1), the value, and the metric's name. MissingExtra where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "demo", "the picture of the curves") from error
    figure = Figure(figsize=(4.6 * len(panels), 3.7), dpi=130, layout="constrained")
    figure.suptitle(title, color=INK, fontsize=12)
    for number, (name, lines) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(1, len(panels), number + 1)
        draw_panel(axes, name, lines)
        if best is not None:
            mark(axes, lines, *best)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
    return path


def draw_panel(axes: Any, name: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw the lines of one panel, its axes, grid and legend."""
    from matplotlib.ticker import MaxNLocator

    for colour, (label, points) in zip(COLOURS * len(lines), lines.items(), strict=False):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=colour, label=label, linewidth=1.8, marker="o", markersize=3)
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(name, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, labelcolor=INK)


def mark(axes: Any, lines: Mapping[str, Sequence[tuple[float, float]]], epoch: int, value: float, metric: str) -> None:
    """Mark the best epoch: a line through the panel, and a star where the best value stands."""
    axes.axvline(epoch, color=MARK, linewidth=1, linestyle=":")
    if any((x, y) == (epoch, value) for points in lines.values() for x, y in points):
        axes.plot([epoch], [value], color=MARK, marker="*", markersize=13, linestyle="none")
        left, right = axes.get_xlim()
        late = epoch > (left + right) / 2  # the words stand on the side where there is room
        axes.annotate(
            f"best {metric} {value:.3f}, epoch {epoch}", (epoch, 0.04), color=MARK, fontsize=9,
            xycoords=axes.get_xaxis_transform(), xytext=(-6 if late else 6, 0), textcoords="offset points",
            horizontalalignment="right" if late else "left",
        )  # fmt: skip
