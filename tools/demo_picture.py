"""Make the README's pictures from a real demo: `python tools/demo_picture.py`, some minutes.

What the demo prints becomes docs/images/demo.svg, its curves docs/images/curves.png.
"""

import io
import re
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from epochal.demo.main import run_demo
from epochal.demo.report import PICTURE

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH = 112  # characters
ELSEWHERE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # fonts that a reader's browser would fetch


def main() -> None:
    """Train in the current folder and write the pictures."""
    console = Console(record=True, width=WIDTH, force_terminal=True, file=io.StringIO())
    outcome = run_demo(folder="runs", console=console)
    IMAGES.mkdir(parents=True, exist_ok=True)
    svg = console.export_svg(title="epochal demo", theme=DIMMED_MONOKAI)
    (IMAGES / "demo.svg").write_text(ELSEWHERE.sub("", svg), encoding="utf-8")
    assert outcome.summary.dir is not None
    shutil.copyfile(outcome.summary.dir / PICTURE, IMAGES / "curves.png")
    for name in ("demo.svg", "curves.png"):
        print(f"{name}: {(IMAGES / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
