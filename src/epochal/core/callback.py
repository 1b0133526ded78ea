"""The base of all callbacks: one empty method per event."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run


class Callback:
    """Something that watches or steers a training; override the methods of the events you want.

    The same object works in every trainer. Each method is given the run. Options: ``guarded`` (a failure is reported
    and the training goes on), ``requires`` (events and capabilities without which it cannot work, checked at attach),
    ``name`` (default: class and first argument).

    >>> class StopOnSpike(Callback):
    ...     def on_train_batch_end(self, run):
    ...         if run.metrics["train/loss"] > 100:
    ...             run.stop("loss above 100")
    >>> StopOnSpike().name
    'StopOnSpike'
    """

    guarded: bool = False
    requires: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Remember the first argument for the default name, also where a subclass never calls ``__init__``."""
        made = super().__new__(cls)
        first = args[0] if args else options.get("metric")
        first = first if isinstance(first, (str, int, float)) else None
        object.__setattr__(made, "_first_argument", first)
        return made

    @property
    def name(self) -> str:
        """The name that summaries, checkpoints and messages use: the given one, else class and first argument."""
        given: str | None = self.__dict__.get("_given_name")
        if given is not None:
            return given
        first = self.__dict__.get("_first_argument")
        return type(self).__name__ if first is None else f"{type(self).__name__}({first})"

    @name.setter
    def name(self, value: str | None) -> None:
        object.__setattr__(self, "_given_name", value)

    def state_dict(self) -> dict[str, Any]:
        """Return everything learnt so far that must survive a restart, as plain data and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave, in place."""

    def implies(self) -> "Sequence[Callback]":
        """Return further callbacks that this one cannot do without; they are added after it."""
        return ()

    def parts(self) -> Iterable[object]:
        """Return the objects inside that learn during a training, such as conditions; each serves one at a time."""
        return ()

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Decide, after all callbacks of a batch's, a validation's or an epoch's end; what policies override."""

    @property
    def at_batches(self) -> bool:
        """Whether ``at_safe_point`` is called at the end of each batch too; False saves the time."""
        return True

    def before_step(self, run: "Run", optimizer: Any) -> None:
        """Look at or change the gradients of a step: accumulated, unscaled and, where the trainer clips, clipped.

        Called right before ``optimizer`` steps, on trainers that provide "gradients", for each optimizer of a ``Loop``.
        ``run.skip_step()`` leaves this step out.
        """

    def on_pretrain_routine_start(self, run: "Run") -> None:
        """Before the trainer sets itself up."""

    def on_pretrain_routine_end(self, run: "Run") -> None:
        """Model, data and optimizer stand."""

    def on_resume(self, run: "Run") -> None:
        """The state of a checkpoint has been restored."""

    def on_train_start(self, run: "Run") -> None:
        """The training begins."""

    def on_train_epoch_start(self, run: "Run") -> None:
        """An epoch begins."""

    def on_train_batch_start(self, run: "Run") -> None:
        """A batch begins."""

    def optimizer_step(self, run: "Run") -> None:
        """The optimizer has stepped."""

    def on_before_zero_grad(self, run: "Run") -> None:
        """The last moment at which the gradients of that step are promised."""

    def on_train_batch_end(self, run: "Run") -> None:
        """The batch is done."""

    def on_train_epoch_end(self, run: "Run") -> None:
        """All batches of the epoch are done, before its last validation."""

    def on_train_epoch_abort(self, run: "Run") -> None:
        """The epoch is given up: retried or rolled back."""

    def on_val_start(self, run: "Run") -> None:
        """A validation begins."""

    def on_val_batch_start(self, run: "Run") -> None:
        """A validation batch begins."""

    def on_val_batch_end(self, run: "Run") -> None:
        """A validation batch is done."""

    def on_val_end(self, run: "Run") -> None:
        """A validation is done; its metrics are fresh."""

    def on_fit_epoch_end(self, run: "Run") -> None:
        """The epoch is done, after its validation; all metrics are fresh."""

    def on_model_save(self, run: "Run") -> None:
        """The state of a checkpoint is captured."""

    def on_train_end(self, run: "Run") -> None:
        """The training is over."""

    def on_exception(self, run: "Run") -> None:
        """The training fails: an error, Ctrl-C, a signal."""

    def teardown(self, run: "Run") -> None:
        """The very last event, exactly once, always."""

    def on_checkpoint_error(self, run: "Run") -> None:
        """A checkpoint could not be written; the training goes on."""

    def on_hang(self, run: "Run") -> None:
        """A training that hung goes on; with a ``Watchdog`` only."""

    def on_loss_spike(self, run: "Run") -> None:
        """The loss has jumped far above its recent values; with a ``LossSpike`` only."""

    def on_pause(self, run: "Run") -> None:
        """The training begins to wait, at a safe point; no event comes until ``on_continue``."""

    def on_continue(self, run: "Run") -> None:
        """A training that waited goes on."""


def given_name(callback: Callback) -> str | None:
    """Return the name a callback was given, by assignment or by its class, or None if it has only the default."""
    if isinstance(vars(Callback)["name"], property) and type(callback).name is vars(Callback)["name"]:
        return callback.__dict__.get("_given_name")
    return callback.name
