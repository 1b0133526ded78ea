"""Images, histograms and texts as rows of a run's store."""

from typing import TYPE_CHECKING, Any

from epochal.runs.book import Row
from epochal.runs.png import as_png
from epochal.runs.schema import as_json

if TYPE_CHECKING:
    from epochal.core.metrics import At
    from epochal.runs.writer import StoreWriter


def copied(image: Any) -> Any:
    """Return a copy of an array or tensor, which the training may overwrite; what cannot be copied as it is."""
    try:
        if hasattr(image, "detach"):
            return image.detach().clone()
        return image.copy() if hasattr(image, "shape") else image
    except Exception:  # this is the training thread; what is wrong with the image is said where it is written
        return image


def image_row(writer: "StoreWriter", name: str, image: Any, at: "At", time: float) -> Row:
    """Return the row of an image, as PNG; on the writer's thread."""
    png = as_png(image)
    about = {"height": png.height, "width": png.width, "type": "image/png"}
    return Row(
        "media",
        {
            "attempt": writer.book.attempt, "kind": "image", "name": name, "step": at.step, "epoch": at.epoch,
            "time": time, "about": as_json(about), "data": png.data,
        },
    )  # fmt: skip
