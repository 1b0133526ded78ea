"""Plain PyTorch: the user keeps the loop, Epochal sees its epochs, batches, validations and steps."""

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.events import EVENT_NAMES
from epochal.core.fitness import FitnessSpec
from epochal.core.log import log
from epochal.core.run import Run
from epochal.integrations.pytorch_state import LoopState
from epochal.integrations.torch_optimizer import OptimizerHooks, SeveralOptimizers
from epochal.integrations.torch_outputs import OutputsHook

if TYPE_CHECKING:
    from epochal.runs.folder import RunFolder
    from epochal.runs.resume import ResumePoint

Batch = TypeVar("Batch")
NOT_DELIVERED = frozenset({"on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_epoch_abort"})
PROVIDES = (frozenset(EVENT_NAMES) - NOT_DELIVERED) | {
    "stop_in_batch", "save", "set_lr", "data", "outputs", "gradients", "accumulation", "weight_average",
}  # fmt: skip
OWNS = {
    "loss": "a Loop does not know your loss; give it: LearningRateFinder(loss=lambda model, batch: ..., data=loader)"
}


class LoopRun(Run):
    """The run of a plain loop: a ``Run`` with ``epochs``, ``batches`` and ``validation``."""

    def __init__(self, folder: "RunFolder", fitness: FitnessSpec, state: LoopState) -> None:
        super().__init__(host="Loop", provides=PROVIDES, owns=OWNS, folder=folder, fitness=fitness)
        self.loop_state = state
        self.stepless = not state.optimizers
        self.resumed_from: ResumePoint | None = None
        self.pending_random_state: dict[str, Any] | None = None
        self.announced = False
        self.left = False  # the user broke out of epochs(): the open epoch ends with whatever comes next
        self.iterating: object = None  # the generator of batches in whose body the user's code is
        self.trained = False
        self.batches_before = 0  # this epoch

    def epochs(self, n: int) -> Generator[int, None, None]:
        """Yield the epochs up to ``n`` that are left, from 0 or from where a resumed run goes on, until a stop.

        >>> from epochal import Loop
        >>> import torch
        >>> with Loop(model=torch.nn.Linear(1, 1)) as run:
        ...     print(list(run.epochs(3)))
        [0, 1, 2]
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
            if self.pending_random_state is not None:
                restore_random_state(self.pending_random_state)
                self.pending_random_state = None
            self.left = False
            engine.num_batches, self.iterating, self.batches_before = None, None, engine.batches
            engine.epoch_start(engine.next_epoch)
            try:
                yield engine.epoch
            except GeneratorExit:
                self.left = True
                raise
            self.close_epoch()

    def batches(self, loader: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yield a loader's batches, each between its start and end events; inside ``validation()`` a validation's.

        A stop that was asked for ends it after the batch, or after the optimizer step of a running accumulation group.
        """
        engine = self.engine
        if engine.in_validation:
            yield from self.validation_batches(loader)
            return
        if not engine.in_epoch or self.left:
            raise AttachError("run.batches(loader) outside an epoch: write it inside `for epoch in run.epochs(n):`")
        if engine.batches_done:
            raise AttachError(
                "run.batches(loader) after this epoch's validation: the batches of an epoch come before it;"
                " to validate in the middle, enter run.validation() inside the batch body"
            )
        self.close_batch()
        first = number = engine.batches - self.batches_before
        if number and engine.stop_now():  # taken in an earlier call of this epoch
            engine.epoch_cut = True
            return
        engine.num_batches = length = (number + count) if (count := length_of(loader)) is not None else None
        me, requests = object(), engine.requests
        self.iterating = me
        try:
            for data in loader:
                engine.batch_start(number, data)
                yield data
                self.close_batch()
                if requests.stops and engine.stop_now():
                    engine.epoch_cut = length is None or number + 1 < length
                    break
                number += 1
            if number == first:
                log().warning(
                    "epoch %d has no batch: the loader is empty, or a generator that was used up; nothing was trained.",
                    engine.epoch,
                )
        finally:
            if self.iterating is me:  # one of an earlier epoch, held by somebody, may be closed late
                self.iterating = None

    def validation_batches(self, loader: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yield the batches of a validation."""
        engine = self.engine
        engine.num_val_batches = length_of(loader)
        for number, data in enumerate(loader):
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
            self.engine.train_start(n)
        self.engine.num_epochs = n

    def close_batch(self) -> None:
        """End the open batch, if there is one."""
        engine = self.engine
        if engine.in_batch:
            if self.stepless:
                engine.step += 1
                engine.groups.since_step = 0
            engine.batch_end(engine.outputs)

    def close_epoch(self) -> None:
        """End the open epoch, if there is one."""
        engine = self.engine
        if not engine.in_epoch:
            return
        self.close_batch()
        if not engine.batches_done:
            engine.train_epoch_end()
        self.left = False
        engine.epoch_end()


class Loop:
    """A training whose loop is yours: ``with Loop(...) as run`` gives a run with epochs, batches and validation.

    >>> import torch
    >>> net = torch.nn.Linear(1, 1)
    >>> with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1)) as run:
    ...     for epoch in run.epochs(2):
    ...         for x in run.batches([torch.ones(1), torch.zeros(1)]):
    ...             run.optimizer.zero_grad()
    ...             loss = (net(x) - 1).square().mean()
    ...             loss.backward()
    ...             run.optimizer.step()
    ...             run.log({"train/loss": loss})
    >>> run.step, len(run.history), run.end_reason
    (4, 2, 'completed')

    ``optimizer`` may be a list: the first is ``run.optimizer`` and counts ``step``, the groups of the others are called
    ``optimizer1/pg0`` ...; without one ``step`` counts batches. ``state`` maps a name to anything with ``state_dict``
    and ``load_state_dict`` that a checkpoint must hold.
    ``resume=True`` goes on from the newest checkpoint of the newest run of this name, ``resume=path`` from that run or
    checkpoint; both restore everything given here, the random generators and the callbacks.
    """

    def __init__(
        self,
        *,
        model: Any,
        optimizer: Any = None,
        scheduler: Any = None,
        scaler: Any = None,
        ema: Any = None,
        callbacks: Sequence[Callback] = (),
        state: Mapping[str, Any] | None = None,
        fitness: FitnessSpec = None,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002  # the contract's name
        name: str | None = None,
        resume: bool | str | os.PathLike[str] = False,
    ) -> None:
        from epochal.runs.folder import RunFolder
        from epochal.runs.resume import find_resume_point

        if isinstance(callbacks, Callback):
            raise ArgumentError(f"callbacks={callbacks!r} is one callback; give a list, callbacks=[...]")
        self.state = LoopState(model, optimizer, scheduler, scaler, ema, state)
        parent = dir if dir is not None else "runs"
        self.point = find_resume_point(parent, name, resume)
        self.folder = self.point.folder if self.point is not None else RunFolder(parent, name)
        self.run = LoopRun(self.folder, fitness, self.state)
        self.use_folder()
        self.hooks: list[OptimizerHooks | OutputsHook] = []
        self.used = False
        for callback in callbacks:
            self.run.add(callback)

    def __getattr__(self, name: str) -> Any:
        """Say how a Loop is used, to who asks it for what its run has."""
        hint = f"; write `with Loop(...) as run:`, then run.{name}" if hasattr(LoopRun, name) else ""
        raise AttributeError(f"a Loop has no {name!r}{hint}")

    def use_folder(self) -> None:
        """Let the run's checkpoints go into its folder."""
        # The store of checkpoints is a third of what importing Loop would cost.
        from epochal.checkpointing.layout import FOLDER
        from epochal.checkpointing.store import CheckpointStore

        self.store = self.point.store if self.point is not None else CheckpointStore(self.folder.path / FOLDER)
        self.run.checkpoint_store = self.store
        self.run.engine.saver = RunSaver(self.run, self.store, self.parts, resumes="epoch")

    def parts(self) -> dict[str, Any]:
        """Return the state of everything that was given to the loop, and of the random generators."""
        return {**self.state.parts(), "rng": random_state()}

    def __enter__(self) -> LoopRun:
        """Begin: hooks are set, callbacks have their state, and a resumed run stands where it was."""
        if self.used:
            raise AttachError("a Loop is for one training; make another Loop for the next")
        self.used = True
        engine, run = self.run.engine, self.run
        if self.point is None and self.folder.choose():  # another run took the name since
            self.use_folder()
        saved: dict[str, Any] | None = None
        if self.point is not None:
            saved = {part: self.point.saved.load(part) for part in ("run", "callbacks")}
            self.state.restore(self.point.saved)
            self.store.protect(self.point.saved.manifest.name)
            if self.point.chosen:
                self.store.go_on_from(self.point.saved.manifest.name)
            run.resumed_from, run.pending_random_state = self.point, self.point.saved.load("rng")
        optimizers = [
            OptimizerHooks(engine, one, counts=not index, prefix=f"optimizer{index}/" if index else "")
            for index, one in enumerate(self.state.optimizers)
        ]
        self.hooks = [*optimizers]
        engine.rate_host = SeveralOptimizers(optimizers) if optimizers else None
        engine.rank, engine.world_size = rank_and_world_size()
        if any("outputs" in callback.requires for callback in run.roster.callbacks.values()):
            self.hooks.append(OutputsHook(engine, self.state.model))
        try:
            optimizer = self.state.optimizers[0] if self.state.optimizers else None
            lifetime.begin(run, model=self.state.model, optimizer=optimizer, trainer=self, saved=saved)
        except BaseException:
            self.remove_hooks()
            raise
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End: whatever is open is closed, then ``on_train_end`` or ``on_exception``, then ``teardown``."""
        run = self.run
        try:
            if error is None:
                try:
                    run.close_epoch()
                    if not run.trained:
                        run.start(None)
                    run.engine.train_end()
                except BaseException as failed:
                    lifetime.finish(run, failed)
                    raise
            lifetime.finish(run, error)
        finally:
            self.remove_hooks()
        if error is None:
            lifetime.returned(run)

    def remove_hooks(self) -> None:
        """Leave the optimizers and the model as they were."""
        for hooks in self.hooks:
            hooks.remove()


def length_of(loader: Any) -> int | None:
    """Return how many batches a loader has, or None if it does not say.

    >>> length_of([1, 2]), length_of(iter([1, 2]))
    (2, None)
    """
    try:
        return len(loader)
    except TypeError:
        return None


def rank_and_world_size() -> tuple[int, int]:
    """Return this process' rank and the number of processes."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
