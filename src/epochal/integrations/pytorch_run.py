"""The run of a plain loop: the user's generators, and what they tell the engine."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from epochal.core import lifetime
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.events import EVENT_NAMES
from epochal.core.fitness import FitnessSpec
from epochal.core.log import log
from epochal.core.moment import Moment
from epochal.core.requests import SaveRequest
from epochal.core.rollback import roll_back
from epochal.core.run import Run
from epochal.core.saving import save
from epochal.data.order import length_of, order_of, order_text
from epochal.data.position import Position, Reading
from epochal.integrations.asked import as_asked, is_asked
from epochal.integrations.pytorch_batches import Batches
from epochal.integrations.pytorch_modes import as_it_is
from epochal.integrations.pytorch_resume import reload_states, tell_resumed

if TYPE_CHECKING:
    from epochal.integrations.pytorch_state import LoopState
    from epochal.runs.folder import RunFolder
    from epochal.runs.resume import ResumePoint

Batch = TypeVar("Batch")
NOT_DELIVERED = frozenset({"on_pretrain_routine_start", "on_pretrain_routine_end"})
PROVIDES = (frozenset(EVENT_NAMES) - NOT_DELIVERED) | {
    "stop_in_batch", "save", "set_lr", "data", "outputs", "gradients", "accumulation", "weight_average", "rollback",
    "pause", "validate",
}  # fmt: skip
OWNS = {
    "loss": "a Loop does not know your loss; give it: LearningRateFinder(loss=lambda model, batch: ..., data=loader)"
}

UNKNOWN = "a Loop does not know how you validate; tell it with @run.validator above a function of the run"


class LoopRun(Run):
    """The run of a plain loop: a ``Run`` with ``epochs``, ``batches`` and ``validation``."""

    def __init__(self, folder: "RunFolder", fitness: FitnessSpec, state: "LoopState") -> None:
        super().__init__(host="Loop", provides=PROVIDES, owns=OWNS, folder=folder, fitness=fitness)
        self.loop_state = state
        self.stepless = not state.optimizers
        self.position = Position()
        self.resumed_from: ResumePoint | None = None
        self.saved_states: Mapping[str, Any] = {}  # of the callbacks, where an epoch begins again
        self.saved_gradients: Callable[[], None] | None = None  # puts those of a checkpoint back
        self.announced = self.told = False
        self.left = False  # the user broke out of epochs(): the open epoch ends with whatever comes next
        self.iterating: object = None  # the generator of batches in whose body the user's code is
        self.trained = False
        self.validated_loaders = 0  # in this validation
        self.validate_with: Callable[[LoopRun], Any] | None = None
        self.engine.cannot_validate = lambda: None if self.validate_with is not None else UNKNOWN

    def epochs(self, n: int) -> Generator[int, None, None]:
        """Yield the epochs up to ``n`` that are left, from 0 or from where a resumed run goes on, until a stop.

        >>> from epochal import Loop
        >>> import torch
        >>> with Loop(model=torch.nn.Linear(1, 1)) as run:
        ...     print(list(run.epochs(3)))
        [0, 1, 2]

        An epoch that was interrupted is yielded again, and its batches go on where they were.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"epochs(n): n is the number of epochs, an int >= 0, not {n!r}")
        self.check_open("run.epochs(n)")
        engine = self.engine
        if engine.in_epoch and not self.left:
            raise AttachError(f"run.epochs({n}) inside an epoch: one epoch ends before the next begins")
        self.close_epoch()
        self.start(n)
        if self.resumed_from is not None and engine.next_epoch >= n:
            log().warning(
                "nothing is left to train: %d of %d epochs were done when it was resumed.", engine.next_epoch, n
            )
        while engine.next_epoch < n and not engine.requests.stops:
            self.open_epoch()
            try:
                yield engine.epoch
            except GeneratorExit:
                self.left = True
                raise
            self.close_epoch(may_go_back=True)

    def batches(self, loader: Iterable[Batch]) -> Batches[Batch]:
        """Yield a loader's batches, each between its start and end events; inside ``validation()`` a validation's.

        A stop that was asked for ends it after the batch, or after the optimizer step of a running accumulation group.
        ``len()`` is how many batches come, where the loader says how many it has.
        """
        return Batches(lambda: self.deliver(loader), lambda: self.batches_left(loader))

    def deliver(self, loader: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Return what yields a training's or a validation's batches."""
        engine = self.engine
        if engine.in_validation:
            return self.validation_batches(loader)
        if not engine.in_epoch or self.left:
            raise AttachError("run.batches(loader) outside an epoch: write it inside `for epoch in run.epochs(n):`")
        if engine.batches_done:
            raise AttachError(
                "run.batches(loader) after this epoch's validation: the batches of an epoch come before it;"
                " to validate in the middle, enter run.validation() inside the batch body"
            )
        return self.training_batches(loader)

    def training_batches(self, loader: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yield the batches of a loader from where it stands; if the run goes back they begin again."""
        engine, requests, stepless = self.engine, self.engine.requests, self.stepless
        batch_start, batch_end = engine.batch_start, engine.batch_end
        self.close_batch()
        if self.position.readings and engine.stop_now():  # taken in an earlier call of this epoch
            engine.epoch_cut = True
            return
        back = True
        while back:
            back = False
            self.iterating = reading = self.read(loader)
            first, engine.saves_wait = reading.first, False
            try:
                for index, data in reading.batches:
                    batch_start(first + index, data)
                    yield data
                    reading.taken = index + 1
                    if engine.in_batch:
                        if stepless:
                            engine.step += 1
                        batch_end(engine.outputs)
                    else:  # a validation in the body had ended it
                        self.end_body()
                    if requests.validations:
                        self.validate_as_asked()
                    if requests.rollbacks and self.go_back():
                        back = True
                        break
                    if requests.stops and engine.stop_now():
                        self.cut(reading)
                        break
                else:
                    self.read_out(reading)
            finally:
                if self.iterating is reading:  # one of an earlier epoch, held by somebody, may be closed late
                    self.iterating = None
                    reading.end()

    def read_out(self, reading: Reading) -> None:
        """A loader gives no more batches; warn if it gave none."""
        reading.taken = reading.length or reading.taken  # the last may have been left out
        if not reading.taken:
            log().warning(
                "epoch %d has no batch: the loader is empty, or a generator that was used up; nothing was trained.",
                self.engine.epoch,
            )

    def read(self, loader: Any) -> Reading:
        """Come to where a loader is to be read from, and say so in a run that was resumed."""
        engine, position = self.engine, self.position
        skips = engine.rollbacks.skips if engine.epoch in engine.rollbacks.skipped else None
        reading = position.read(loader, skips)
        if reading.anew:
            engine.metrics.begin_epoch()
            self.saved_gradients = None
        self.put_gradients_back()
        engine.num_batches = None if reading.length is None else reading.first + reading.length
        if self.resumed_from is not None and not self.told:
            self.told = True
            tell_resumed(self.resumed_from.saved, engine, position)
        return reading

    def put_gradients_back(self) -> None:
        """Undo what code on the way to where a checkpoint was taken, as a ``zero_grad``, did to gradients that wait."""
        if self.saved_gradients is not None:
            self.saved_gradients()
            if self.position.saved is None and not self.position.left:  # there now
                self.saved_gradients = None

    def batches_left(self, loader: Any) -> int:
        """Return how many batches of a loader come; TypeError if it does not say."""
        return max(len(loader) - (0 if self.engine.in_validation else self.position.done_of(loader)), 0)

    def validation_batches(self, loader: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yield the batches of a validation."""
        engine = self.engine
        engine.num_val_batches = length_of(loader)
        sources = self.position.meet(f"val{self.validated_loaders} {order_text(order_of(loader))}", loader)
        self.validated_loaders += 1
        for number, data in sources.open(epoch=engine.epoch).batches:
            engine.val_batch_start(number, data)
            yield data
            if engine.in_val_batch:
                engine.val_batch_end(engine.outputs)

    @contextmanager
    def validation(self) -> Generator[None, None, None]:
        """Be a validation: what is logged inside settles at its end; in a batch's body it ends that batch first."""
        self.check_open("run.validation()")
        engine = self.engine
        if engine.in_validation:
            raise AttachError("run.validation() inside a validation: one ends before the next begins")
        if self.left:
            self.close_epoch()
        self.announce()
        if engine.in_epoch:
            self.close_batch()
            if self.iterating is None and not engine.batches_done:
                engine.train_epoch_end()
        self.validated_loaders = 0
        engine.val_start()
        depth = engine.scopes.index("validation")
        try:
            yield
        except BaseException as error:  # the user's code may catch it and go on
            for further in lifetime.close_failed(engine, depth):
                error.add_note(f"while the validation was ending: {further!r}")
            engine.in_validation = engine.in_val_batch = False
            engine.data = engine.outputs = None
            engine.metrics.forget_validation()
            raise
        if engine.in_val_batch:
            engine.val_batch_end(engine.outputs)
        engine.val_end()

    def validator(self, function: Callable[["LoopRun"], Any]) -> Callable[["LoopRun"], Any]:
        """Say how this training is validated, so that ``run.validate()`` and `epochal validate` can ask for it.

        >>> from epochal import Loop
        >>> import torch
        >>> with Loop(model=torch.nn.Linear(1, 1)) as run:
        ...     @run.validator
        ...     def evaluate(run):
        ...         run.log({"val/loss": 0.5})
        ...     for epoch in run.epochs(1):
        ...         for x in run.batches([0, 1]):
        ...             run.validate()
        ...         with run.validation():
        ...             evaluate(run)
        >>> run.metrics["val/loss"]
        0.5

        It is called inside ``run.validation()``, and may iterate over ``run.batches(held_out)`` there. The modes of the
        model's modules (``train``, ``eval``) are put back behind it; an error in it is told and the training goes on.
        """
        self.validate_with = function
        return function

    def validate_as_asked(self) -> None:
        """Validate between two batches, as long as somebody asks for it."""
        engine = self.engine
        while self.validate_with is not None and is_asked(engine):
            with as_asked(engine), as_it_is(engine.model):
                try:
                    with self.validation():
                        self.validate_with(self)
                except Exception as error:
                    log().exception("a validation that was asked for failed; the training goes on.")
                    engine.validated(error)

    def check_open(self, what: str) -> None:
        """Raise AttachError outside the ``with`` block."""
        if not self.engine.active:
            raise AttachError(f"{what} works inside `with Loop(...) as run:` only")

    def announce(self) -> None:
        """Say, once, that the training goes on from a checkpoint."""
        if not self.announced:
            self.announced = True
            if self.resumed_from is not None:
                self.engine.fire("on_resume")

    def start(self, n: int | None) -> None:
        """Begin the training, once; a further ``epochs(n)`` only plans more."""
        self.announce()
        if not self.trained:
            self.trained = True
            self.put_gradients_back()
            self.engine.train_start(n)
        self.engine.num_epochs = n

    def open_epoch(self) -> None:
        """Begin an epoch, or begin one again where its checkpoint was taken."""
        engine = self.engine
        self.left, self.iterating, engine.num_batches = False, None, None
        self.position.begin_epoch(engine.next_epoch)
        self.put_gradients_back()
        engine.epoch_start(engine.next_epoch)
        if self.position.left:
            reload_states(self.roster, self.saved_states)
        self.saved_states = {}

    def close_batch(self) -> None:
        """End the batch that a validation in its body, or a ``break``, left open: saves wait, code may follow."""
        engine = self.engine
        if engine.in_batch:
            engine.saves_wait = True
            if self.stepless:
                engine.step += 1
            engine.batch_end(engine.outputs)

    def end_body(self) -> None:
        """The body of a batch has ended, which a validation in it had closed: saves may be taken."""
        if self.engine.saves_wait:
            self.engine.saves_wait = False
            self.take_saves()

    def take_saves(self) -> None:
        """Take the saves that waited for the end of the body."""
        engine = self.engine
        if engine.requests.saves and not engine.requests.rollbacks and engine.world_size == 1:
            save(engine, Moment("batch", engine.epoch, engine.batch, engine.step))

    def cut(self, reading: Reading) -> None:
        """Cut the epoch off after this batch; a run that keeps checkpoints keeps one from which it can go on here."""
        engine = self.engine
        if reading.length is not None and reading.taken >= reading.length:
            return
        saver = engine.saver
        if saver is not None and saver.captured_at != engine.batches:
            request = saver.last_request(f"stopped: {self.stop_reason}")
            if request is not None:
                engine.requests.add_save(request)
                self.take_saves()
        engine.epoch_cut = True

    def go_back(self) -> bool:
        """Serve a rollback after a batch; the epoch begins again."""
        if len(self.position.readings) > 1:
            for request in self.engine.requests.take_rollbacks():
                log().warning(
                    "%s: a rollback (%s) is not possible in the second run.batches(...) of an epoch: your code between"
                    " the two cannot be gone back over.", request.by, request.reason,
                )  # fmt: skip
            return False
        asked = list(self.engine.requests.rollbacks)
        if not roll_back(self.engine):
            return False
        for one in asked:  # killed before the next checkpoint it must leave out the same
            self.engine.requests.add_save(SaveRequest(f"went back: {one.reason}", one.by))
        self.open_epoch()
        return True

    def close_epoch(self, *, may_go_back: bool = False) -> None:
        """End the open epoch, if there is one, or give it up where a rollback was asked for."""
        engine = self.engine
        if not engine.in_epoch:
            return
        self.close_batch()
        if not engine.batches_done:
            engine.train_epoch_end()
        self.left = False
        if may_go_back and roll_back(engine):
            return
        engine.epoch_end()
        if may_go_back:
            roll_back(engine)
