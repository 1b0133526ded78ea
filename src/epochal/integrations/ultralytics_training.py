"""One training of Ultralytics: its trainer's moments become a run's, the run's requests its trainer's switches."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.capture import unwrapped
from epochal.checkpointing.saver import RunSaver
from epochal.core import lifetime
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.integrations.entry import begin, wrap
from epochal.integrations.torch_optimizer import OptimizerHooks
from epochal.integrations.ultralytics_asked import keep_time, validate_as_asked
from epochal.integrations.ultralytics_atomic import own_files, stripping
from epochal.integrations.ultralytics_exact import ExactState
from epochal.integrations.ultralytics_names import aliases, named_losses, validated
from epochal.integrations.ultralytics_native import switch_off_replaced
from epochal.integrations.ultralytics_predictions import ValidationBatch
from epochal.integrations.ultralytics_resume import mark_ended
from epochal.integrations.ultralytics_rollback import DOOR, GoingBack
from epochal.integrations.ultralytics_state import parts
from epochal.integrations.ultralytics_trial import UltralyticsTrial
from epochal.runs.folder import RunFolder

if TYPE_CHECKING:
    from epochal.integrations.ultralytics_resume import Resumption

logger = logging.getLogger("epochal")
EVENTS = (
    "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end",
    "on_val_start", "on_val_batch_start", "on_val_batch_end", "on_model_save", "on_fit_epoch_end", "on_train_end",
    "teardown",
)  # fmt: skip


class Training:
    """What a run sees of one trainer; its ``on_...`` methods are Ultralytics' callbacks, given trainer or validator.

    Methods are wrapped on the instances, and unwrapped at the end: ``preprocess_batch`` and the validator's
    ``preprocess`` show the batch, ``optimizer_step`` the end of an accumulation group, ``validate`` fresh metrics;
    while ``final_eval`` runs, Ultralytics' files are replaced at once.
    """

    def __init__(
        self, run: Run, trainer: Any, watch: object, given: Mapping[str, Any], resumption: "Resumption | None" = None
    ) -> None:
        self.run, self.trainer, self.watch, self.resumption = run, trainer, watch, resumption
        self.exact = ExactState(trainer, given)
        self.back = GoingBack(run.engine, self.exact)
        self.engine = run.engine
        self.outer = sys.exc_info()[1]  # what was being handled when train() was called is no error of this training
        self.undo: list[Callable[[], None]] = []
        self.restored: dict[str, Any] | None = None  # weights that a callback loaded back
        self.batch = -1
        self.coming = self.val_coming = False  # a batch was announced and is not shown yet
        self.logged = False  # the losses of this batch
        self.val_outputs: Any = None
        self.val_shown: ValidationBatch

    # -- setting up -----------------------------------------------------------------------------------------------

    def begin(self, folder: RunFolder) -> None:
        """The trainer is being made: callbacks get their state."""
        run, engine, point = self.run, self.engine, None if self.resumption is None else self.resumption.point
        engine.rank, engine.world_size = max(int(os.environ.get("RANK", "-1")), 0), max(self.trainer.world_size, 1)
        begin(run, folder, point, partial(parts, self.exact), resumes="epoch", trainer=self.trainer)
        engine.restorer, engine.waited = self.restore, partial(keep_time, self.trainer)
        try:
            switch_off_replaced(run, self.trainer)
            self.join()
            engine.fire("on_pretrain_routine_start")
        except BaseException as error:
            self.finish(error)
            raise

    def join(self) -> None:
        """Stand behind the user's own callbacks of this trainer, and of its validator, which shares them."""
        natives = self.trainer.callbacks
        for event in EVENTS:
            natives[event].append(getattr(self, event))
        self.undo.append(self.leave)

    def leave(self) -> None:
        """Take our callbacks out; lists are replaced, as one of them is being called from."""
        for event, calls in self.trainer.callbacks.items():
            ours = [call for call in calls if getattr(call, "__self__", None) in (self, self.watch)]
            if ours:
                self.trainer.callbacks[event] = [call for call in calls if call not in ours]

    def set_up(self) -> None:
        """Model, data and optimizer stand."""
        engine, trainer = self.engine, self.trainer
        engine.model, engine.optimizer = trainer.model, trainer.optimizer
        hooks = OptimizerHooks(engine, trainer.optimizer)
        self.undo.append(hooks.remove)
        if engine.world_size == 1:  # else each rank would have rates of its own
            engine.rate_host = hooks
            engine.trial = UltralyticsTrial(trainer)
        if self.resumption is not None:
            self.go_on(self.resumption)
        self.val_shown = ValidationBatch(trainer.validator)
        engine.predicted = self.val_shown.predictions
        self.accept(trainer.metrics or {})
        self.wrap(trainer, "preprocess_batch", self.showing_batch)
        self.wrap(trainer, "optimizer_step", self.closing_group)
        self.wrap(trainer, "validate", self.measuring)
        if self.back.can():
            engine.rewind = self.back.rewind
            self.wrap(trainer, "validate", self.back.validating)
            self.wrap(trainer, DOOR, self.back.recovering)
        self.wrap(trainer, "final_eval", stripping)
        self.undo += [own_files(trainer), self.exact.remove]
        self.wrap(trainer.validator, "preprocess", self.showing_val_batch)
        self.wrap(trainer.validator, "postprocess", self.showing_val_outputs)
        engine.fire("on_pretrain_routine_end")
        if trainer.resume and trainer.start_epoch > 0:
            engine.fire("on_resume")

    def go_on(self, resumption: "Resumption") -> None:
        """Everything has the checkpoint's state; the loop's own beginning, which comes now, undoes some of it."""
        self.exact.resume(resumption.point.saved)
        for name in ("model", "resume"):  # they named last.pt while the trainer was made
            setattr(self.trainer.args, name, resumption.facts["args"][name])
        if self.engine.rates.active:
            self.engine.take_over_rates()

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put a wrapper in a method's place on one instance, until the end."""
        self.undo.append(wrap(owner, name, make))

    def accept(self, natives: Any) -> None:
        """Accept Ultralytics' names of metrics beside ours."""
        self.engine.aliases.update(aliases(natives))
        self.engine.metrics.aliases.update(self.engine.aliases)

    # -- what the wrapped methods show ----------------------------------------------------------------------------

    def showing_batch(self, original: Any) -> Any:
        """Open the batch when its data is there: after the warm-up has set the rates, before the device has it."""

        def preprocess_batch(batch: Any) -> Any:
            if self.coming:
                self.start_batch(copy(batch))
            self.exact.steps.open(self.batch + len(self.trainer.train_loader) * self.trainer.epoch)
            return original(batch)

        return preprocess_batch

    def closing_group(self, original: Any) -> Any:
        """See the end of an accumulation group, also where AMP skips the step."""

        def optimizer_step() -> None:
            if self.engine.before_steps.calls:
                self.log_losses()
            original()
            self.exact.steps.stepped()
            self.engine.groups.held = False

        return optimizer_step

    def measuring(self, original: Any) -> Any:
        """End the validation when the trainer's metrics and fitness are fresh."""

        def validate() -> Any:
            result = original()
            metrics, fitness = result
            if metrics is not None and self.engine.in_validation:
                self.trainer.metrics, self.trainer.fitness = metrics, fitness
                self.engine.fitness_rule.native = float(fitness)
                self.end_validation(metrics)
                self.take_stop()
                if self.back.serve():
                    return self.trainer.metrics, self.trainer.fitness
            return result

        return validate

    def showing_val_batch(self, original: Any) -> Any:
        """Open a validation batch when its data is there."""

        def preprocess(batch: Any) -> Any:
            if self.val_coming:
                self.val_coming = False
                self.engine.val_batch_start(self.trainer.validator.batch_i, copy(batch))
            self.val_shown.batch = prepared = original(batch)
            return prepared

        return preprocess

    def showing_val_outputs(self, original: Any) -> Any:
        """Keep what the model returned for a validation batch until the batch ends."""

        def postprocess(preds: Any) -> Any:
            self.val_outputs = preds
            self.val_shown.predicted = predicted = original(preds)
            return predicted

        return postprocess

    # -- Ultralytics' events ----------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any) -> None:
        """The training begins."""
        self.engine.train_start(trainer.epochs, len(trainer.train_loader))

    def on_train_epoch_start(self, trainer: Any) -> None:
        """An epoch begins; one that is open was given up: rolled back after NaN, or retried with less memory."""
        engine = self.engine
        if engine.in_epoch:
            engine.abort_epoch()
            engine.groups.give_up()
            self.exact.steps.forget()
        self.batch, self.coming = -1, False
        last = len(trainer.train_loader)
        self.exact.epoch_start([batch for batch in range(last) if engine.rollbacks.skips(trainer.epoch, batch)])
        engine.num_epochs = trainer.epochs
        engine.epoch_start(trainer.epoch, len(trainer.train_loader))

    def on_train_batch_start(self, _trainer: Any) -> None:
        """A batch is announced."""
        self.batch += 1
        self.coming = True

    def on_train_batch_end(self, _trainer: Any) -> None:
        """A batch is done."""
        if self.coming:  # a trainer with a loop of its own that does not prepare batches
            self.start_batch(None)
        self.end_batch()

    def on_train_epoch_end(self, _trainer: Any) -> None:
        """All batches are done; ``time=`` leaves the last one open."""
        engine = self.engine
        if engine.in_batch:
            self.end_batch()
        if not engine.in_epoch:
            return  # it was given up
        engine.log({f"lr/{group}": rate for group, rate in self.run.lr.items()})
        engine.train_epoch_end()
        self.take_stop()

    def on_val_start(self, validator: Any) -> None:
        """A validation of this trainer begins."""
        self.engine.val_start(len(validator.dataloader))

    def on_val_batch_start(self, _validator: Any) -> None:
        """A validation batch is announced."""
        self.val_coming = True

    def on_val_batch_end(self, validator: Any) -> None:
        """A validation batch is done."""
        if self.val_coming:
            self.val_coming = False
            self.engine.val_batch_start(validator.batch_i)
        outputs, self.val_outputs = self.val_outputs, None
        self.engine.val_batch_end(outputs)
        self.val_shown.clear()

    def on_model_save(self, _trainer: Any) -> None:
        """Ultralytics has written its own checkpoint."""
        self.engine.fire("on_model_save")

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """The epoch is done; one more comes after the final validation, which ends there."""
        if not self.engine.in_epoch:
            if self.engine.in_validation:
                self.end_validation(trainer.metrics)
            return
        self.engine.num_epochs = trainer.epochs
        self.note_native_stop()
        self.note_resumable()
        self.engine.epoch_end()
        self.back.refuse()
        self.take_stop()
        if self.engine.requests.stops and not (trainer.last.exists() or trainer.best.exists()):
            trainer.save_model()  # with save=False only a last planned epoch is saved, and train() needs a file
            trainer.run_callbacks("on_model_save")

    def on_train_end(self, trainer: Any) -> None:
        """The training is over."""
        if self.engine.in_validation:
            self.end_validation(trainer.metrics)
        self.engine.train_end()
        if self.run.folder is not None and self.engine.end_reason == "completed":
            mark_ended(self.run.folder.path, trainer)

    def teardown(self, _trainer: Any) -> None:
        """The trainer is done, one way or the other."""
        error = sys.exc_info()[1]
        self.finish(None if error is self.outer else error)

    # -- moments ----------------------------------------------------------------------------------------------------

    def start_batch(self, data: Any) -> None:
        """The batch begins."""
        self.coming, self.engine.groups.held, self.logged = False, True, False
        self.engine.batch_start(self.batch, data)

    def end_batch(self) -> None:
        """The batch ends; a stop is taken here unless its accumulation group goes on."""
        engine, trainer = self.engine, self.trainer
        self.exact.steps.close()
        self.log_losses()
        engine.batch_end((trainer.loss, trainer.loss_items))  # a hook would be copied with the model, into last.pt
        if engine.requests.validations:
            validate_as_asked(engine, trainer)
        if self.back.serve():
            return
        if engine.requests.stops and not engine.groups.held and engine.world_size == 1:
            engine.epoch_cut = self.batch + 1 < len(trainer.train_loader)
            trainer.stop = True

    def log_losses(self) -> None:
        """Log the losses of this batch, once: before its step where somebody looks at that, else at its end."""
        if self.trainer.loss_items and not self.logged:
            self.logged = True
            self.engine.log(named_losses(self.trainer.loss_items))

    def end_validation(self, metrics: Any) -> None:
        """A validation ends with these values."""
        self.accept(metrics)
        self.engine.log(validated(metrics, self.trainer.loss_names))
        self.engine.val_end()

    def take_stop(self) -> None:
        """Hand a stop that was asked for to the trainer."""
        if self.engine.requests.stops:
            self.trainer.stop = True

    def note_native_stop(self) -> None:
        """Write down a stop that came from Ultralytics' own patience or from a native callback."""
        trainer, stops = self.trainer, self.engine.requests.stops
        if not trainer.stop or stops or trainer.epoch + 1 >= trainer.epochs or trainer.args.time:
            return
        patience = trainer.stopper.patience
        if trainer.epoch + 1 - trainer.stopper.best_epoch >= patience:
            stops.append(StopRequest(f"no better fitness for {patience} epochs (patience={patience})", "Ultralytics"))
        else:
            stops.append(StopRequest("a native callback set trainer.stop", "Ultralytics"))

    def note_resumable(self) -> None:
        """Say whether a training can go on from this epoch's end: not from the last, behind which no epoch begins."""
        saver, trainer = self.engine.saver, self.trainer
        if isinstance(saver, RunSaver):
            alone = self.engine.world_size == 1
            saver.resumes = "epoch" if alone and trainer.epoch + 1 < trainer.epochs else "no"

    def restore(self, saved: Any) -> None:
        """Load a checkpoint's weights into what is validated and saved, and into the model that ``train()`` leaves."""
        trainer = self.trainer
        saved.load_into(trainer.ema.ema)
        self.restored = dict(trainer.ema.ema.state_dict())
        unwrapped(trainer.model).load_state_dict(saved.load("live") if "live" in saved.parts else self.restored)
        self.engine.notes.append(
            f"the model holds the weights of {saved.manifest.name}; weights/best.pt is Ultralytics' own choice"
        )

    def finish(self, error: BaseException | None) -> None:
        """End the training for the run; the trainer is as it was."""
        try:
            lifetime.finish(self.run, error)
        finally:
            while self.undo:
                self.undo.pop()()
