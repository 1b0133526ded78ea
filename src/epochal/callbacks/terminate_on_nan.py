"""Stop a training whose loss is no number any more."""

from typing import final

from epochal.callbacks.stop import Stopping, speaking_as
from epochal.conditions.level import NonFinite


@final
class TerminateOnNaN(Stopping):
    """Stop when a metric is NaN or infinite: ``Stop(when=NonFinite(metric))``.

    >>> from epochal.testing import simulate
    >>> losses = [0.9, float("nan"), 0.8]
    >>> simulate([TerminateOnNaN()], [{"train/loss": x} for x in losses]).stop_reason
    'TerminateOnNaN: train/loss is nan'

    It looks at every value that reached the host: on CUDA it acts one batch later, because it never makes the device
    wait.
    """

    def __init__(self, metric: str = "train/loss", *, name: str | None = None) -> None:
        with speaking_as("TerminateOnNaN", "NonFinite"):
            when = NonFinite(metric)
        super().__init__(when, name=name)
        self.metric = metric

    def __repr__(self) -> str:
        return f"TerminateOnNaN({self.metric!r})"
