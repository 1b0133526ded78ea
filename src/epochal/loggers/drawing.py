"""Boxes and masks drawn on an image, for destinations that have no place of their own for them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from epochal.runs.png import Png

SMALLEST = 320  # pixels of the longer side: smaller images are enlarged, so that labels can be read
TRUE = "#ffffff"
# Okabe and Ito's palette (jfly.uni-koeln.de/color), without black and with its yellow darker: it stands on white too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a900")
LONGEST = 24  # characters of a label


def with_boxes(png: Png, boxes: Sequence[Mapping[str, Any]]) -> Png:
    """Return an image with its boxes: the true ones white and thin, the predicted ones with label and score.

    The image as it is where Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return png
    picture = Image.open(io.BytesIO(png.data)).convert("RGB")
    scale = max(-(-SMALLEST // max(picture.size)), 1)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    for box in boxes:
        if box.get("mask") and not box.get("true"):
            tint(picture, box["mask"], colour_of(str(box.get("label", ""))))
    pen = ImageDraw.Draw(picture)
    for box in sorted(boxes, key=lambda one: (not one.get("true"), one.get("score") or 0.0)):  # the likeliest on top
        draw(pen, box, scale, picture.size)
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return Png(out.getvalue(), picture.height, picture.width, 3)


def colour_of(label: str) -> str:
    """Return a label's colour, the same in every process.

    >>> colour_of("cat") == colour_of("cat")
    True
    """
    return COLOURS[crc32(label.encode("utf-8", "replace")) % len(COLOURS)]


def draw(pen: Any, box: Mapping[str, Any], scale: int, size: tuple[int, int]) -> None:
    """Draw a box, and above it, or inside where there is no room, what was predicted."""
    left, top, right, bottom = (float(corner) * scale for corner in box["box"])
    left, right = sorted((within(left, size[0]), within(right, size[0])))
    top, bottom = sorted((within(top, size[1]), within(bottom, size[1])))
    if box.get("true"):
        pen.rectangle((left, top, right, bottom), outline="#000000", width=3)
        pen.rectangle((left + 1, top + 1, max(right - 1, left + 1), max(bottom - 1, top + 1)), outline=TRUE, width=1)
        return
    label, colour = str(box.get("label", ""))[:LONGEST], colour_of(str(box.get("label", "")))
    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
    score = box.get("score")
    text = printable(label if score is None else f"{label} {score:.2f}")
    width, height = pen.textbbox((0, 0), text)[2:]
    x, y = min(left, max(size[0] - width - 4, 0)), top - height - 3
    y = y if y >= 0 else top
    pen.rectangle((x, y, x + width + 4, y + height + 3), fill=colour)
    pen.text((x + 2, y + 1), text, fill="#ffffff" if colour in COLOURS[::5] else "#000000")


def within(place: float, size: int) -> float:
    """Return a place that lies inside.

    >>> within(-3.0, 10), within(12.0, 10), within(float("nan"), 10)
    (0.0, 9, 0.0)
    """
    return min(max(0.0, place), size - 1) if place == place else 0.0  # not where it is NaN


def printable(text: str) -> str:
    """Return a text in letters that Pillow's own font has.

    >>> printable("ÿ\u4e2d")
    'ÿ?'
    """
    return text.encode("latin-1", "replace").decode("latin-1")


def tint(picture: Any, mask: Mapping[str, Any], colour: str) -> None:
    """Tint what a mask covers; it spans the image, on a grid that may be coarser."""
    import numpy as np
    from PIL import Image

    height, width = mask["size"]
    counts = mask["counts"]
    covered = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
    shade = Image.fromarray((covered * 115).astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    picture.paste(colour, mask=shade)
