"""Make the README's pictures from a real demo: `python tools/demo_picture.py`, some minutes.

What the demo prints becomes docs/images/demo.png, its curves docs/images/curves.png.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI

from epochal.demo.main import run_demo
from epochal.demo.report import PICTURE, announcement, render
from epochal.demo.terminal_plot import BLANK, DOTS

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
COLUMNS = 112
CELL_WIDTH, CELL_HEIGHT, MARGIN = 12, 22, 18  # pixels
FONTS = Path(get_data_path()) / "fonts" / "ttf"
PLAIN, BOLD = (ImageFont.truetype(FONTS / name, 19) for name in ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"))
RGB = tuple[int, int, int]


def colour(style: Style | None) -> RGB:
    """Return what a style looks like on a dark terminal."""
    theme = DIMMED_MONOKAI
    chosen = style.color if style is not None and style.color is not None else Color.default()
    rgb = chosen.get_truecolor(theme)
    if style is not None and style.dim:
        return tuple((part + back) // 2 for part, back in zip(rgb, theme.background_color, strict=True))
    return tuple(rgb)


def draw_cell(draw: ImageDraw.ImageDraw, x: int, y: int, char: str, style: Style | None) -> None:
    """Draw one character in its cell; Braille dot by dot, as few fonts have it."""
    if BLANK <= ord(char) < BLANK + 256:
        for across, column in enumerate(DOTS):
            for down, bit in enumerate(column):
                if (ord(char) - BLANK) & bit:
                    left, top = x + 1 + across * CELL_WIDTH // 2, y + 1 + down * CELL_HEIGHT // 4
                    draw.ellipse((left, top, left + 3, top + 3), fill=colour(style))
    elif char != " ":
        draw.text((x, y), char, fill=colour(style), font=BOLD if style is not None and style.bold else PLAIN)


def picture_of(lines: list[list[Segment]]) -> Image.Image:
    """Return a picture of what was printed, every character in a cell of its own."""
    size = (COLUMNS * CELL_WIDTH + 2 * MARGIN, len(lines) * CELL_HEIGHT + 2 * MARGIN)
    image = Image.new("RGB", size, tuple(DIMMED_MONOKAI.background_color))
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        column = 0
        for text, style, _ in line:
            for char in text:
                draw_cell(draw, MARGIN + column * CELL_WIDTH, MARGIN + row * CELL_HEIGHT, char, style)
                column += 1
    return image.quantize(64)


def main() -> None:
    """Train in an empty folder and write the pictures."""
    # As in a shell where the environment is activated: commands go by their names.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="epochal-demo-") as folder:
        os.chdir(folder)
        outcome = run_demo()
        console = Console(width=COLUMNS, color_system="truecolor", force_terminal=True)
        lines = [
            line
            for part in (announcement(outcome.plan, Path("runs")), render(outcome, COLUMNS))
            for line in console.render_lines(part, pad=False)
        ]
        picture_of(lines).save(IMAGES / "demo.png", optimize=True)
        assert outcome.summary.dir is not None
        shutil.copyfile(outcome.summary.dir / PICTURE, IMAGES / "curves.png")
        os.chdir(IMAGES)
    for name in ("demo.png", "curves.png"):
        print(f"{name}: {(IMAGES / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
