"""What all pictures share: colours that most people can tell apart, figures without global state, files."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from epochal.core.errors import MissingExtra
from epochal.loggers.drawing import COLOURS as COLOURS
from epochal.loggers.files import replace
from epochal.runs.png import as_png

INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"


def check_drawing(owner: str) -> None:
    """Raise MissingExtra where matplotlib, which brings Pillow, is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "plots", owner)


def new_figure(width: float, height: float) -> Any:
    """Return a figure of so many inches, drawn without a window and apart from ``pyplot``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Any) -> None:
    """Give axes the project's look: ink, a grid, no frame at the top and the right."""
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def drawn(figure: Any) -> Any:
    """Return a figure's pixels, (height, width, 3) of uint8."""
    import numpy as np

    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()


def write_png(path: Path, image: Any) -> Path:
    """Write pixels as PNG, all or nothing, and return the path."""
    replace(path, as_png(image).data)
    return path
