"""One ``fit`` of Keras: its moments become a run's, the run's requests its switches."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from epochal.checkpointing.saver import RunSaver
from epochal.core.callback import Callback
from epochal.core.errors import AttachError
from epochal.core.events import BATCH_EVENTS
from epochal.core.log import log
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.integrations.entry import Place, begin, wrap
from epochal.integrations.keras_asked import Asked
from epochal.integrations.keras_means import aliases, compiled_names, is_number, under
from epochal.integrations.keras_moments import moments_of
from epochal.integrations.keras_rates import ModelRates, optimizers_of
from epochal.integrations.keras_state import KerasState
from epochal.integrations.keras_steps import Steps
from epochal.integrations.pytorch_resume import reload_states, tell_resumed
from epochal.runs.folder import RunFolder
from epochal.runs.resume import ResumePoint

ADDED = ("learning_rate", "lr")  # by native callbacks, to the logs of an epoch


class Training:
    """What a run sees of one ``fit``.

    ``train_function`` and ``test_function`` are wrapped on the model until its end: they show batches without making
    Keras wait for the device; the other moments come from a callback of Keras' own kind.
    """

    def __init__(self, run: Run, model: Any, arguments: dict[str, Any]) -> None:
        self.run, self.model, self.arguments = run, model, arguments
        self.engine = run.engine
        self.in_batches = [self.engine.slot(event) for event in BATCH_EVENTS]  # who hears them may read values there
        self.undo: list[Callable[[], None]] = []
        self.steps: Steps | None = None
        self.rates: ModelRates | None = None
        self.do_step: Callable[[Any], Any] = model.train_function  # Keras' own
        self.leave_batches: Callable[[], None] = lambda: None
        self.leave_validation: Callable[[], None] = lambda: None
        self.named = False  # the names of what is measured are known
        self.state = KerasState(model)
        self.data, self.means = self.state.data, self.state.means
        self.point: ResumePoint | None = None
        self.asked = Asked(self)
        self.engine.cannot_validate = self.asked.cannot_validate
        self.watching = False
        self.batch = self.val_batch = 0  # the one that comes next

    # -- setting up -----------------------------------------------------------------------------------------------

    def fit(self, original: Callable[..., Any], place: Place, resume_point: Callable[[], ResumePoint | None]) -> Any:
        """Train, watched, from the beginning or from where a checkpoint ends."""
        run, engine, model = self.run, self.engine, self.model
        self.point = point = resume_point()
        folder = RunFolder(place.parent, place.name) if point is None else point.folder
        optimizer = getattr(model, "optimizer", None)
        saver = begin(run, folder, point, self.parts, resumes="epoch", trainer=model, model=model, optimizer=optimizer)
        saver.optimizers = list  # no optimizer of torch's own changes what is saved
        self.accept(compiled_names(model))
        if optimizer is not None:
            engine.rate_host = self.rates = ModelRates(engine, model, self.rebuild)
            self.undo.append(self.rates.remove)
        self.undo.append(self.state.watch())
        self.arguments["callbacks"] = self.joined(self.arguments.get("callbacks"))
        if point is not None:
            self.state.prepare(point.saved)
            self.data.arrived = partial(tell_resumed, point.saved, engine, self.data)
            self.arguments["initial_epoch"] = engine.next_epoch
        return original(**self.arguments)

    def joined(self, natives: Any) -> Any:
        """Return the user's callbacks of Keras' kind, ours behind them, in the form in which they were given."""
        import keras

        moments = moments_of(self)
        if not isinstance(natives, keras.callbacks.CallbackList):
            given = keras.tree.flatten(natives) if natives else []
            for one in given:
                if isinstance(one, Callback):
                    raise AttachError(
                        f"{one.name} is Epochal's: give it to attach(model, ...), not to fit(callbacks=...)"
                    )
            return [*given, moments]
        self.join_list(natives, moments)
        return natives

    def join_list(self, natives: Any, moments: Any) -> None:
        """Stand in a list of callbacks that is the user's own object, until the end."""
        natives.callbacks.append(moments)
        moments.set_model(self.model)
        moments.set_params(getattr(natives, "params", None) or {"epochs": self.arguments.get("epochs", 1)})
        self.undo.append(lambda: natives.callbacks.remove(moments))

    def parts(self) -> dict[str, Any]:
        """Return the state of everything that Keras has, as of now."""
        return self.state.parts(inside=self.engine.in_epoch)

    def accept(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        """Accept Keras' names of metrics beside ours."""
        metrics, known = self.engine.metrics, aliases(dict.fromkeys(names))
        self.engine.aliases.update(known)
        metrics.aliases.update(self.engine.aliases)
        for native in known.keys() & metrics.watched.keys():  # by a condition, before anybody knew it
            for name in metrics.watched.pop(native):
                metrics.watch(name)

    def rebuild(self) -> None:
        """Have the training function compiled anew, with the wrapper that was around it."""
        self.model.train_function = None  # which the next fit makes
        if self.watching:
            self.model.make_train_function()
            self.watch_batches()

    def leave(self) -> None:
        """Leave the model as it was."""
        self.leave_validation()
        self.leave_batches()
        self.watching = False
        while self.undo:
            self.undo.pop()()
        self.arguments = {}  # the data may be large, and a run stays

    # -- Keras' moments -------------------------------------------------------------------------------------------

    def train_begin(self, epochs: int | None) -> None:
        """Keras has set itself up: model, data and optimizer stand, or are built in the first batch."""
        engine, model = self.engine, self.model
        if self.point is not None:
            self.state.restore()
            model._initial_epoch = None  # of Keras' BackupAndRestore
        self.steps = Steps(engine, model)
        self.undo.append(self.steps.remove)
        self.watch_batches()
        if self.point is not None:
            engine.fire("on_resume")
            if epochs is not None and engine.next_epoch >= epochs:
                log().warning("nothing is left to train: %d of %d epochs were done.", engine.next_epoch, epochs)
        if engine.rates.active:
            engine.take_over_rates()
        data, split = map(self.arguments.get, ("validation_data", "validation_split"))
        engine.metrics.validation_comes = data is not None or bool(split)
        engine.train_start(epochs, self.data.num_batches)
        self.state.begin_epochs()

    def epoch_begin(self, epoch: int) -> None:
        """An epoch begins; Keras has reset its metrics."""
        engine, saved = self.engine, self.data.saved
        self.batch = 0 if saved is None else saved["done"]
        self.means.begin_epoch()
        inside = self.state.go_inside()
        engine.next_epoch = epoch
        engine.epoch_start(epoch, self.data.num_batches)
        if inside and self.point is not None:
            reload_states(self.run.roster, self.point.saved.load("callbacks"))

    def test_begin(self) -> None:
        """The epoch's validation begins, and with that its batches are done; or one that was asked for in it."""
        if not self.engine.asked:
            self.end_batches()
        self.val_batch = 0
        self.leave_validation = wrap(self.model, "test_function", self.showing_val_batch)
        iterator = None if self.engine.asked else getattr(self.model, "_eval_epoch_iterator", None)
        self.engine.val_start(getattr(iterator, "num_batches", None))

    def test_end(self, logs: Mapping[str, Any]) -> None:
        """The epoch's validation is done."""
        self.leave_validation()
        logs = self.means.numbers(logs)
        self.accept(logs)
        self.engine.log(under("val", logs))
        self.engine.val_end()
        self.take_stop()

    def epoch_end(self, logs: Mapping[str, Any]) -> None:
        """The epoch is done."""
        engine = self.engine
        if not engine.batches_done:
            self.end_batches()
        self.log_added(logs)
        self.note_native_stop()
        engine.epoch_end()
        self.take_stop()

    # -- batches --------------------------------------------------------------------------------------------------

    def watch_batches(self) -> None:
        """See each call of the training function."""
        self.watching = True
        self.leave_batches()
        self.leave_batches = wrap(self.model, "train_function", self.showing_batch)

    def showing_batch(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Begin a batch, or as many as Keras does in one go, do the step, end it."""
        self.do_step = original

        def train_function(data: Any) -> Any:
            known = self.data.num_batches is not None or isinstance(data, list)
            if known:
                self.start_batch(data)
            self.means.begin_batch()
            with self.rates.in_place() if self.rates is not None else nullcontext():
                logs = self.do_step(data)  # a rate that was set a moment ago may have had it compiled anew
            if not known:  # a data set that ends here did so in the line before: there was no batch
                self.start_batch(data)
            self.end_batch(logs)
            return logs

        return train_function

    def start_batch(self, data: Any) -> None:
        """A batch begins; only torch shows its data."""
        self.engine.batch_start(self.batch, shown(data))

    def end_batch(self, logs: Mapping[str, Any]) -> None:
        """A batch is done; a stop is taken here unless its accumulation group goes on."""
        engine, steps = self.engine, self.steps
        assert steps is not None
        size = steps.ended(self.batch, self.data.num_batches)
        self.batch += size
        self.data.done = self.batch
        exact = bool(engine.sinks or engine.metrics.watched or any(slot.calls for slot in self.in_batches))
        values = self.means.own(logs, size, exact=exact)
        if not self.named:
            self.named = True
            self.accept(values)
        engine.log(under("train", values))
        self.note_resumable()
        engine.batch_end(steps.take_outputs())
        if engine.requests.validations:
            self.asked.validate()
        if engine.stop_now():
            self.model.stop_training = True

    def note_resumable(self) -> None:
        """Say whether a training can go on from here: not from an epoch's last batch, behind which none comes."""
        saver, planned = self.engine.saver, self.data.num_batches
        if isinstance(saver, RunSaver):
            more = planned is None or self.batch < planned
            saver.resumes = "batch" if more and self.data.inside else "epoch"

    def showing_val_batch(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Begin and end a batch of the validation."""

        def test_function(data: Any) -> Any:
            engine, known = self.engine, self.engine.num_val_batches is not None or isinstance(data, list)
            if known:
                engine.val_batch_start(self.val_batch, shown(data))
            logs = original(data)
            if not known:
                engine.val_batch_start(self.val_batch, shown(data))
            assert self.steps is not None
            self.val_batch += self.steps.per_call
            engine.val_batch_end(self.steps.take_outputs())
            return logs

        return test_function

    def end_batches(self) -> None:
        """The batches of an epoch are done; what Keras has averaged over them, by samples, is its value."""
        engine = self.engine
        if engine.in_batch:  # the data ended in it
            engine.batch_end()
        engine.epoch_cut = self.data.cut(self.batch)
        if self.means.logs:
            self.accept(self.means.logs)
            values = under("train", self.means.averaged())
            engine.log(values)
            engine.metrics.averaged(values)
        if self.steps is not None:
            self.steps.end_epoch()
        engine.log({f"lr/{group}": rate for group, rate in self.run.lr.items()})
        engine.train_epoch_end()
        self.take_stop()

    # -- the end --------------------------------------------------------------------------------------------------

    def train_end(self) -> None:
        """Keras is through; an optimizer may have put averages in the weights' place: none goes on there."""
        saver = self.engine.saver
        if isinstance(saver, RunSaver) and any(
            getattr(one, "use_ema", False) for one in optimizers_of(self.model).values()
        ):
            saver.resumes = "no"
        self.engine.train_end()

    def log_added(self, logs: Mapping[str, Any]) -> None:
        """Log what native callbacks have added to the logs of an epoch."""
        known = self.engine.metrics.aliases
        added = {name: value for name, value in logs.items() if name not in known and name not in ADDED}
        self.accept([name.removeprefix("val_") for name in added if name.startswith("val_")])
        self.engine.log({name: value for name, value in added.items() if is_number(value)})

    def take_stop(self) -> None:
        """Hand a stop that was asked for to Keras."""
        if self.engine.requests.stops:
            self.model.stop_training = True

    def note_native_stop(self) -> None:
        """Write down a stop that came from a native callback, as Keras' own EarlyStopping."""
        stops, last = self.engine.requests.stops, self.engine.num_epochs
        if self.model.stop_training and not stops and (last is None or self.engine.epoch + 1 < last):
            stops.append(StopRequest("a native callback set model.stop_training", "Keras"))


def by_name(model: Any, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``fit`` by their names: Keras', or those of a ``fit`` of one's own."""
    import keras

    names = positional(type(model).fit)
    if len(names) < len(args):  # it passes them on
        names = positional(keras.Model.fit)
    return {**dict(zip(names, args, strict=False)), **options}


def positional(method: Callable[..., Any]) -> list[str]:
    """Return the names of what a method takes by position, without the first."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [name for name, one in inspect.signature(method).parameters.items() if one.kind in kinds][1:]


def shown(data: Any) -> Any:
    """Return the batch that a training function was given, several as a list; None for an iterator of TensorFlow."""
    if not isinstance(data, list):
        return None
    return data[0] if len(data) == 1 else data
