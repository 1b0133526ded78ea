"""Stop a training when a condition holds."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from epochal.callbacks.policy import Policy
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.conditions.base import Condition
    from epochal.core.moment import Moment
    from epochal.core.run import Run


class Stopping(Policy):
    """What all policies share that stop a training (internal): they ask once, with the condition's reason."""

    _asked = False  # in this training; a new one, also a resumed one, may be asked again

    def on_train_start(self, run: "Run") -> None:
        """Begin anew."""
        super().on_train_start(run)
        self._asked = False

    def act(self, run: "Run", now: "Moment") -> None:
        """Ask the run to stop, unless that was done already."""
        if not self._asked:
            self._asked = True
            run.stop(self.when.reason(now))


@final
class Stop(Stopping):
    """Stop the training at the first safe point at which a condition holds.

    >>> from epochal import Elapsed, NonFinite, Stop, Target
    >>> from epochal.testing import simulate
    >>> stop = Stop(when=NonFinite("train/loss") | Target("fitness", 0.9))
    >>> result = simulate([stop], [{"train/loss": 1.0, "fitness": x} for x in (0.5, 0.92, 0.95)])
    >>> result.epochs_run, result.stop_reason
    (2, 'Stop: fitness 0.92 reached 0.9')

    ``stop_reason`` says which member of a combination held. ``when`` that is no condition: ``ArgumentError``; a metric
    that nobody has measured at the end of the first epoch: ``MetricNotFound``. After a stop at the end of a batch no
    further batch runs; the epoch's validation and its end events still come.
    """

    def __init__(self, when: "Condition", *, name: str | None = None) -> None:
        super().__init__(when, name=name)


@contextmanager
def speaking_as(owner: str, condition: str) -> Generator[None, None, None]:
    """Let a condition's complaint about an argument name what the user wrote.

    >>> with speaking_as("EarlyStopping", "Plateau"):
    ...     raise ArgumentError("Plateau: patience must be a whole number of at least 1, not 0")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: EarlyStopping: patience must be a whole number of at least 1, not 0
    """
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(str(error).replace(condition, owner, 1)) from None
