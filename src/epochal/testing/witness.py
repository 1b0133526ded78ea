"""What the scenarios of integrations look with: a callback that writes everything down, one that acts at a moment."""

from collections.abc import Callable
from typing import Any, NamedTuple

from epochal.core.callback import Callback
from epochal.core.events import EVENT_NAMES
from epochal.core.run import Run

Train = Callable[..., Run]  # what `check_integration` is given
EPOCHS = 2


class Seen(NamedTuple):
    """One event as a callback saw it."""

    event: str
    epoch: int
    batch: int
    step: int


class Witness(Callback):
    """Writes down every event with the numbers that the run showed at it; ``run`` is the run it saw."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.run: Run | None = None

    @property
    def events(self) -> list[str]:
        """The names of the events, in their order."""
        return [one.event for one in self.seen]

    def at(self, event: str) -> list[Seen]:
        """Return what was seen at one event."""
        return [one for one in self.seen if one.event == event]


def _recorder(event: str) -> Any:
    def record(self: Witness, run: Run) -> None:
        self.run = run
        self.seen.append(Seen(event, run.epoch, run.batch, run.step))

    record.__name__, record.__doc__ = event, f"Write {event} down."
    return record


for _event in EVENT_NAMES:
    setattr(Witness, _event, _recorder(_event))


class At(Callback):
    """Calls a function once, at the n-th occurrence of an event; with ``occurrence=None`` at each."""

    def __init__(
        self, event: str, act: Callable[[Run], Any], occurrence: int | None = 1, *, guarded: bool = False
    ) -> None:
        self.event, self.act, self.occurrence, self.guarded = event, act, occurrence, guarded
        self.count = 0
        setattr(self, event, self.happen)

    def happen(self, run: Run) -> None:
        """Count, and act when it is time."""
        self.count += 1
        if self.occurrence in (None, self.count):
            self.act(run)


class Planted(Exception):
    """The error that scenarios plant."""


class LeftOut(Exception):
    """A scenario cannot be played on a trainer, and why."""


def trained_weights(model: Any) -> list[bytes] | None:
    """Return what an optimizer changes in a model, bit for bit, or None where nobody can tell.

    >>> import torch
    >>> len(trained_weights(torch.nn.Linear(2, 1))), trained_weights(3)
    (2, None)
    """
    if hasattr(model, "parameters"):  # PyTorch
        return [one.detach().cpu().double().numpy().tobytes() for one in model.parameters() if one.requires_grad]
    if hasattr(model, "trainable_weights"):  # Keras
        import numpy

        return [numpy.asarray(one).tobytes() for one in model.trainable_weights]
    return [repr(model.state_dict()).encode()] if hasattr(model, "state_dict") else None


def expect(found: object, wanted: object, what: str) -> None:
    """Raise AssertionError unless two values are equal.

    >>> expect(1, 2, "steps")
    Traceback (most recent call last):
    AssertionError: steps: 1, expected 2
    """
    check(found == wanted, f"{what}: {found!r}, expected {wanted!r}")


def check(holds: bool, what: str) -> None:
    """Raise AssertionError unless something holds."""
    if not holds:
        raise AssertionError(what)
