"""A checkpoint of a training that fails."""

from typing import TYPE_CHECKING, ClassVar, final

from epochal.checkpointing.retention import Keep
from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.core.run import Run

LONGEST = 200  # characters of an error's text


@final
class SaveOnException(Callback):
    """Save everything that a training is when it fails, or is interrupted by Ctrl-C.

    >>> from epochal.testing import simulate
    >>> class Fail(Callback):
    ...     def on_train_batch_end(self, run):
    ...         raise ValueError(f"a bad batch in epoch {run.epoch}")
    >>> try:
    ...     simulate([Fail(), SaveOnException()], [{}])
    ... except ValueError as error:
    ...     print(error)
    a bad batch in epoch 0

    errors
        Which ones: an exception's class or several. By default all errors and Ctrl-C.
    keep_last
        How many of these checkpoints stay, the newest; a resumed training that fails again makes another.

    The checkpoint's reason names the error. What fails in the middle of an epoch may leave a state for export and
    rescue only (``epochal.checkpoint(run, "last")``), from which no training goes on exactly: ``resume_point`` in its
    manifest tells. Ctrl-C and signals save by themselves at the end of the batch, where that is of use; it is not done
    twice. A second Ctrl-C leaves at once, and the other checkpoints as they are.
    """

    guarded = True
    requires: ClassVar[frozenset[str]] = frozenset({"save"})

    def __init__(
        self,
        errors: type[BaseException] | tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt),
        *,
        keep_last: int = 1,
        name: str | None = None,
    ) -> None:
        self.errors = errors if isinstance(errors, tuple) else (errors,)
        for one in self.errors:
            if not (isinstance(one, type) and issubclass(one, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ArgumentError(f"SaveOnException: errors must be classes of exceptions, not {one!r}")
        check_count(keep_last, owner="SaveOnException", argument="keep_last")
        self.keep_last = keep_last
        if name is not None:
            self.name = name
        self.began = False

    def __repr__(self) -> str:
        return f"SaveOnException({', '.join(one.__name__ for one in self.errors)})"

    def on_train_start(self, run: "Run") -> None:
        """Say how many of these checkpoints stay; before that there is nothing to save."""
        run.checkpoint_store.keep(run.label(self), Keep(last=self.keep_last))
        self.began = True

    def on_exception(self, run: "Run") -> None:
        """Ask for a checkpoint, if it is one of those errors."""
        if self.began and isinstance(run.error, self.errors) and not run.engine.requests.left:
            text = str(run.error).strip().partition("\n")[0][:LONGEST]
            run.request_save(type(run.error).__name__ + (f": {text}" if text else ""))

    def teardown(self, run: "Run") -> None:
        """Be ready for another training."""
        self.began = False
