"""One training of a Transformers Trainer: its moments become a run's, the run's requests its trainer's switches."""

import shutil
from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from sys import maxsize
from typing import TYPE_CHECKING, Any

from epochal.core.errors import CheckpointError
from epochal.core.run import Run
from epochal.data.order import length_of
from epochal.distributed.agree import highest
from epochal.integrations.entry import begin, wrap
from epochal.integrations.pytorch_resume import reload_states, tell_resumed
from epochal.integrations.torch_optimizer import OptimizerHooks, inner_optimizer
from epochal.integrations.transformers_asked import Asked
from epochal.integrations.transformers_data import ReadData
from epochal.integrations.transformers_names import expected
from epochal.integrations.transformers_native import before, behind, switch_off_replaced
from epochal.integrations.transformers_outputs import SeenOutputs
from epochal.integrations.transformers_state import (
    FOLDER,
    check_optimizer,
    check_place,
    parts,
    put_back,
    write_folder,
)
from epochal.integrations.transformers_validation import Validations
from epochal.runs.folder import RunFolder

if TYPE_CHECKING:
    from epochal.runs.resume import ResumePoint


class Training:
    """What a run sees of one ``train()``; its ``on_...`` methods are Transformers' events, behind all callbacks of it.

    Methods of the trainer are wrapped on the instance, and unwrapped at the end: ``training_step`` shows the batch and
    its loss, ``get_batch_samples`` the place in the data, ``_maybe_log_save_evaluate`` the end of a step and of an
    epoch; more show its validations. Of its callbacks' handler those few events are wrapped that say something: a
    callback among its own would be called, with ten arguments, at every event of every step.
    """

    def __init__(self, run: Run, trainer: Any, point: "ResumePoint | None") -> None:
        self.run, self.trainer, self.point = run, trainer, point
        self.engine = run.engine
        self.undo: list[Callable[[], None]] = []
        self.unread: Callable[[], None] = lambda: None  # undoes what shows the reading of the data
        self.folder: Path | None = None  # what the trainer resumes from
        self.hooks: OptimizerHooks | None = None
        self.outputs: SeenOutputs | None = None
        self.asked = Asked(run, trainer)
        self.validations = Validations(self.engine, trainer, self.end_before_validation, self.asked.note_native_stop)
        self.batch = -1
        self.at_last_step = self.at_epoch_end = self.begun = False
        self.told = point is None  # from where it goes on

    # -- setting up -----------------------------------------------------------------------------------------------

    def begin(self, folder: RunFolder) -> str | None:
        """``train()`` was called: callbacks get their state; return the folder from which the trainer goes on."""
        run, engine, trainer = self.run, self.engine, self.trainer
        engine.rank, engine.world_size = trainer.args.process_index, trainer.args.world_size
        engine.agree = highest if engine.world_size > 1 else None
        self.validations.accept(expected(trainer.args, trainer.eval_dataset))
        engine.cannot_validate = self.asked.cannot_validate
        self.saver = begin(
            run, folder, self.point, self.parts, resumes="no", trainer=trainer, model=trainer.model
        )  # fmt: skip
        self.saver.order = lambda: self.data.order
        self.undo += switch_off_replaced(run, trainer.callback_handler)
        self.join()
        engine.fire("on_pretrain_routine_start")
        if self.point is None:
            return None
        self.folder = folder.path / FOLDER
        return str(write_folder(self.point.saved, self.folder))

    def join(self) -> None:
        """Stand around the trainer's methods, and before or behind what its callbacks hear."""
        trainer, handler = self.trainer, self.trainer.callback_handler
        for name, make in (
            ("training_step", self.showing_batch),
            ("_maybe_log_save_evaluate", self.closing),
            ("evaluate", self.validations.validating),
            ("evaluation_loop", self.validations.counting),
            ("prediction_step", self.validations.showing_batch),
        ):
            self.undo.append(wrap(trainer, name, make))
        self.undo.append(wrap(handler, "on_epoch_begin", before(self.start_epoch)))
        self.undo.append(wrap(handler, "on_epoch_begin", behind(self.on_epoch_begin)))
        self.undo.append(wrap(handler, "on_epoch_end", before(self.on_epoch_end)))
        for name in ("on_train_begin", "on_substep_end", "on_log", "on_save", "on_train_end"):
            self.undo.append(wrap(handler, name, behind(getattr(self, name))))
        if self.point is not None:
            self.undo.append(wrap(trainer, "_load_optimizer_and_scheduler", self.checking_optimizer))

    def remove(self) -> None:
        """Leave the trainer as it was."""
        self.remove_folder()
        self.unread()
        while self.undo:
            self.undo.pop()()
        for hooks in (self.hooks, self.outputs):
            if hooks is not None:
                hooks.remove()

    def remove_folder(self) -> None:
        """Remove what the trainer has resumed from."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the trainer."""
        return {**parts(self.trainer), "data": self.data.state_dict(inside=self.engine.in_epoch)}

    def checking_optimizer(self, original: Any) -> Any:
        """Compare the optimizer with the checkpoint's before it is loaded."""

        def load(checkpoint: Any, *args: Any, **options: Any) -> Any:
            if self.point is not None and checkpoint is not None:
                check_optimizer(self.point.saved, self.trainer)
            return original(checkpoint, *args, **options)

        return load

    def on_train_begin(self, _args: Any, state: Any, control: Any, **_options: Any) -> None:
        """Model, data and optimizer stand, and the trainer has loaded what it resumes from."""
        engine = self.engine
        planned = None if state.num_train_epochs == maxsize else state.num_train_epochs
        if engine.in_training:
            self.begin_again()
            self.set_up()
            engine.num_epochs = planned
            return
        self.set_up()
        engine.fire("on_pretrain_routine_end")
        if self.point is not None or state.global_step:
            engine.fire("on_resume")
        engine.metrics.validation_comes = str(self.trainer.args.eval_strategy.value) != "no"
        engine.train_start(planned, self.batches)
        self.asked.take_stop(control)

    def begin_again(self) -> None:
        """The trainer had no memory left and begins anew with smaller batches (``auto_find_batch_size``)."""
        engine, self.begun = self.engine, False
        if self.point is not None:
            raise CheckpointError(
                f"{self.point.saved.path}: no memory was left for batches of the size it was saved with, and with"
                " others Transformers does not find its place in the data. Free memory, or start without resume="
            )
        if engine.in_epoch:
            engine.abort_epoch()
            engine.groups.give_up()
        engine.step = engine.batches = engine.next_epoch = 0
        engine.history.clear()

    def set_up(self) -> None:
        """Know optimizer and data, and give back what the trainer's resume forgets."""
        engine, trainer = self.engine, self.trainer
        self.data = ReadData(trainer)
        self.unread()
        self.unread = self.data.join()
        self.batches = length_of(self.data.loader)
        self.group = trainer.args.gradient_accumulation_steps
        engine.model, engine.optimizer = trainer.model, inner_optimizer(trainer.optimizer)
        if self.hooks is not None:
            self.hooks.remove()
        engine.rate_host = self.hooks = OptimizerHooks(engine, engine.optimizer)
        engine.rates_taken = False  # those of an attempt before were
        if engine.rates.active or engine.requests.rates:
            engine.take_over_rates()
        required = any("outputs" in one.requires for one in self.run.roster.callbacks.values())
        if self.outputs is None and (required or not trainer.args.torch_compile):  # a compiled model stays in one piece
            self.outputs = SeenOutputs(engine, trainer.model, required=required)
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        self.saver.resumes = "no" if self.batches is None or sharded else self.data.resumes
        if self.point is not None:
            saved = self.point.saved
            check_place(saved, trainer, self.data.inner, engine.next_epoch, self.steps_per_epoch)
            put_back(saved, trainer)
            self.data.load_state_dict(saved.load("data"), saved.load("rng"))
            self.remove_folder()
        elif trainer.state.global_step:  # the trainer resumes by itself
            engine.step = trainer.state.global_step
            engine.next_epoch = engine.step // self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """How many optimizer steps the trainer counts for an epoch."""
        return self.trainer.state.max_steps if self.batches is None else max(-(-self.batches // self.group), 1)

    # -- epochs ---------------------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """An epoch begins, or goes on; after a stop that came before it none does, and the trainer gets no batch."""
        engine, state = self.engine, self.trainer.state
        self.data.restore_random()
        if engine.requests.stops:
            self.data.begin_epoch(0, closed=True)
            return
        first, self.begun = not self.begun, True
        skips = first and not self.trainer.args.ignore_data_skip
        done = state.global_step % self.steps_per_epoch * self.group if skips else 0
        goes_on = self.data.saved is not None
        self.data.begin_epoch(done)
        self.batch = done - 1
        engine.groups.give_up()
        engine.epoch_start(engine.next_epoch, self.batches)
        if self.point is not None and goes_on:
            reload_states(self.run.roster, self.point.saved.load("callbacks"))

    def on_epoch_begin(self, *_args: Any, **_options: Any) -> None:
        """All have heard of the epoch's begin: what comes is its iterator."""
        self.data.note_random()

    def on_epoch_end(self) -> None:
        """All batches are done, and the trainer's callbacks have not heard of it; a validation may come."""
        self.end_batches()
        self.at_epoch_end = True

    def end_batches(self) -> None:
        """The epoch's batches are done."""
        engine = self.engine
        if not engine.in_epoch or engine.batches_done:
            return
        self.end_batch()
        engine.saves_wait = False
        short = self.batches is not None and self.batch + 1 < self.batches
        engine.epoch_cut = short
        engine.log({f"lr/{group}": rate for group, rate in self.run.lr.items()})
        engine.train_epoch_end()

    def closing(self, original: Any) -> Any:
        """See the end of a step, and of an epoch, where the trainer logs, evaluates and saves."""

        def maybe_log_save_evaluate(*args: Any, **options: Any) -> None:
            act = partial(original, *args, **options)
            if self.at_epoch_end:
                self.at_epoch_end = False
                self.end_epoch(act)
            elif self.engine.in_epoch:
                self.end_step(act)
            else:
                act()

        return maybe_log_save_evaluate

    def end_epoch(self, act: Callable[[], None]) -> None:
        """The trainer logs, evaluates and saves at the epoch's end; behind that the epoch is done."""
        engine, control = self.engine, self.trainer.control
        if not engine.in_epoch:  # it has not begun
            control.should_log = control.should_evaluate = control.should_save = False
            return
        self.asked.note_native_stop()
        act()
        self.asked.note_native_stop()
        if engine.epoch_cut and not self.trainer.control.should_training_stop:
            self.saver.resumes = "no"  # the trainer counts epochs by their steps, and one was cut short
        engine.epoch_end()
        self.asked.take_stop(self.trainer.control)

    # -- batches --------------------------------------------------------------------------------------------------

    def showing_batch(self, original: Any) -> Any:
        """Open the batch and log its loss, as it is before it is divided for accumulation."""
        engine, trainer = self.engine, self.trainer

        def training_step(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            if not self.told:
                self.tell()
            self.batch += 1
            engine.batch_start(self.batch, copy(inputs))
            loss = original(model, inputs, *args, **options)
            count = getattr(trainer, "current_gradient_accumulation_steps", self.group)
            engine.log({"train/loss": loss * count if count > 1 else loss})
            return loss

        return training_step

    def tell(self) -> None:
        """Say from where the training goes on: at its first batch it is there."""
        self.told = True
        if self.point is not None:
            tell_resumed(self.point.saved, self.engine, self.data)

    def on_substep_end(self, *_args: Any, **_options: Any) -> None:
        """A batch is done whose gradients wait for more: stops, saves and signals wait with them."""
        self.engine.groups.held = self.engine.saves_wait = True
        with self.asked.signals_wait():
            self.end_batch()
        self.engine.saves_wait = False

    def end_step(self, act: Callable[[], None]) -> None:
        """A step is done: what the trainer logs is its batch's; behind that come its validation, its save, ours."""
        engine = self.engine
        engine.groups.held = False
        self.asked.note_native_stop()
        last = self.at_last_step = self.is_last()
        engine.saves_wait = last or not engine.in_batch
        act()
        if last:
            with self.asked.signals_wait():  # the epoch's end is near
                self.end_batch()
        else:
            self.end_batch()
            engine.saves_wait = False
        self.at_last_step = False
        self.asked.note_native_stop()
        if not (last and self.trainer.args.eval_strategy == "epoch"):  # else that validation answers
            self.asked.validate(act)
        if engine.stop_now():
            self.asked.cut(last=last)
        self.asked.take_what_waited()

    def is_last(self) -> bool:
        """Say whether this is the epoch's last batch, as the trainer plans it."""
        state = self.trainer.state
        return state.global_step >= state.max_steps or (self.batches is not None and self.batch + 1 >= self.batches)

    def end_before_validation(self) -> None:
        """Somebody evaluates: a batch ends before that, and with the epoch's last step its batches."""
        self.end_open_batch()
        if self.at_last_step:
            self.end_batches()

    def end_open_batch(self) -> None:
        """A batch ends before its time; saves and signals wait, for more comes that belongs to its step."""
        if self.engine.in_batch:
            self.engine.saves_wait = True
            with self.asked.signals_wait():
                self.end_batch()

    def end_batch(self) -> None:
        """The batch ends, if it has not."""
        if self.engine.in_batch:
            self.engine.batch_end(self.engine.outputs)

    # -- the rest -------------------------------------------------------------------------------------------------

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_options: Any) -> None:
        """Something was logged: by the trainer, or by the user with ``trainer.log``."""
        if self.engine.in_training and logs:
            self.validations.log(logs)

    def on_save(self, *_args: Any, **_options: Any) -> None:
        """The trainer has written a checkpoint of its own."""
        self.end_open_batch()
        self.engine.fire("on_model_save")

    def on_train_end(self, *_args: Any, **_options: Any) -> None:
        """The training is over; a search that prunes a trial says so in the middle, and then raises."""
        engine, state = self.engine, self.trainer.state
        if engine.in_epoch or not engine.in_training:
            return
        if self.trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.saver.resumes = "no"  # the weights are not those of the last step any more
        engine.train_end()
