"""The picture of predicted boxes and masks: each image twice, with what is true and with what was predicted."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from epochal.callbacks.figure import COLOURS, INK, PAPER
from epochal.core.host import Prediction

GAP, LINE, COLUMNS = 8, 18, 4  # pixels between tiles, height of a line of text, tiles in a row
LONGEST = 16  # characters of a class name
NOTHING = Prediction(classes=(), scores=())


class Boxes:
    """The first images of a validation with their boxes; drawn as pairs of truth and prediction.

    >>> Boxes(images=4, tile=200).room
    4
    """

    name = "predictions"

    def __init__(self, images: int, tile: int) -> None:
        self.room, self.tile = images, tile
        self.images: list[Prediction] = []
        self.names: Mapping[int, str] = {}

    def add(self, images: Sequence[Prediction], names: Mapping[int, str]) -> None:
        """Take what there is room for."""
        self.names = names
        taken = images[: self.room]
        self.images += taken
        self.room -= len(taken)

    def draw(self, title: str) -> Any:
        """Return the picture, (height, width, 3) of uint8; None without images."""
        import numpy as np
        from PIL import Image, ImageDraw

        if not self.images:
            return None
        tiles = [(self.shown(one, one.truth, scores=False), self.shown(one, one, scores=True)) for one in self.images]
        pairs = min(COLUMNS // 2, len(tiles))
        rows = -(-len(tiles) // pairs)
        height = max(tile.height for pair in tiles for tile in pair)
        width = GAP + pairs * 2 * (self.tile + GAP)
        picture = Image.new("RGB", (width, LINE * 2 + GAP + rows * (height + LINE + GAP)), PAPER)
        pen = ImageDraw.Draw(picture)
        pen.text((GAP, 3), title, fill=INK, font=font(13))
        for column in range(pairs * 2):
            x = GAP + column * (self.tile + GAP)
            pen.text((x, LINE + 3), "prediction" if column % 2 else "truth", fill=INK, font=font(12))
        for index, (one, pair) in enumerate(zip(self.images, tiles, strict=True)):
            x = GAP + index % pairs * 2 * (self.tile + GAP)
            y = LINE * 2 + GAP + index // pairs * (height + LINE + GAP)
            for side, tile in enumerate(pair):
                picture.paste(tile, (x + side * (self.tile + GAP), y))
            pen.text((x, y + height + 1), Path(one.source).name, fill="#57606a", font=font(11))
        return np.asarray(picture)

    def shown(self, one: Prediction, content: Prediction | None, *, scores: bool) -> Any:
        """Return an image, as large as a tile, with boxes and masks on it."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(one.image)
        left, top, right, bottom = without_borders(one, image.size)
        scale = self.tile / max(right - left, bottom - top, 1)
        whole = image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BICUBIC)
        content = content or NOTHING
        order = range(len(content.classes) - 1, -1, -1)  # the likeliest on top
        masks = () if content.masks is None else content.masks
        for index in order if len(masks) else ():
            cover(whole, masks[index], colour_of(content.classes[index]))
        tile = whole.crop((round(left * scale), round(top * scale), round(right * scale), round(bottom * scale)))
        pen = ImageDraw.Draw(tile)
        for index in order:
            label = self.names.get(int(content.classes[index]), str(int(content.classes[index])))[:LONGEST]
            if scores:
                label = f"{label} {content.scores[index]:.2f}"
            box = (content.boxes[index] - (left, top, left, top)) * scale
            tag(pen, box, label, colour_of(content.classes[index]), tile.size)
        return tile


def without_borders(one: Prediction, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the image proper in what the model sees.

    >>> from epochal.core.host import Frame
    >>> one = Prediction(classes=[], scores=[], frame=Frame(100, 200, (100, 100), 0.5, 0.5, left=0, top=25))
    >>> without_borders(one, (100, 100))
    (0.0, 25.0, 100.0, 75.0)
    """
    if one.frame is None:
        return 0.0, 0.0, float(size[0]), float(size[1])
    height, width, _, scale_x, scale_y, left, top = one.frame
    right, bottom = left + width * scale_x, top + height * scale_y
    return max(float(left), 0.0), max(float(top), 0.0), min(float(right), size[0]), min(float(bottom), size[1])


def colour_of(number: Any) -> str:
    """Return the colour of a class.

    >>> colour_of(0) == colour_of(len(COLOURS))
    True
    """
    return COLOURS[int(number) % len(COLOURS)]


def cover(tile: Any, mask: Any, colour: str) -> None:
    """Tint what a mask covers and draw its edge."""
    import numpy as np
    from PIL import Image, ImageFilter

    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(tile.size, Image.Resampling.BILINEAR)
    whole = (np.asarray(grey) > 127).astype(np.uint8)
    inner = np.asarray(Image.fromarray(whole).filter(ImageFilter.MinFilter(3)))
    tile.paste(colour, mask=Image.fromarray(whole * 115))
    tile.paste(colour, mask=Image.fromarray((whole - inner) * 255))


def tag(pen: Any, box: Any, label: str, colour: str, size: tuple[int, int]) -> None:
    """Draw a box and its label: above it, or inside where there is no room."""
    left, top, right, bottom = (float(value) for value in box)
    left, right = sorted((min(max(left, 0), size[0] - 1), min(max(right, 0), size[0] - 1)))
    top, bottom = sorted((min(max(top, 0), size[1] - 1), min(max(bottom, 0), size[1] - 1)))
    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
    width, height = pen.textbbox((0, 0), label, font=font(12))[2:]
    x, y = min(left, max(size[0] - width - 4, 0)), top - height - 3
    y = y if y >= 0 else top
    pen.rectangle((x, y, x + width + 4, y + height + 3), fill=colour)
    pen.text((x + 2, y + 1), label, fill=ink_on(colour), font=font(12))


def ink_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG's relative luminance).

    >>> ink_on("#0072b2"), ink_on("#e69f00")
    ('white', 'black')
    """
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"


@lru_cache
def font(size: int) -> Any:
    """Return matplotlib's own font, which has most of the letters that class names are written with."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
