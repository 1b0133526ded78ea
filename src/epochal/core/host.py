"""What stands around a run: its trainer's learning rates, its checkpoints, its loggers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from epochal.core.metrics import At
from epochal.core.moment import Moment
from epochal.core.requests import SaveRequest


class Record(NamedTuple):
    """What a logger is handed: scalars, hyper-parameters or an image, where the training stood, and the wall time."""

    kind: str  # "metrics", "params" or "image"
    values: Mapping[str, Any]
    at: At
    time: float


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
