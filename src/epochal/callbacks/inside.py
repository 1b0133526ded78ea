"""The base of callbacks that look inside the model and read what they saw off the training thread."""

from abc import ABC
from typing import TYPE_CHECKING, Any, Protocol

from epochal.callbacks.layers import check_every
from epochal.core.callback import Callback

if TYPE_CHECKING:
    from epochal.core.run import Run
    from epochal.hooks.readout import Readout


class Watch(Protocol):
    """The looking of one training."""

    readout: "Readout"

    def close(self) -> None:
        """Take out what was put into the model, and end the thread."""
        ...


class Inside(Callback, ABC):
    """Has a ``watch`` from the start of a training to its end (internal).

    ``every`` counts optimizer steps: the n-th, 2n-th ... is looked at.
    """

    guarded = True

    def __init__(self, every: int, name: str | None) -> None:
        self.every = check_every(every, type(self).__name__)
        self.watch: Any = None  # a Watch, during a training
        if name is not None:
            self.name = name

    def __getstate__(self) -> dict[str, Any]:
        """Leave the running training out: an object that is copied or pickled is an idle one."""
        return {**self.__dict__, "watch": None}

    def due(self, run: "Run") -> bool:
        """Say whether the step that is being made is looked at."""
        return self.watch is not None and (run.step + 1) % self.every == 0

    def on_train_end(self, run: "Run") -> None:
        """Deliver the last numbers while loggers still listen."""
        if self.watch is not None:
            self.watch.readout.flush()

    def on_exception(self, run: "Run") -> None:
        """Deliver the last numbers, which may tell why."""
        self.on_train_end(run)

    def teardown(self, run: "Run") -> None:
        """Leave the model as it was."""
        watch: Watch | None = self.watch
        self.watch = None
        if watch is not None:
            watch.close()
