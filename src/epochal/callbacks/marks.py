"""What is marked on an image in a run's store: boxes and masks, the true ones and the predicted ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from epochal.core.host import Prediction


def marks(one: Prediction, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return the boxes of an image as ``run.log_image`` takes them, the true ones first.

    >>> import numpy as np
    >>> one = Prediction(classes=np.array([1]), scores=np.array([0.5]), boxes=np.array([[0.0, 0.0, 4.0, 4.0]]))
    >>> marks(one, {1: "seven"})
    [{'box': [0.0, 0.0, 4.0, 4.0], 'label': 'seven', 'score': 0.5, 'true': False}]
    """
    truth = [] if one.truth is None else list(boxes_of(one.truth, names, true=True))
    return [*truth, *boxes_of(one, names, true=False)]


def boxes_of(content: Prediction, names: Mapping[int, str], *, true: bool) -> Iterator[dict[str, Any]]:
    """Yield the boxes of a prediction or of a truth."""
    if content.boxes is None:
        return
    for index, number in enumerate(content.classes):
        mark: dict[str, Any] = {
            "box": [float(corner) for corner in content.boxes[index]],
            "label": names.get(int(number), str(int(number))),
            "score": None if true or content.scores is None else float(content.scores[index]),
            "true": true,
        }
        if content.masks is not None and len(content.masks):
            mark["mask"] = content.masks[index]
        yield mark
