"""One fit of Lightning: its trainer's moments become a run's, the run's requests its trainer's switches."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.distributed.agree import highest
from epochal.integrations.entry import begin, wrap
from epochal.integrations.lightning_data import Feed
from epochal.integrations.lightning_names import Names
from epochal.integrations.lightning_native import let_go_of_sigterm, note_native_stop, switch_off_replaced
from epochal.integrations.lightning_resume import Resumption
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


class Training:
    """What a run sees of one fit; its ``on_...`` methods are those of a Lightning callback, the last of the trainer's.

    Methods are wrapped on the instances, and unwrapped at the end: where Lightning has no event, or one too early.
    """

    def __init__(self, run: Run, trainer: Any, point: "ResumePoint | None", native: Any) -> None:
        self.run, self.engine, self.trainer, self.point, self.native = run, run.engine, trainer, point, native
        self.feed = Feed(trainer)
        self.values = Values(run.engine, trainer)
        self.state = TrainerState(trainer, self.feed, self.values)
        self.undo: list[Callable[[], None]] = []
        self.steps: list[StepHooks] = []
        self.error: BaseException | None = None  # as Lightning saw it
        self.started = False
        self.resumption = None if point is None else Resumption(trainer, point, self.state, self.feed)
        self.rates: Mapping[str, float] | None = None  # of the epoch's last step
        self.native_saved = False  # Lightning wrote a checkpoint of its own, which was not told yet
        self.val_batch = -1

    # -- setting up -----------------------------------------------------------------------------------------------

    def begin(self, folder: "RunFolder", model: Any) -> None:
        """The fit begins: callbacks get their state, Lightning's moments are seen."""
        engine, trainer = self.engine, self.trainer
        engine.rank, engine.world_size = trainer.global_rank, trainer.world_size
        engine.agree = highest if engine.world_size > 1 else None
        saver = begin(self.run, folder, self.point, self.parts, resumes="epoch", trainer=trainer, model=model)
        saver.optimizers = lambda: trainer.optimizers
        saver.order = lambda: self.feed.position.order
        engine.metrics.aliases = Names()
        self.undo += switch_off_replaced(self.run, trainer)
        engine.fire("on_pretrain_routine_start")
        self.join()
        loop = trainer.fit_loop
        self.wrap(loop, "on_advance_start", self.beginning_epoch)
        self.wrap(loop, "on_advance_end", self.ending_epoch)
        self.wrap(loop, "_load_combined_loader_states", self.reading)
        self.wrap(loop.epoch_loop, "on_run_start", self.reading_again)
        self.wrap(loop.epoch_loop.val_loop, "reset", self.reading_validation)
        self.wrap(trainer, "save_checkpoint", self.saving)
        self.wrap(trainer.strategy, "training_step", self.showing_loss)
        if engine.before_steps.wanted:
            self.wrap(trainer.precision_plugin, "_after_closure", self.showing_gradients)
        if self.resumption is not None:
            self.wrap(trainer.strategy, "load_checkpoint", self.resumption.loading)

    def join(self) -> None:
        """Stand behind the user's own callbacks of this trainer."""
        kind = next(one for one in type(self.trainer).__mro__ if one.__module__.endswith("trainer.trainer"))
        bridge = import_module(kind.__module__.removesuffix(".trainer.trainer")).Callback()
        for hook in HOOKS:
            setattr(bridge, hook, getattr(self, hook))
        self.trainer.callbacks.append(bridge)
        self.undo.append(lambda: self.leave(bridge))

    def leave(self, bridge: Any) -> None:
        """Take our callback out."""
        if bridge in self.trainer.callbacks:
            self.trainer.callbacks.remove(bridge)

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put a wrapper in a method's place on one instance, until the end."""
        if hasattr(owner, name):
            self.undo.append(wrap(owner, name, make))

    def close(self) -> None:
        """The trainer is as it was."""
        for steps in self.steps:
            steps.remove()
        while self.undo:
            self.undo.pop()()

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
            if not self.engine.in_epoch:
                self.start_epoch()

        return on_advance_start

    def ending_epoch(self, original: Any) -> Any:
        """The epoch is over when Lightning has done all that belongs to it."""

        def on_advance_end() -> None:
            original()
            self.end_epoch()

        return on_advance_end

    def reading(self, original: Any) -> Any:
        """See loaders before their first iterators are made."""

        def _load_combined_loader_states() -> None:
            original()
            self.feed.begins()

        return _load_combined_loader_states

    def reading_again(self, original: Any) -> Any:
        """See loaders before the iterators of a further epoch are made."""

        def on_run_start(fetcher: Any) -> None:
            if self.resumption is not None and self.resumption.read(self.engine, fetcher, original):
                return
            if self.trainer.current_epoch > 0:
                self.feed.begins()
            original(fetcher)

        return on_run_start

    def reading_validation(self, original: Any) -> Any:
        """See a validation's loaders before their iterators are made."""

        def reset() -> None:
            if not self.trainer.sanity_checking:
                self.feed.validates()
            original()

        return reset

    def saving(self, original: Any) -> Any:
        """Tell of Lightning's own checkpoints once they are there and an event may come."""

        def save_checkpoint(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            self.native_saved = True
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
        if self.resumption is not None:
            self.resumption.check()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Everything stands, and has the state that Lightning gave it; sanity checks are over."""
        engine = self.engine
        engine.model, engine.optimizer = module, trainer.optimizers[0] if trainer.optimizers else None
        self.steps = [
            StepHooks(engine, one, counts=not index, prefix=f"optimizer{index}/" if index else "")
            for index, one in enumerate(trainer.optimizers)
            if hasattr(one, "register_step_post_hook")
        ]
        engine.rate_host = SeveralOptimizers(self.steps) if self.steps else None
        if engine.rates.active:
            engine.take_over_rates()
        if self.point is None and self.native is not None:
            engine.step = trainer.global_step
        let_go_of_sigterm(trainer)
        self.start()

    def start(self) -> None:
        """The training begins."""
        self.started = True
        self.engine.fire("on_pretrain_routine_end")
        if self.point is not None or self.native is not None:
            self.engine.fire("on_resume")
        epochs = self.trainer.max_epochs
        self.engine.train_start(epochs if epochs is not None and epochs >= 0 else None, self.num_batches())

    def num_batches(self) -> int | None:
        """Return the number of batches of an epoch, if it is known."""
        batches = self.trainer.num_training_batches
        return int(batches) if batches != float("inf") else None

    def on_train_epoch_start(self, _trainer: Any, _module: Any) -> None:
        """An epoch begins."""
        self.start_epoch()

    def on_train_batch_start(self, _trainer: Any, _module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins."""
        self.close_batch()
        self.values.begin_batch()
        if self.trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self.rates = dict(self.run.lr)
        self.engine.batch_start(batch_idx, batch)

    def on_train_batch_end(self, trainer: Any, _module: Any, outputs: Any, _batch: Any, _batch_idx: int) -> None:
        """A batch ends; a stop is taken here unless its accumulation group goes on."""
        engine, loop = self.engine, trainer.fit_loop.epoch_loop
        if not engine.in_batch:  # it was None
            return
        engine.groups.held = loop._should_accumulate()
        self.values.end_batch()
        self.note_resumable(loop)
        if self.values.loss is not None and isinstance(outputs, dict) and "loss" in outputs:
            outputs = {**outputs, "loss": self.values.loss}
        engine.batch_end(outputs)
        self.tell_saved()
        self.take_stop()

    def on_train_epoch_end(self, _trainer: Any, _module: Any) -> None:
        """Lightning's epoch ends, behind its validation; without one behind the batches ours does too."""
        self.end_batches()

    def on_validation_start(self, trainer: Any, _module: Any) -> None:
        """A validation begins: the last batch before it may have been the epoch's last."""
        if trainer.sanity_checking:
            return
        self.close_batch()
        if self.engine.in_epoch and trainer.fit_loop.epoch_loop.done:
            self.end_batches()
        saver = self.engine.saver
        if isinstance(saver, RunSaver):
            saver.resumes = "epoch"
        self.values.begin_validation()
        self.val_batch = -1
        batches = sum(trainer.num_val_batches)
        self.engine.val_start(int(batches) if batches != float("inf") else None)

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
        self.rates = None
        self.engine.epoch_start(self.trainer.current_epoch, self.num_batches())
        if self.resumption is not None:
            self.resumption.enter(self.run.roster)

    def close_batch(self) -> None:
        """End a batch that Lightning left open: its module skipped the rest of the epoch."""
        if self.engine.in_batch:
            self.engine.batch_end()

    def end_batches(self) -> None:
        """The batches of the epoch are done: what the module logged for the epoch as a whole is known."""
        self.close_batch()
        if not self.engine.batches_done:
            self.values.end_batches()
            self.engine.train_epoch_end()

    def end_epoch(self) -> None:
        """The epoch is over."""
        if not self.engine.in_epoch:
            return
        self.values.end_epoch(self.run.lr if self.rates is None else self.rates)
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
            loop = self.trainer.fit_loop.epoch_loop
            self.engine.epoch_cut = loop.done and not loop._num_ready_batches_reached()

    def note_resumable(self, loop: Any) -> None:
        """Say whether a training can go on from this batch's end: where nothing of Lightning's is half done."""
        saver = self.engine.saver
        if isinstance(saver, RunSaver):
            half = loop._num_ready_batches_reached() or self.engine.world_size > 1
            half = (
                half
                or not self.feed.single
                or not self.values.can_go_on
                or loop._should_check_val_fx(self.trainer.fit_loop._data_fetcher)
            )
            saver.resumes = "epoch" if half else "batch"

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
