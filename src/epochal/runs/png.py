"""Images for loggers: arrays and files as PNG."""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

from epochal.core.errors import ArgumentError, MissingExtra


class Png(NamedTuple):
    """An encoded image and its size in pixels."""

    data: bytes
    height: int
    width: int
    channels: int


def as_png(image: Any) -> Png:
    """Return an image as PNG: a file's path, or an array, height x width or height x width x 1, 3 or 4 channels.

    Integers are 0-255, floats 0-1 (outside values are cut, NaN is 0). ArgumentError for another shape. What is a Png
    already stays as it is.
    """
    if isinstance(image, Png):
        return image
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "tensorboard", "logging images") from None
    picture = Image.open(Path(image)) if isinstance(image, (str, os.PathLike)) else Image.fromarray(pixels(image))
    if picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return Png(out.getvalue(), picture.height, picture.width, len(picture.getbands()))


def pixels(image: Any) -> Any:
    """Return an array's pixels as uint8."""
    import numpy as np

    detach = getattr(image, "detach", None)
    array = np.asarray(detach().cpu() if detach is not None else image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ArgumentError(
            f"an image of shape {array.shape} cannot be shown;"
            " it must be height x width, or height x width x 1, 3 or 4 channels"
        )
    if array.dtype.kind in "fc":
        array = np.nan_to_num(array) * 255 + 0.5
    elif array.dtype.kind == "b":
        array = array * 255
    return np.clip(array, 0, 255).astype(np.uint8)
