"""The run: what every callback receives, the same in every trainer."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from epochal.core.callback import Callback
from epochal.core.dispatch import Handle
from epochal.core.engine import Engine
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.fitness import Fitness, FitnessSpec
from epochal.core.host import Boxes, Samples
from epochal.core.log import log
from epochal.core.metrics import Metrics
from epochal.core.roster import Roster
from epochal.core.steering import Steering

if TYPE_CHECKING:
    from pathlib import Path

    from epochal.core.declared import Declared
    from epochal.core.summary import Summary

ALL_CAPABILITIES = frozenset(
    {"stop_in_batch", "save", "set_lr", "data", "outputs", "gradients", "validate", "pause"}
    | {"accumulation", "weight_average", "loss", "rollback"}
)
Function = Callable[["Run"], Any]


class Folder(Protocol):
    """Where a run keeps its files; floor 2 provides it."""

    @property
    def path(self) -> "Path":
        """The folder; it may not exist yet."""
        ...

    @property
    def name(self) -> str:
        """The run's name."""
        ...

    def make(self) -> "Path":
        """Make the folder, if it is not there, and return it."""
        ...

    def leave(self) -> None:
        """Write down, if the folder was made, that this process trains the run no more."""
        ...


class Run(Steering):
    """A training as callbacks see it: where it stands, what was measured, and the verbs that steer it.

    ``attach`` and ``Loop`` make it; one Run may see several trainings of its host, one after the other.

    >>> from epochal.testing import simulate
    >>> run = simulate([], [{"val/loss": 0.5}, {"val/loss": 0.25}]).run
    >>> run.epoch, run.fitness, run.end_reason
    (1, -0.25, 'completed')
    """

    def __init__(
        self,
        *,
        host: str,
        provides: frozenset[str],
        owns: Mapping[str, str] | None = None,
        folder: Folder | None = None,
        fitness: FitnessSpec = None,
    ) -> None:
        self.host = host
        self.folder = folder
        self.engine = Engine(self, Fitness(fitness))
        self.roster = Roster(self, self.engine.dispatcher, provides, owns)
        self.past: list[Summary] = []
        self.given_params: dict[str, Any] = {}  # given before a training
        self.commands: dict[str, Declared] = {}  # the user's own, by their names
        self.checkpoint_store: Any = None
        self.recorder: Any = None  # what records it in its store, where it has one
        self.on_detach: Callable[[], None] | None = None
        self.detached = False
        self.unheard = False  # something was logged that nobody records, and that was said

    def __repr__(self) -> str:
        state = "running" if self.engine.active else "idle"
        return f"<{type(self).__name__} on {self.host}: {state}, epoch {self.epoch}, step {self.step}>"

    # -- readable -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self.engine.epoch

    @property
    def num_epochs(self) -> int | None:
        """The planned number of epochs, or None."""
        return self.engine.num_epochs

    @property
    def batch(self) -> int:
        """The index of the training batch in the epoch, from 0."""
        return self.engine.batch

    @property
    def num_batches(self) -> int | None:
        """The number of training batches in an epoch, or None."""
        return self.engine.num_batches

    @property
    def val_batch(self) -> int:
        """The index of the batch in the validation, from 0."""
        return self.engine.val_batch

    @property
    def num_val_batches(self) -> int | None:
        """The number of batches in a validation, or None."""
        return self.engine.num_val_batches

    @property
    def step(self) -> int:
        """Optimizer steps done, over the whole training; one that AMP skipped does not count."""
        return self.engine.step

    @property
    def data(self) -> Any:
        """The batch as the loader delivered it, during a batch where the trainer exposes it; else None."""
        return self.engine.data

    @property
    def outputs(self) -> Any:
        """What the model returned for the batch, where the trainer exposes it; else None."""
        return self.engine.outputs

    @property
    def metrics(self) -> Metrics:
        """The newest value of every metric, of whatever epoch; read lazily."""
        return self.engine.metrics

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One frozen mapping per finished epoch, with only what that epoch measured."""
        return tuple(self.engine.history)

    @property
    def fitness(self) -> float | None:
        """The objective, higher is better; None before it was first measured."""
        metrics = self.engine.metrics
        if metrics.on_read is not None and "fitness" in metrics:
            metrics.on_read(metrics.entries["fitness"])
        return self.engine.fitness_rule.value

    @property
    def best_fitness(self) -> float | None:
        """The best fitness of this run, resumed parts included."""
        return self.engine.fitness_rule.best

    @property
    def lr(self) -> Mapping[str, float]:
        """Parameter group -> the rate that the next step uses."""
        engine = self.engine
        if engine.rate_host is None:
            return {}
        if engine.requests.rates:
            engine.apply_rates()
        return {name: engine.rates.effective(name, own) for name, own in engine.rate_host.groups().items()}

    @property
    def model(self) -> Any:
        """The model in use."""
        return self.engine.model

    @property
    def optimizer(self) -> Any:
        """The optimizer in use, the first of several."""
        return self.engine.optimizer

    @property
    def trainer(self) -> Any:
        """The framework's own trainer."""
        return self.engine.trainer

    @property
    def rank(self) -> int:
        """This process' rank, 0 without distributed training."""
        return self.engine.rank

    @property
    def world_size(self) -> int:
        """The number of processes, 1 without distributed training."""
        return self.engine.world_size

    @property
    def dir(self) -> "Path":
        """Where this run keeps its files; made when the first file is written."""
        if self.folder is None:
            raise AttachError("this run has no folder yet: it is known when the training starts")
        return self.folder.path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name if self.folder is not None else self.host

    @property
    def checkpoints(self) -> Any:
        """The committed checkpoints, oldest first; ``.best()`` and ``.last``."""
        return self.checkpoint_store.checkpoints if self.checkpoint_store is not None else ()

    @property
    def end_reason(self) -> str | None:
        """None while running, then "completed", "stopped", "interrupted", "preempted" or "exception"."""
        return self.engine.end_reason

    @property
    def stop_reason(self) -> str | None:
        """None, or the texts of all stop requests in their order, each with who asked."""
        return self.engine.requests.stop_reason()

    @property
    def error(self) -> BaseException | None:
        """What ended the training, from ``on_exception`` on; else None."""
        return self.engine.error

    # -- verbs: the first five from any thread --------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Take metrics: numbers, or tensors of one element, which stay tensors until somebody reads them."""
        engine = self.engine
        try:
            engine.log(metrics)
        except AttributeError:
            if hasattr(metrics, "items"):
                raise
            example = 'run.log({"train/loss": 0.5})'
            raise ArgumentError(f"log takes a mapping, such as {example}, not {metrics!r}") from None
        if not engine.sinks:
            check_heard(self)

    def skip_step(self) -> None:
        """Leave out the optimizer step that is about to be done, in ``before_step``; it does not count."""
        if self.engine.stepping is None:
            raise AttachError("run.skip_step() works inside before_step(run, optimizer) only")
        self.engine.step_skipped = True

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Take hyper-parameters; before a training they are that training's."""
        (self.engine.params if self.engine.active else self.given_params).update(params)
        if self.engine.sinks:
            self.engine.publish("params", dict(params))

    def log_image(self, name: str, image: Any, boxes: Boxes = ()) -> None:
        """Take an image: an array (height x width, or height x width x channels) or the path of a file.

        ``boxes`` are marked on it where the run is looked at: mappings with "box" (left, top, right, bottom in pixels)
        and perhaps "label", "score", "true" (it is the truth) and "mask" (an array of booleans that span the image).
        """
        for one in boxes:
            if len(one.get("box", ())) != 4:
                raise ArgumentError(f'{name!r}: boxes are mappings such as {{"box": (0, 0, 9, 9)}}, not {one!r}')
        hand(self, "image", {name: image}, boxes)

    def log_text(self, name: str, text: str) -> None:
        """Take a text, such as a sample that the model wrote; of a long one the first million characters are kept."""
        hand(self, "text", {name: str(text)})

    def log_histogram(self, name: str, values: Any, bins: int = 64) -> None:
        """Take the distribution of an array's, a tensor's or a list's values; it is counted off this thread.

        What is not finite is counted apart. A tensor is copied where it is, so the training may go on changing it.
        """
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{name!r}: bins must be a whole number of at least 1, not {bins!r}")
        hand(self, "histogram", {name: Samples(values, bins)})

    def add_callback(
        self, event: str, fn: Function, every: int | None = None, once: bool = False, guarded: bool = False
    ) -> Handle:
        """Call ``fn(run)`` at an event; the handle's ``.remove()`` takes it back."""
        self.check_attached(f"add_callback({event!r})")
        label = self.roster.unique(f"{getattr(fn, '__name__', type(fn).__name__)}()")
        return self.engine.dispatcher.listen(event, fn, label=label, guarded=guarded, every=every, once=once)

    def on(
        self, event: str, every: int | None = None, once: bool = False, guarded: bool = False
    ) -> Callable[[Function], Function]:
        """Register the decorated function for an event."""
        if callable(event):
            name = getattr(event, "__name__", "on_...")
            raise ArgumentError(f'write @run.on("{name}"): the event is named in the parentheses')
        self.engine.dispatcher.slot(event)

        def register(fn: Function) -> Function:
            self.add_callback(event, fn, every=every, once=once, guarded=guarded)
            return fn

        return register

    def add(self, callback: Callback) -> None:
        """Add one more callback object, before the training starts."""
        self.check_attached(f"add({getattr(callback, 'name', callback)})")
        if self.engine.in_training:
            raise AttachError(
                "a callback object cannot be added while a training runs: its state has to stand before on_train_start;"
                " add it before, or use run.add_callback(event, fn) now"
            )
        known = tuple(self.roster.callbacks)
        self.roster.add(callback)
        if self.engine.active:
            self.roster.join(known)

    def detach(self) -> None:
        """Undo attach: the trainer is as it was before."""
        if self.on_detach is None:
            raise AttachError(f"{self.host} is not attached; there is nothing to undo")
        if self.engine.active:
            raise AttachError("a run cannot be detached while it trains; use run.stop(reason), then detach")
        if not self.detached:
            self.on_detach()
            self.detached = True

    def declare(self, event: str) -> None:
        """Add an event of your own, named "on_...", to be emitted with ``emit``."""
        self.engine.dispatcher.declare(event)

    def emit(self, event: str) -> None:
        """Deliver an event of your own."""
        from epochal.core.events import EVENT_NAMES

        slot = self.engine.dispatcher.slot(event)
        if event in EVENT_NAMES:
            raise ArgumentError(f"{event!r} comes from the trainer; emit is for events made with run.declare")
        slot.fire(self)

    # -- for callbacks and integrations --------------------------------------------------------------------------

    def label(self, callback: Callback) -> str:
        """Return the name under which this run knows a callback: its own, with #2 ... if another has it too."""
        return self.roster.label(callback)

    def raise_after(self, error: BaseException) -> None:
        """Raise an error to who called the trainer, once it has ended as always and returned."""
        self.engine.parting.append(error)

    def check_attached(self, what: str) -> None:
        """Raise AttachError on a detached run."""
        if self.detached:
            raise AttachError(f"{what}: this run is detached and would never call it; attach again")

    def time_callbacks(self, on: bool = True) -> None:
        """Measure what each callback costs, for the summary at the end."""
        self.engine.dispatcher.time_calls(on)


def hand(run: Run, kind: str, values: Mapping[str, Any], boxes: Boxes = ()) -> None:
    """Hand something that is no number to whoever records it."""
    if run.engine.sinks:
        run.engine.publish(kind, values, boxes=boxes)
    else:
        check_heard(run)


def check_heard(run: Run) -> None:
    """Say once that what is logged now is not recorded, where no training runs."""
    engine = run.engine
    if engine.in_training or engine.in_validation or run.unheard:
        return
    run.unheard = True
    log().warning(
        "%s: what is logged before a training has started or after it has ended is not recorded; log it in"
        " on_train_start or later, in a Loop below run.epochs(...) and inside its `with`",
        run.name,
    )
