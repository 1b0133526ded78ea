"""What a model predicted for a validation batch: as the trainer shows it, or read from a plain loop's batch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ArgumentError
from epochal.core.host import Prediction, Predictions

if TYPE_CHECKING:
    from epochal.callbacks.of_validation import Read
    from epochal.core.run import Run

CURE = "; give read=lambda run: (targets, scores), from run.data and run.outputs"


def predictions_of(
    run: "Run",
    read: "Read | None",
    names: Mapping[int, str],
    *,
    min_score: float = 0.0,
    first: int | None = None,
    pixels: bool = False,
) -> Predictions | None:
    """Return the predictions of the batch that is ending; None if the trainer has none of boxes or classes.

    ``read`` returns targets (n,) and scores (n, classes), or ``Predictions``. Without it a trainer that knows its
    predictions is asked; in a plain loop the batch is a pair whose second is the targets, the output the scores.
    """
    shown = run.engine.predicted
    if read is None and shown is not None:
        return shown(min_score=min_score, first=first, pixels=pixels)
    found = read(run) if read is not None else pair(run)
    if isinstance(found, Predictions):
        return found
    try:
        targets, scores = found
    except (TypeError, ValueError):
        raise ArgumentError(f"read(run) must return targets and scores, not {type(found).__name__}") from None
    return classified(array(targets), array(scores), images_of(run.data) if pixels else None, names)


def pair(run: "Run") -> tuple[Any, Any]:
    """Return targets and scores of a plain loop's batch."""
    data, outputs = run.data, run.outputs
    if not isinstance(data, (tuple, list)) or len(data) < 2:
        raise ArgumentError(f"the batch is no pair of inputs and targets but {type(data).__name__}{CURE}")
    if outputs is None:
        raise ArgumentError(f"the model was not called for this batch{CURE}")
    return data[1], getattr(outputs, "logits", outputs)


def classified(targets: Any, scores: Any, images: Any, names: Mapping[int, str]) -> Predictions:
    """Return the predictions of a classification: every class, the likeliest first.

    >>> import numpy as np
    >>> shown = classified(np.array([1]), np.array([[0.2, 0.7, 0.1]]), None, {}).images[0]
    >>> shown.classes.tolist(), shown.scores.tolist(), shown.truth.classes.tolist()
    ([1, 0, 2], [0.7, 0.2, 0.1], [1])
    """
    import numpy as np

    if scores.ndim != 2 or scores.shape[1] < 2 or targets.shape != scores.shape[:1]:
        raise ArgumentError(
            f"targets of shape {targets.shape} and scores of shape {scores.shape} are no classification: targets must"
            f" be (n,), scores (n, classes){CURE}"
        )
    shares = as_shares(scores)
    order = np.argsort(-shares, axis=1, kind="stable")
    return Predictions(
        [
            Prediction(
                classes=classes,
                scores=shares[index][classes],
                image=None if images is None else images[index],
                truth=Prediction(classes=np.array([int(targets[index])]), scores=None),
            )
            for index, classes in enumerate(order)
        ],
        names,
    )


def as_shares(scores: Any) -> Any:
    """Return rows that add up to 1: as they are if they do already, else their softmax.

    >>> import numpy as np
    >>> as_shares(np.array([[0.25, 0.75]])).tolist(), as_shares(np.array([[3.0, 3.0]])).tolist()
    ([[0.25, 0.75]], [[0.5, 0.5]])
    """
    import numpy as np

    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def array(values: Any) -> Any:
    """Return a tensor or a sequence as an array on the host; floats of any width as float64."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach()
        values = (values.double() if values.is_floating_point() else values).cpu().numpy()
    found = np.asarray(values)
    return found.astype(np.float64) if found.dtype.kind == "f" else found


def images_of(data: Any) -> list[Any] | None:
    """Return the images of a plain loop's batch as RGB, each from its darkest to its brightest value; None if none."""
    import numpy as np

    first = data[0] if isinstance(data, (tuple, list)) and data else data
    if getattr(first, "ndim", 0) not in (3, 4):
        return None
    pictures = array(first).astype(np.float32)
    if pictures.ndim == 3:
        pictures = pictures[:, None]
    if pictures.shape[1] not in (1, 3):
        return None
    return [spread(picture.transpose(1, 2, 0)) for picture in pictures]


def spread(picture: Any) -> Any:
    """Return pixels between 0 and 255, three channels."""
    import numpy as np

    low, high = float(picture.min()), float(picture.max())
    pixels = ((picture - low) * (255 / (high - low or 1)) + 0.5).astype(np.uint8)
    return pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)
