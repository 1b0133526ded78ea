"""The base of callbacks that keep what a model predicts in a validation, and use it when a condition holds."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from epochal.callbacks.policy import Policy
from epochal.conditions.schedule import Every
from epochal.core.errors import ArgumentError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.conditions.base import Condition
    from epochal.core.moment import Moment
    from epochal.core.run import Run

Read = Callable[["Run"], Any]


class OfValidation(Policy):
    """Collect during the epochs' validations, act on the newest when the condition holds (internal).

    A validation is used once, however often the condition holds. Only rank 0 does anything.
    """

    guarded = True
    requires: ClassVar[frozenset[str]] = frozenset({"outputs"})
    what = "files"

    def __init__(
        self,
        when: "Condition | None",
        *,
        read: Read | None,
        names: "Sequence[str] | Mapping[int, str] | None",
        keep_last: int,
        name: str | None,
    ) -> None:
        super().__init__(Every(epochs=1) if when is None else when, name=name)
        owner = type(self).__name__
        if read is not None and not callable(read):  # pyright: ignore[reportUnnecessaryComparison]
            raise ArgumentError(f"{owner}: read={read!r} must be a function of the run that returns (targets, scores)")
        if isinstance(keep_last, bool) or not isinstance(keep_last, int) or (keep_last < 1 and keep_last != -1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"{owner}: keep_last must be a whole number of at least 1, or -1 for all, not {keep_last!r}"
            )
        self.read, self.keep_last = read, keep_last
        self.names: dict[int, str] = dict(names if isinstance(names, Mapping) else enumerate(names or ()))
        self._epoch: int | None = None  # of the validation that is at hand
        self._told = False

    @abstractmethod
    def begin(self, run: "Run") -> None:
        """A validation begins."""

    @abstractmethod
    def collect(self, run: "Run") -> None:
        """Take what the batch that is ending shows."""

    @abstractmethod
    def use(self, run: "Run", epoch: int) -> bool:
        """Do something with what was collected; False when there is nothing."""

    @abstractmethod
    def drop(self) -> None:
        """Let go of what was collected."""

    def on_train_start(self, run: "Run") -> None:
        """Begin anew."""
        super().on_train_start(run)
        self._told, self._epoch = False, None

    def on_val_start(self, run: "Run") -> None:
        """Forget the validation before; begin, unless it is none of an epoch's or will surely not be asked for."""
        self.drop()
        self._epoch = None
        if run.engine.in_epoch and not run.rank and self.is_due(run):
            self._epoch = run.epoch
            self.begin(run)

    def on_val_batch_end(self, run: "Run") -> None:
        """Collect."""
        if self._epoch is not None:
            self.collect(run)

    def is_due(self, run: "Run") -> bool:
        """Say whether the condition can hold at the end of this epoch."""
        rule = self.when
        return not (isinstance(rule, Every) and rule.epochs is not None and (run.epoch + 1) % rule.epochs)

    def act(self, run: "Run", now: "Moment") -> None:
        """Use the newest validation, once."""
        epoch, self._epoch = self._epoch, None
        if epoch is None:
            return
        if not self.use(run, epoch) and not self._told:
            self._told = True
            log().warning(
                "%s: the validation of epoch %d showed neither boxes nor classes, so there are no %s. In a Loop its"
                " batches are seen when they come from run.batches(loader) inside run.validation().",
                self.name, epoch, self.what,
            )  # fmt: skip

    def teardown(self, run: "Run") -> None:
        """Let go of everything."""
        self.drop()
        self._epoch = None

    def folder(self, run: "Run") -> Path:
        """Return this callback's own folder in the run's."""
        return (run.dir if run.folder is None else run.folder.make()) / slug(run.label(self))

    def tidy(self, folder: Path, pattern: str) -> None:
        """Remove all but the newest files."""
        if self.keep_last != -1:
            for path in sorted(folder.glob(pattern))[: -self.keep_last]:
                path.unlink(missing_ok=True)


def slug(label: str) -> str:
    """Return a callback's name as the name of a folder.

    >>> slug("PredictionPlots"), slug("PredictionPlots#2"), slug("the worst ones!")
    ('prediction_plots', 'prediction_plots_2', 'the_worst_ones')
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", label).lower()
    return re.sub(r"[^\w-]+", "_", snake).strip("_") or "plots"
