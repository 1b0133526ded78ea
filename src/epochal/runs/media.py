"""Images, histograms and texts as rows of a run's store."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ArgumentError, MissingExtra
from epochal.runs.book import Row
from epochal.runs.png import as_png
from epochal.runs.schema import as_json

if TYPE_CHECKING:
    from epochal.core.host import Samples
    from epochal.core.metrics import At

LONGEST = 1 << 20  # characters of a text that are kept


def copied(image: Any) -> Any:
    """Return a copy of an array or tensor, which the training may overwrite; what cannot be copied as it is."""
    try:
        if hasattr(image, "detach"):
            return image.detach().clone()
        return image.copy() if hasattr(image, "shape") else image
    except Exception:  # this is the training thread; what is wrong with the image is said where it is written
        return image


def size_of(value: Any) -> int:
    """Return about how many bytes a value holds.

    >>> size_of("four"), size_of([1.0, 2.0])
    (4, 16)
    """
    known = getattr(value, "nbytes", None)
    if isinstance(known, int):
        return known
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, Sequence) else 1024


class Place:
    """Where and when something was logged, as the first columns of its row."""

    def __init__(self, attempt: int, at: "At", time: float) -> None:
        self.columns = {"attempt": attempt, "step": at.step, "epoch": at.epoch, "time": time}

    def row(self, kind: str, name: str, about: Mapping[str, Any], data: bytes) -> Row:
        """Return the row."""
        return Row("media", {**self.columns, "kind": kind, "name": name, "about": as_json(dict(about)), "data": data})


def image_row(place: Place, name: str, image: Any, boxes: Sequence[Mapping[str, Any]] = ()) -> Row:
    """Return the row of an image, as PNG, with what is marked on it; on the writer's thread."""
    png = as_png(image)
    about: dict[str, Any] = {"height": png.height, "width": png.width, "type": "image/png"}
    if boxes:
        about["boxes"] = [box_of(one) for one in boxes]
    return place.row("image", name, about, png.data)


def box_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a box as JSON values: its corners in pixels, label, score, whether it is true, and perhaps its mask.

    >>> box_of({"box": (1, 2, 3, 4), "label": "cat"})
    {'box': [1.0, 2.0, 3.0, 4.0], 'label': 'cat', 'score': None, 'true': False}
    """
    score, mask = given.get("score"), given.get("mask")
    found: dict[str, Any] = {
        "box": [float(corner) for corner in given["box"]],
        "label": str(given.get("label", "")),
        "score": None if score is None else float(score),
        "true": bool(given.get("true", False)),
    }
    return found if mask is None else {**found, "mask": lengths(mask)}


def lengths(mask: Any) -> dict[str, Any]:
    """Return a mask, (height, width) of booleans that span the image, as lengths of runs, row by row, off first.

    >>> import numpy as np
    >>> lengths(np.array([[0, 1, 1], [1, 0, 0]], dtype=bool))
    {'size': [2, 3], 'counts': [1, 3, 2]}
    """
    import numpy as np

    flat = np.asarray(mask, dtype=bool).ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat)).astype(np.int8)))
    counts = np.diff(np.concatenate(([0], edges, [flat.size])))
    return {"size": list(np.shape(mask)), "counts": [int(one) for one in counts]}


def text_row(place: Place, name: str, text: str) -> Row:
    """Return the row of a text."""
    kept = text[:LONGEST]
    about = {"type": "text/plain", "length": len(text)}
    return place.row("text", name, about, kept.encode("utf-8", "backslashreplace"))


def histogram_row(place: Place, name: str, samples: "Samples") -> Row:
    """Return the row of a histogram: its edges and counts as JSON; on the writer's thread.

    What is not finite is counted apart.
    """
    try:
        import numpy as np
    except ImportError:
        raise MissingExtra("numpy", "plots", "histograms") from None
    values = samples.values
    array = np.asarray(values.double().cpu() if hasattr(values, "detach") else values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    if not array.size:
        raise ArgumentError(f"the histogram {name!r} was given no values")
    counts, edges = np.histogram(finite, bins=samples.bins) if finite.size else (np.zeros(0, int), np.zeros(0))
    about: dict[str, Any] = {"type": "application/json", "bins": samples.bins, "count": int(array.size)}
    about |= {"nan": int(np.isnan(array).sum()), "infinite": int(np.isinf(array).sum())}
    if finite.size:
        about |= {"low": float(finite.min()), "high": float(finite.max())}
        about |= {"mean": float(finite.mean()), "deviation": float(finite.std())}
    data = as_json({"edges": edges.tolist(), "counts": counts.tolist()})
    return place.row("histogram", name, about, data.encode())
