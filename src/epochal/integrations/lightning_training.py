"""One fit of Lightning: its trainer's moments become a run's, the run's requests its trainer's switches."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.distributed.agree import highest
from epochal.integrations.entry import begin, wrap
from epochal.integrations.lightning_asked import Asked
from epochal.integrations.lightning_data import Feed
from epochal.integrations.lightning_names import Names
from epochal.integrations.lightning_native import (
    leave_out_searches,
    let_go_of_sigterm,
    note_native_stop,
    switch_off_replaced,
)
from epochal.integrations.lightning_resume import Resumption, half_done
from epochal.integrations.lightning_state import TrainerState
from epochal.integrations.lightning_steps import StepHooks
from epochal.integrations.lightning_values import Values
from epochal.integrations.torch_optimizer import SeveralOptimizers

if TYPE_CHECKING:
    from epochal.runs.folder import RunFolder
    from epochal.runs.resume import ResumePoint

HOOKS = (
    "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end",
    "on_train_epoch_end", "on_validation_start", "on_validation_batch_start", "on_validation_batch_end",
    "on_validation_end", "on_train_end", "on_exception",
)  # fmt: skip
# Lightning asks whether a hook can be called, and times it if so, which costs more than many a hook.
UNHEARD = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")


class Training:
    """What a run sees of one fit; its ``on_...`` methods are those of a Lightning callback, the last of the trainer's.

    Methods are wrapped on the instances, and unwrapped at the end: where Lightning has no event, or one too early.
    """

    saver: RunSaver  # from ``begin`` on

    def __init__(self, run: Run, trainer: Any, point: "ResumePoint | None") -> None:
        self.run, self.engine, self.trainer, self.point = run, run.engine, trainer, point
        self.feed = Feed(trainer)
        self.values = Values(run.engine, trainer)
        self.state = TrainerState(trainer, self.feed, self.values)
        self.asked = Asked(run.engine, trainer)
        self.undo: list[Callable[[], None]] = [self.asked.end]
        self.steps: list[StepHooks] = []
        self.bridge: Any = None  # the Lightning callback
        self.outputs: Any = None  # of the batch that is ending
        self.error: BaseException | None = None  # as Lightning saw it
        self.started = False
        self.resumption = None if point is None else Resumption(trainer, point, self.state, self.feed)
        self.native_saved = False  # Lightning wrote a checkpoint of its own, which was not told yet
        self.val_batch = -1

    # -- setting up -----------------------------------------------------------------------------------------------

    def begin(self, folder: "RunFolder", model: Any) -> None:
        """The fit begins: callbacks get their state, Lightning's moments are seen."""
        engine, trainer = self.engine, self.trainer
        engine.rank, engine.world_size = trainer.global_rank, trainer.world_size
        engine.agree = highest if engine.world_size > 1 else None
        self.saver = begin(self.run, folder, self.point, self.parts, resumes="epoch", trainer=trainer, model=model)
        self.saver.optimizers = lambda: trainer.optimizers
        self.saver.order = lambda: self.feed.position.order
        self.saver.half_done = lambda: half_done(trainer, self.feed, self.values)
        engine.metrics.aliases = Names(known=engine.metrics.entries)
        self.undo += switch_off_replaced(self.run, trainer)
        engine.fire("on_pretrain_routine_start")
        self.join()
        self.wrap_methods()
        if self.resumption is not None:
            self.wrap(trainer.strategy, "load_checkpoint", self.resumption.loading)
            self.wrap(trainer.strategy, "load_model_state_dict", self.resumption.checking)
            self.undo += leave_out_searches(trainer)

    def join(self) -> None:
        """Stand behind the user's own callbacks of this trainer."""
        kind = next(one for one in type(self.trainer).__mro__ if one.__module__.endswith("trainer.trainer"))
        self.bridge = import_module(kind.__module__.removesuffix(".trainer.trainer")).Callback()
        for hook in HOOKS:
            setattr(self.bridge, hook, getattr(self, hook))
        for hook in UNHEARD:
            setattr(self.bridge, hook, None)
        self.trainer.callbacks.append(self.bridge)
        self.undo.append(self.leave)

    def leave(self) -> None:
        """Take our callback out."""
        if self.bridge in self.trainer.callbacks:
            self.trainer.callbacks.remove(self.bridge)

    def wrap_methods(self) -> None:
        """See what Lightning has no event for."""
        trainer, loop = self.trainer, self.trainer.fit_loop
        self.wrap(loop, "on_advance_start", self.beginning_epoch)
        self.wrap(loop, "on_advance_end", self.ending_epoch)
        for owner, name, make in self.feed.wrappers(self.goes_on_reading):
            self.wrap(owner, name, make)
        self.wrap(trainer._logger_connector, "on_batch_end", self.ending_batch)
        self.wrap(trainer, "save_checkpoint", self.saving)
        self.wrap(trainer.strategy, "training_step", self.showing_loss)
        if self.engine.before_steps.wanted:
            self.wrap(trainer.precision_plugin, "_after_closure", self.showing_gradients)

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put a wrapper in a method's place on one instance, until the end; it looks away while Lightning searches.

        A search for a rate or a batch size trains with callbacks of its own in place of all others.
        """

        def unless_searching(original: Any) -> Any:
            ours = make(original)

            def method(*args: Any, **options: Any) -> Any:
                return (ours if self.bridge in self.trainer.callbacks else original)(*args, **options)

            return method

        if hasattr(owner, name):
            self.undo.append(wrap(owner, name, unless_searching))

    def close(self) -> None:
        """The trainer is as it was."""
        for steps in self.steps:
            steps.remove()
        while self.undo:
            self.undo.pop()()
        self.feed.close()

    def parts(self) -> dict[str, Any]:
        """Return the trainer's state."""
        return self.state.parts(inside=self.engine.in_epoch, held=self.engine.groups.held)

    # -- what the wrapped methods show ----------------------------------------------------------------------------

    def beginning_epoch(self, original: Any) -> Any:
        """Before the first epoch of a resumed training all is as it was; one that goes on has no event of its own."""

        def on_advance_start() -> None:
            if self.resumption is not None:
                self.resumption.stand()
            original()
            if self.resumption is not None and not self.engine.in_epoch:
                self.start_epoch()

        return on_advance_start

    def ending_epoch(self, original: Any) -> Any:
        """The epoch is over when Lightning has done all that belongs to it."""

        def on_advance_end() -> None:
            original()
            self.end_epoch()

        return on_advance_end

    def goes_on_reading(self, fetcher: Any, original: Callable[[Any], None]) -> bool:
        """Read the first epoch of a resumed training from where it stood; False: there is nothing to go on with."""
        return self.resumption is not None and self.resumption.read(self.engine, fetcher, original)

    def ending_batch(self, original: Any) -> Any:
        """A batch is over when the module's ``on_train_batch_end`` is, too: it may change weights or log."""

        def on_batch_end() -> None:
            original()
            if self.engine.in_batch:
                self.end_batch()

        return on_batch_end

    def saving(self, original: Any) -> Any:
        """Tell of Lightning's own checkpoints once they are there and an event may come."""

        def save_checkpoint(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            self.native_saved = self.started  # before, it is a search's, to go back to
            if not self.engine.scopes or self.engine.scopes[-1] in ("batches", "epoch"):
                self.tell_saved()
            return result

        return save_checkpoint

    def showing_loss(self, original: Any) -> Any:
        """See the loss as the module returns it."""

        def training_step(*args: Any, **options: Any) -> Any:
            output = original(*args, **options)
            self.values.take_loss(output)
            return output

        return training_step

    def showing_gradients(self, original: Any) -> Any:
        """Show the gradients when they are there, unscaled and clipped."""

        def _after_closure(model: Any, optimizer: Any) -> Any:
            result = original(model, optimizer)
            self.values.log_loss()
            for steps in self.steps:
                if steps.optimizer is getattr(optimizer, "optimizer", optimizer):
                    steps.show(self.trainer)
            return result

        return _after_closure

    # -- Lightning's events -----------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, _module: Any) -> None:
        """The optimizers stand; a checkpoint of others is refused before it is loaded."""
        if trainer.callbacks[-1] is not self.bridge:  # the module brought callbacks
            trainer.callbacks = [*(one for one in trainer.callbacks if one is not self.bridge), self.bridge]
        if self.resumption is not None:
            self.resumption.check()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Everything stands, and has the state that Lightning gave it; sanity checks are over."""
        engine = self.engine
        engine.model, engine.optimizer = module, trainer.optimizers[0] if trainer.optimizers else None
        self.values.meet(module)
        self.steps = [
            StepHooks(engine, one, counts=not index, prefix=f"optimizer{index}/" if index else "")
            for index, one in enumerate(trainer.optimizers)
            if hasattr(one, "register_step_post_hook")
        ]
        engine.rate_host = SeveralOptimizers(self.steps) if self.steps else None
        if engine.rates.active:
            engine.take_over_rates()
        let_go_of_sigterm(trainer)
        self.start()

    def start(self) -> None:
        """The training begins."""
        engine, trainer = self.engine, self.trainer
        self.started = True
        engine.fire("on_pretrain_routine_end")
        natively = self.point is None and bool(trainer.ckpt_path and trainer.global_step)
        if natively:
            engine.step = trainer.global_step
        if self.point is not None or natively:
            engine.fire("on_resume")
        engine.metrics.validation_comes = trainer.enable_validation
        epochs = trainer.max_epochs
        engine.train_start(epochs if epochs is not None and epochs >= 0 else None, self.num_batches())

    def num_batches(self) -> int | None:
        """Return the number of batches of an epoch, if it is known."""
        batches = self.trainer.num_training_batches
        return int(batches) if batches != float("inf") else None

    def on_train_epoch_start(self, _trainer: Any, _module: Any) -> None:
        """An epoch begins."""
        self.start_epoch()

    def on_train_batch_start(self, _trainer: Any, _module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins; Lightning begins no epoch where it goes on inside one."""
        if not self.engine.in_epoch:
            self.start_epoch()
        self.close_batch()
        self.values.begin_batch()
        self.engine.batch_start(batch_idx, batch)

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, _batch: Any, _batch_idx: int) -> None:
        """A batch is about to end."""
        self.outputs = outputs

    def on_train_epoch_end(self, _trainer: Any, _module: Any) -> None:
        """Lightning's epoch ends, behind its validation; without one behind the batches ours does too."""
        self.end_batches()

    def on_validation_start(self, trainer: Any, _module: Any) -> None:
        """A validation begins: the last batch before it may have been the epoch's last."""
        if trainer.sanity_checking:
            return
        loop = trainer.fit_loop.epoch_loop
        self.close_batch()
        if loop.done:
            self.end_batches()
        self.saver.resumes = "epoch"
        self.values.begin_validation()
        self.val_batch = -1
        self.engine.val_start(loop.val_loop._data_fetcher.length)

    def on_validation_batch_start(self, trainer: Any, _module: Any, batch: Any, _index: int, _loader: int = 0) -> None:
        """A batch of a validation begins; those of several loaders are counted through."""
        if not trainer.sanity_checking:
            self.val_batch += 1
            self.engine.val_batch_start(self.val_batch, batch)

    def on_validation_batch_end(
        self, trainer: Any, _module: Any, outputs: Any, _batch: Any, _index: int, _loader: int = 0
    ) -> None:
        """A batch of a validation ends."""
        if not trainer.sanity_checking:
            self.engine.val_batch_end(outputs)

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        """A validation ends with what it logged."""
        if trainer.sanity_checking:
            return
        self.values.end_validation()
        self.engine.val_end()
        self.tell_saved()
        self.take_stop()

    def on_train_end(self, _trainer: Any, _module: Any) -> None:
        """The training is over."""
        note_native_stop(self.engine, self.trainer)
        self.engine.train_end()
        self.tell_saved()

    def on_exception(self, _trainer: Any, _module: Any, exception: BaseException) -> None:
        """Lightning saw an error; what it makes of it is not known yet."""
        self.error = exception

    # -- moments ----------------------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """An epoch begins, or goes on."""
        self.values.begin_epoch()
        for steps in self.steps:
            steps.used = []
        self.engine.epoch_start(self.trainer.current_epoch, self.num_batches())
        if self.resumption is not None:
            self.resumption.enter(self.run.roster)

    def end_batch(self) -> None:
        """The batch is over; a stop is taken here unless its accumulation group goes on."""
        outputs, self.outputs = self.outputs, None
        self.engine.groups.held = self.trainer.fit_loop.epoch_loop._should_accumulate()
        self.values.end_batch()
        self.saver.resumes = "batch"
        if self.values.loss is not None and isinstance(outputs, dict) and "loss" in outputs:
            outputs = {**outputs, "loss": self.values.loss}
        self.engine.batch_end(outputs)
        self.tell_saved()
        self.take_stop()
        self.asked.next()

    def close_batch(self) -> None:
        """End a batch that Lightning left open: its module skipped the rest of the epoch."""
        if self.engine.in_batch:
            self.saver.resumes = "epoch"
            self.engine.batch_end()

    def end_batches(self) -> None:
        """The batches of the epoch are done: what the module logged for the epoch as a whole is known."""
        self.close_batch()
        if self.engine.in_epoch and not self.engine.batches_done:
            loop = self.trainer.fit_loop.epoch_loop
            self.engine.epoch_cut = loop.done and not loop._num_ready_batches_reached()  # by a stop, whoever asked
            self.values.end_batches()
            self.engine.train_epoch_end()

    def end_epoch(self) -> None:
        """The epoch is over."""
        if not self.engine.in_epoch:
            return
        used = {name: rate for steps in self.steps for name, rate in steps.last().items()}
        self.values.end_epoch({**self.run.lr, **used})
        note_native_stop(self.engine, self.trainer)
        self.engine.epoch_end()
        self.tell_saved()
        stops = self.engine.requests.stops
        if self.engine.world_size > 1 and self.trainer.strategy.reduce_boolean_decision(bool(stops), all=False):
            stops.extend([] if stops else [StopRequest("asked for in another process", "Lightning")])
        self.trainer.should_stop = self.trainer.should_stop or bool(stops)

    def take_stop(self) -> None:
        """Hand a stop that was asked for to the trainer, which obeys once ``min_epochs`` and ``min_steps`` are met."""
        if self.engine.stop_now():
            self.trainer.should_stop = True

    def tell_saved(self) -> None:
        """Tell of Lightning's own checkpoint."""
        if self.native_saved:
            self.native_saved = False
            self.engine.fire("on_model_save")

    def interrupted(self) -> None:
        """For the run a fit failed that Ctrl-C ended, also where Lightning ends it as if nothing was."""
        if isinstance(self.error, KeyboardInterrupt):
            lifetime.finish(self.run, self.error)

    def returned(self) -> None:
        """``fit()`` returned: one that had nothing to train has begun and ended all the same."""
        self.interrupted()
        if self.engine.active and not self.started:
            self.start()
        if self.engine.in_training:
            self.engine.train_end()
