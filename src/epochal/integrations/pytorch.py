"""Plain PyTorch: the user keeps the loop, Epochal sees its epochs, batches, validations and steps."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from epochal.checkpointing.capture import random_state
from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.fitness import FitnessSpec
from epochal.distributed.agree import highest
from epochal.integrations.pytorch_gradients import Gradients
from epochal.integrations.pytorch_run import LoopRun
from epochal.integrations.pytorch_state import LoopState
from epochal.integrations.torch_optimizer import OptimizerHooks, SeveralOptimizers
from epochal.integrations.torch_outputs import OutputsHook
from epochal.integrations.untested import warn_if_untested


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
        store: bool = True,
        control: bool = True,
    ) -> None:
        from epochal.runs.folder import RunFolder
        from epochal.runs.resume import find_resume_point

        warn_if_untested("pytorch")
        if isinstance(callbacks, Callback):
            raise ArgumentError(f"callbacks={callbacks!r} is one callback; give a list, callbacks=[...]")
        self.state = LoopState(model, optimizer, scheduler, scaler, ema, state)
        parent = dir if dir is not None else "runs"
        self.point = find_resume_point(parent, name, resume)
        self.folder = self.point.folder if self.point is not None else RunFolder(parent, name)
        self.run = LoopRun(self.folder, fitness, self.state)
        self.use_folder()
        self.gradients = Gradients(model, self.state.optimizers, self.run.engine)
        self.hooks: list[OptimizerHooks | OutputsHook | Gradients] = []
        self.used = False
        for callback in callbacks:
            self.run.add(callback)
        if store:
            # What records a run is a fifth of what importing Loop would cost.
            from epochal.runs.recorder import Recorder

            Recorder(self.run, control=control)

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
        saver = RunSaver(self.run, self.store, self.parts, resumes="batch", optimizers=lambda: self.state.optimizers)
        saver.order = lambda: self.run.position.order
        self.run.engine.saver = saver

    def parts(self) -> dict[str, Any]:
        """Return the state of everything that was given to the loop, of its data and the random generators."""
        run = self.run
        own = {"data": run.position.state_dict(inside=run.engine.in_epoch), "gradients": self.gradients.state_dict()}
        return {**self.state.parts(), **own, "rng": random_state()}

    def restore(self, saved: Any) -> None:
        """Give everything the state that a checkpoint holds; the run and its callbacks get theirs from the engine."""
        self.state.restore(saved)
        self.gradients.forget()
        self.restore_gradients(saved)
        self.run.saved_gradients = partial(self.restore_gradients, saved)
        place = saved.load("data") if "data" in saved.parts else None  # 0.1.0 saved none
        self.run.position.load_state_dict(place, saved.load("rng"))
        self.run.saved_states = saved.load("callbacks")

    def restore_gradients(self, saved: Any) -> None:
        """Put back the gradients that waited for a step, unless they are there."""
        if not self.gradients.are_loaded():
            self.gradients.load_state_dict(saved.load("gradients") if "gradients" in saved.parts else {})

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
            self.restore(self.point.saved)
            self.store.protect(self.point.saved.manifest.name)
            if self.point.chosen:
                self.store.go_on_from(self.point.saved.manifest.name)
            run.resumed_from = self.point
        optimizers = [
            OptimizerHooks(engine, one, counts=not index, prefix=f"optimizer{index}/" if index else "")
            for index, one in enumerate(self.state.optimizers)
        ]
        self.hooks = [*optimizers, self.gradients]
        self.gradients.watch()
        engine.rewind = self.restore
        engine.rate_host = SeveralOptimizers(optimizers) if optimizers else None
        engine.rank, engine.world_size = rank_and_world_size()
        engine.agree = highest if engine.world_size > 1 else None
        if any("outputs" in callback.requires for callback in run.roster.callbacks.values()):
            self.hooks.append(OutputsHook(engine, self.state.model))
        try:
            optimizer = self.state.optimizers[0] if self.state.optimizers else None
            lifetime.begin(run, model=self.state.model, optimizer=optimizer, trainer=self, saved=saved)
            if saved is not None and not engine.rank:
                self.folder.make()
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


def rank_and_world_size() -> tuple[int, int]:
    """Return this process' rank and the number of processes."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
