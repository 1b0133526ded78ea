"""A training without any framework: callbacks are run through the numbers you give."""

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from epochal.checkpointing.memory import MemoryStore
from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.events import EVENT_NAMES
from epochal.core.fitness import FitnessSpec
from epochal.core.rollback import roll_back
from epochal.core.run import ALL_CAPABILITIES, Run
from epochal.integrations.asked import as_asked, is_asked
from epochal.runs.folder import RunFolder

PROVIDES = ALL_CAPABILITIES | frozenset(EVENT_NAMES)


class Simulation(NamedTuple):
    """What callbacks made of a simulated training.

    ``lrs`` holds the rate after each epoch's last event (a tuple per epoch if ``lr`` is one); ``saved`` and ``kept``
    the epochs of all checkpoints and of those that retention left; ``restored`` the epoch whose weights were loaded
    back, or None; ``events`` the trace; ``run`` the run itself.
    """

    epochs_run: int
    stop_reason: str | None
    end_reason: str | None
    lrs: list[Any]
    saved: list[int]
    kept: list[int]
    restored: int | None
    events: list[str]
    run: Run


class RecordEvents(Callback):
    """Writes down the name of every event of the grammar, in the order in which they come.

    >>> record = RecordEvents()
    >>> _ = simulate([record], [{"val/loss": 1.0}])
    >>> record.events[0], record.events[-1]
    ('on_train_start', 'teardown')
    """

    def __init__(self) -> None:
        self.events: list[str] = []


def _recorder(event: str) -> Any:
    def record(self: RecordEvents, run: Run) -> None:
        self.events.append(event)

    record.__name__, record.__doc__ = event, f"Write {event} down."
    return record


for _event in EVENT_NAMES:
    setattr(RecordEvents, _event, _recorder(_event))


class _Model:
    """Stands for a model: its weights are the epoch that made them."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.restored: int | None = None


class _Rates:
    """Stands for an optimizer without a schedule."""

    def __init__(self, lr: float | Sequence[float]) -> None:
        values = list(lr) if isinstance(lr, Sequence) else [lr]
        self.own = {f"pg{index}": float(value) for index, value in enumerate(values)}

    def groups(self) -> dict[str, float]:
        return dict(self.own)

    def take_over(self) -> None:
        pass


class Simulator:
    """Drives one simulated training; ``simulate`` is the way to use it."""

    def __init__(
        self, callbacks: Sequence[Callback], lr: float | Sequence[float], folder: RunFolder, fitness: FitnessSpec
    ) -> None:
        self.run = Run(host="simulate", provides=PROVIDES, folder=folder, fitness=fitness)
        self.engine = self.run.engine
        self.model, self.many = _Model(), isinstance(lr, Sequence)
        self.engine.rate_host = _Rates(lr)
        self.run.checkpoint_store = store = MemoryStore()
        self.engine.saver = RunSaver(self.run, store, self.parts, resumes="epoch")
        self.engine.restorer = self.engine.rewind = self.restore
        self.saved: list[int] = []
        self.lrs: list[Any] = []
        self.record = RecordEvents()
        for callback in callbacks:
            self.run.add(callback)
        self.run.add(self.record)

    def parts(self) -> dict[str, Any]:
        """Return the model's state, and write down that it was asked for."""
        self.saved.append(self.engine.epoch)
        return {"model": {"epoch": self.model.epoch}}

    def restore(self, saved: Any) -> None:
        """Load the model from a checkpoint."""
        self.model.epoch = self.model.restored = saved.load("model")["epoch"]

    def train(self, epochs: Sequence[Mapping[str, Any]], batches: int, state: Mapping[str, Any] | None) -> None:
        """Run one training, all epochs that are left."""
        engine = self.engine
        lifetime.begin(self.run, model=self.model, trainer=self, saved=state)
        try:
            if state is not None:
                engine.fire("on_resume")
            engine.train_start(len(epochs), batches)
            while engine.next_epoch < len(epochs) and not engine.requests.stops:
                self.epoch(engine.next_epoch, epochs[engine.next_epoch], batches)
            engine.train_end()
        except BaseException as error:
            lifetime.finish(self.run, error)
            raise
        lifetime.finish(self.run)
        lifetime.returned(self.run)

    def epoch(self, epoch: int, logged: Mapping[str, Any], batches: int) -> None:
        """Run one epoch: batches without data, then a validation that logs what is not ``train/...``.

        A rollback gives it up: it begins again, without the batches to skip; without any it logs no ``train/...``.
        """
        engine, run = self.engine, self.run
        train = {name: value for name, value in logged.items() if name.startswith("train/")}
        engine.epoch_start(epoch, batches)
        wanted = [batch for batch in range(batches) if not engine.rollbacks.skips(epoch, batch)]
        for batch in wanted:
            engine.batch_start(batch)
            self.model.epoch = epoch
            engine.stepped()
            engine.batch_end()
            if roll_back(engine):
                return
            while is_asked(engine):
                with as_asked(engine):
                    self.validate(logged)
            if engine.stop_now():
                engine.epoch_cut = batch + 1 < batches
                break
        run.log(train if wanted else {})
        engine.train_epoch_end()
        self.validate(logged)
        if roll_back(engine):
            return
        engine.epoch_end()
        if roll_back(engine):
            return
        rates = tuple(run.lr.values())
        self.lrs.append(rates if self.many else rates[0])

    def validate(self, logged: Mapping[str, Any]) -> None:
        """Run a validation, which logs what is not ``train/...``."""
        self.engine.val_start(0)
        self.run.log({name: value for name, value in logged.items() if not name.startswith("train/")})
        self.engine.val_end()


@contextmanager
def _folder(directory: str | Path | None) -> Generator[RunFolder, None, None]:
    if directory is not None:
        yield RunFolder(directory, "simulate")
        return
    with tempfile.TemporaryDirectory(prefix="epochal-") as made:
        yield RunFolder(made, "simulate")


def check_lists(callbacks: object, epochs: object) -> None:
    """Raise ``ArgumentError`` unless there is a list of callbacks, and a list of what each epoch logs.

    >>> check_lists([], {"val/loss": [0.5, 0.4]})
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: simulate: epochs is a list with a mapping for each epoch, such as [{"val/loss"...
    """
    if isinstance(callbacks, Callback):
        raise ArgumentError(f"simulate: callbacks is a list, such as [{callbacks.name}]")
    listed = cast("Sequence[object]", epochs) if isinstance(epochs, Sequence) else None
    if listed is None or not all(isinstance(one, Mapping) for one in listed):
        example = '[{"val/loss": 0.5}, {"val/loss": 0.4}]'
        raise ArgumentError(
            f"simulate: epochs is a list with a mapping for each epoch, such as {example}, not {epochs!r}"
        )


def simulate(
    callbacks: Sequence[Callback],
    epochs: Sequence[Mapping[str, Any]],
    lr: float | Sequence[float] = 0.1,
    batches: int = 1,
    *,
    fitness: FitnessSpec = None,
    dir: str | Path | None = None,  # noqa: A002  # the contract's name
    state: Mapping[str, Any] | None = None,
) -> Simulation:
    """Run callbacks through a training without any framework and return what they made of it.

    ``epochs`` is a list of mappings: what is logged at the end of each epoch; left out means not logged, nan and inf
    are allowed. ``lr`` is a number, or several for several parameter groups; ``batches`` is per epoch. ``state`` goes
    on from what a checkpoint of an earlier simulation holds ("run" and "callbacks"). ``dir`` is where callbacks may
    write; without it that place is gone afterwards.

    >>> from epochal import EarlyStopping
    >>> result = simulate([EarlyStopping("val/loss", patience=2)], [{"val/loss": x} for x in (3, 2, 2, 2, 1)])
    >>> result.epochs_run, result.end_reason
    (4, 'stopped')
    """
    if batches < 1:
        raise ArgumentError(f"batches must be >= 1, not {batches}")
    check_lists(callbacks, epochs)
    with _folder(dir) as folder:
        simulator = Simulator(callbacks, lr, folder, fitness)
        simulator.train(epochs, batches, state)
    run = simulator.run
    return Simulation(
        epochs_run=len(simulator.lrs),
        stop_reason=run.stop_reason,
        end_reason=run.end_reason,
        lrs=simulator.lrs,
        saved=simulator.saved,
        kept=[saved.manifest.epoch for saved in run.checkpoints],
        restored=simulator.model.restored,
        events=list(simulator.record.events),
        run=run,
    )
