"""Predictions as lines of JSON: how they are written, and read again."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epochal.core.host import Frame, Prediction


def as_line(index: int, one: Prediction, *, top: int, masks: bool) -> dict[str, Any]:
    """Return what stands on an image's line, plain data.

    >>> import numpy as np
    >>> truth = Prediction(classes=np.array([2]), scores=None)
    >>> as_line(0, Prediction(classes=np.array([2, 0]), scores=np.array([0.75, 0.25]), truth=truth), top=1, masks=True)
    {'index': 0, 'source': '', 'target': 2, 'predicted': 2, 'classes': [2], 'scores': [0.75]}
    """
    line: dict[str, Any] = {"index": index, "source": one.source}
    if one.boxes is None:
        target = None if one.truth is None else int(one.truth.classes[0])
        best = {"classes": whole(one.classes[:top]), "scores": rounded(one.scores[:top], 5)}
        return {**line, "target": target, "predicted": int(one.classes[0]), **best}
    frame = one.frame
    if frame is not None:
        line |= {"height": frame.height, "width": frame.width}
    line |= boxed(one, frame, masks) | {"scores": rounded(one.scores, 5)}
    return line if one.truth is None else {**line, "truth": boxed(one.truth, frame, masks)}


def boxed(one: Prediction, frame: Frame | None, masks: bool) -> dict[str, Any]:
    """Return classes, boxes and masks, in pixels of the image itself."""
    found: dict[str, Any] = {"classes": whole(one.classes), "boxes": rounded(in_image(one.boxes, frame), 2)}
    if masks and one.masks is not None:
        found["masks"] = [encode_mask(on_image(mask, frame)) for mask in one.masks]
    return found


def in_image(boxes: Any, frame: Frame | None) -> Any:
    """Return boxes in pixels of the image itself, cut off at its edges.

    >>> import numpy as np
    >>> in_image(np.array([[10.0, 30.0, 200.0, 60.0]]), Frame(100, 200, (100, 100), 0.5, 0.5, 0.0, 25.0)).tolist()
    [[20.0, 10.0, 200.0, 70.0]]
    """
    import numpy as np

    if frame is None:
        return boxes
    moved = (boxes - (frame.left, frame.top) * 2) / ((frame.scale_x, frame.scale_y) * 2)
    return np.clip(moved, 0, (frame.width, frame.height) * 2)


def on_image(mask: Any, frame: Frame | None) -> Any:
    """Return the part of a mask that lies on the image itself, at the resolution the mask has."""
    import numpy as np

    if frame is None:
        return mask

    def places(length: int, scale: float, start: float, cells: int, seen: int) -> Any:
        """Return which cells of the mask the centres of the new ones fall on."""
        count = max(round(length * scale * cells / seen), 1)
        centres = (np.arange(count) + 0.5) / count * length * scale + start
        return np.clip((centres * cells / seen).astype(int), 0, cells - 1)

    rows = places(frame.height, frame.scale_y, frame.top, mask.shape[0], frame.seen[0])
    columns = places(frame.width, frame.scale_x, frame.left, mask.shape[1], frame.seen[1])
    return mask[np.ix_(rows, columns)]


def encode_mask(mask: Any) -> dict[str, Any]:
    """Return a mask as COCO's uncompressed RLE: lengths of runs, column by column, the first of them outside.

    >>> import numpy as np
    >>> encode_mask(np.array([[False, True], [True, True]]))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    import numpy as np

    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def decode_mask(encoded: Mapping[str, Any]) -> Any:
    """Return the mask again, (height, width) booleans.

    >>> decode_mask({"size": [2, 2], "counts": [1, 3]}).tolist()
    [[False, True], [True, True]]
    """
    import numpy as np

    inside = np.arange(len(encoded["counts"])) % 2 == 1
    return np.repeat(inside, encoded["counts"]).reshape(encoded["size"], order="F")


def read_predictions(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file that ``WritePredictions`` wrote, one mapping per image."""
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def whole(values: Any) -> list[int]:
    """Return whole numbers as a list."""
    return [int(value) for value in values]


def rounded(values: Any, digits: int) -> Any:
    """Return an array of numbers as nested lists, rounded."""
    import numpy as np

    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
