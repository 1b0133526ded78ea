"""What stands around a run: its trainer's learning rates, its checkpoints, its loggers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from epochal.core.metrics import At
from epochal.core.moment import Moment
from epochal.core.requests import SaveRequest

Boxes = Sequence[Mapping[str, Any]]  # on an image: "box" (left, top, right, bottom), "label", "score", "true", "mask"


class Record(NamedTuple):
    """What a logger is handed: scalars, hyper-parameters, an image, a text ..., where and when; boxes of an image."""

    kind: str  # "metrics", "params", "image", "text", "histogram" (of Samples) or "layers"
    values: Mapping[str, Any]
    at: At
    time: float
    boxes: Boxes = ()  # marked on an image


class Samples(NamedTuple):
    """The values of a histogram, and how many bins they are counted in."""

    values: Any
    bins: int


class Frame(NamedTuple):
    """How an image of this height and width lies in what the model sees, which has its own, ``seen``.

    A point (x, y) of the image is at (x * scale_x + left, y * scale_y + top).
    """

    height: int
    width: int
    seen: tuple[int, int]
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: float = 0.0
    top: float = 0.0


class Prediction(NamedTuple):
    """What a model predicts for one image, the likeliest first, and what is true; arrays are NumPy's, on the host.

    Detection: ``classes`` and ``scores`` (n,), ``boxes`` (n, 4) left, top, right, bottom in pixels of what the model
    sees, which may have borders: ``frame`` says where the image lies in it. ``masks`` are (n, h, w) booleans that span
    all the model sees, on a grid that may be coarser, or None. Classification: ``boxes`` is None, ``classes`` and
    ``scores`` hold every class; the truth holds one. ``image`` is what the model sees, RGB, uint8, (height, width, 3),
    or None; ``source`` the file it comes from, or "".
    """

    classes: Any
    scores: Any
    boxes: Any = None
    masks: Any = None
    image: Any = None
    source: str = ""
    frame: Frame | None = None
    truth: "Prediction | None" = None


class Predictions(NamedTuple):
    """The predictions for the images of one validation batch, and the name of every class."""

    images: Sequence[Prediction]
    names: Mapping[int, str]


class Predictor(Protocol):
    """How an integration shows what the model predicted for the validation batch that is ending."""

    def __call__(self, *, min_score: float = 0.0, first: int | None = None, pixels: bool = False) -> Predictions | None:
        """Return boxes of at least this score, of the first so many images, or the classes of all images.

        With ``pixels`` the images are there too. None for a task with neither boxes nor classes.
        """
        ...


class Trial(Protocol):
    """How an integration lets somebody train a copy of the model for a while, as its trainer would."""

    def batches(self) -> Iterable[Any]:
        """Return what the optimizer's steps take, step by step; the training's own data stays as it is."""
        ...

    def step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Train ``model``, a copy, by one step of ``optimizer``, its own, and return the loss before that step."""
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
    """How a run's state becomes a checkpoint; floor 2 and the integration provide it.

    What cannot be written in the background comes back as ``engine.requests.failures``. ``captured_at``: how many
    batches the training had done at the newest capture, -1 before the first.
    """

    captured_at: int

    def ready(self, asked: Sequence[SaveRequest], moment: Moment) -> bool:
        """Say whether a checkpoint is taken now, once the one before is written; False: at a later safe point."""
        ...

    def capture(self, asked: Sequence[SaveRequest], moment: Moment) -> Any:
        """Return the state of everything, as of now."""
        ...

    def write(self, captured: Any) -> Exception | None:
        """Make it a checkpoint, from now on in the background; a failure that shows at once is returned, not raised."""
        ...

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all that was asked for is durable or has failed, or ``limit`` seconds; say whether it is."""
        ...

    def close(self) -> None:
        """Let go of what writing needs: the training is over."""
        ...

    def is_resume_point(self) -> bool:
        """Say whether the trainer can go on exactly from the state of now."""
        ...

    def ends_well(self) -> bool:
        """Say whether the batches of an epoch are done whose end is a point to resume from that the run would keep."""
        ...

    def last_request(self, reason: str) -> SaveRequest | None:
        """Return what to ask for before the training is left, or None where that is not worth it."""
        ...

    def clean_point(self, before: int | None) -> Any:
        """Return the newest sound resume point in the current epoch, before one of its batches, to go back to."""
        ...
