"""Images, texts and histograms as the destinations take them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from epochal.core.host import Boxes
from epochal.loggers.drawing import with_boxes
from epochal.runs.media import box_of
from epochal.runs.png import Png, as_png

CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # a PNG's colour type -> channels; source: PNG specification, 11.2.1


class Histogram(NamedTuple):
    """How many finite values lie between neighbouring edges, their extremes, mean and standard deviation."""

    edges: Sequence[float]
    counts: Sequence[float]
    low: float
    high: float
    mean: float
    deviation: float

    def coarser(self, most: int) -> "Histogram":
        """Return it with at most so many bins, neighbours joined.

        >>> Histogram([0, 1, 2, 3], [5, 6, 7], 0, 3, 1.5, 1).coarser(2)[:2]
        ([0, 2, 3], [11, 7])
        """
        many = -(-len(self.counts) // most)
        starts = range(0, len(self.counts), max(many, 1))
        counts = [sum(self.counts[start : start + many]) for start in starts]
        return self._replace(edges=[*(self.edges[start] for start in starts), self.edges[-1]], counts=counts)


def medium_of(kind: str, about: str, data: bytes) -> tuple[Any, Boxes] | None:
    """Return what a row of the store's images, texts and histograms holds, and its boxes; None where it cannot be read.

    >>> medium_of("text", "{}", b"a cat")
    ('a cat', ())
    """
    try:
        told: dict[str, Any] = json.loads(about)
        if kind == "image":
            return png_of(data), tuple(cast("Sequence[Mapping[str, Any]]", told.get("boxes", ())))
        if kind == "text":
            return data.decode("utf-8", "replace"), ()
        columns: dict[str, Any] = json.loads(data)
        numbers = [float(told[name]) for name in ("low", "high", "mean", "deviation")]
        return Histogram(columns["edges"], columns["counts"], *numbers), ()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # nothing finite in it, or not ours
        return None


def picture_of(image: Any, boxes: Boxes = ()) -> Png:
    """Return an image as PNG, with the boxes and masks that were logged with it drawn on it."""
    png = as_png(image)
    return with_boxes(png, [box_of(one) if not is_stored(one) else one for one in boxes]) if boxes else png


def is_stored(box: Mapping[str, Any]) -> bool:
    """Say whether a box comes from the store: its mask is not an array then."""
    return isinstance(box.get("mask"), dict) or ("mask" not in box and "true" in box and "score" in box)


def png_of(data: bytes) -> Png:
    """Return a PNG with its size, read from its head."""
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (16, 20))
    return Png(data, height, width, CHANNELS.get(data[25], 3))
