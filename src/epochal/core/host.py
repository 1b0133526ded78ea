"""What stands around a run: its trainer's learning rates, its checkpoints, its loggers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from epochal.core.metrics import At
from epochal.core.moment import Moment
from epochal.core.requests import SaveRequest


class Record(NamedTuple):
    """What a logger is handed: scalars, hyper-parameters, an image, or the numbers of layers; where and when."""

    kind: str  # "metrics", "params", "image" or "layers"
    values: Mapping[str, Any]
    at: At
    time: float


class Prediction(NamedTuple):
    """What a model predicts for one validation image, as arrays on the host, and what is true.

    ``image`` is RGB, uint8, height x width x 3; for detection ``boxes`` are (n, 4) left, top, right, bottom in pixels
    of that image, ``masks`` (n, height, width) booleans or None; for classification ``classes`` and ``scores`` hold
    every class, the likeliest first, and the truth one class.
    """

    image: Any
    source: str  # the file it comes from, or ""
    classes: Sequence[int]
    scores: Sequence[float]
    boxes: Any = None
    masks: Any = None
    truth: "Prediction | None" = None


class Predictions(NamedTuple):
    """The predictions of one validation batch, and the name of every class."""

    images: Sequence[Prediction]
    names: Mapping[int, str]


class Trial(Protocol):
    """How an integration lets somebody train a copy of the model for a while: its batches, and the loss of one."""

    def batches(self) -> Iterable[Any]:
        """Return training batches that leave the training's own data as it is."""
        ...

    def loss(self, model: Any, batch: Any) -> Any:
        """Return the loss of a batch on ``model``, a copy of the one in training."""
        ...


class RateHost(Protocol):
    """How an integration shows its trainer's learning rates."""

    def groups(self) -> dict[str, float]:
        """Return the rate that the trainer's own schedule gives each parameter group."""
        ...

    def take_over(self) -> None:
        """Let ``Rates.effective`` decide from now on, at every step; called once, when the first request comes."""
        ...


class Saver(Protocol):
    """How a run's state becomes a checkpoint; floor 2 and the integration provide it."""

    def capture(self, asked: Sequence[SaveRequest], moment: Moment) -> Any:
        """Return the state of everything, as of now."""
        ...

    def write(self, captured: Any) -> Exception | None:
        """Make it a checkpoint; a failure is returned, not raised."""
        ...
