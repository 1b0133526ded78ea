"""The moments of a training: what an integration calls, and what then happens, once for every trainer."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from epochal.core.dispatch import BATCH_POINT, BEFORE_STEP, SAFE_POINT, Dispatcher, Slot
from epochal.core.fitness import Fitness
from epochal.core.groups import Groups
from epochal.core.host import Boxes, Predictor, RateHost, Record, Saver, Trial
from epochal.core.inside import go_inside
from epochal.core.metrics import At, Logged, Metrics, Where, final_name
from epochal.core.moment import Ended, Moment
from epochal.core.orders import Orders
from epochal.core.own_state import load_own_state, own_state
from epochal.core.preemption import leave, watch
from epochal.core.rates import Rates
from epochal.core.requests import Requests, ValidationRequest
from epochal.core.rollback import Rollbacks
from epochal.core.saving import flush, save, settle
from epochal.core.serving import serve
from epochal.core.sharing import agree
from epochal.core.stale import speak_of_stale
from epochal.core.tensors import scalars

if TYPE_CHECKING:
    from epochal.core.debug import GrammarWatch
    from epochal.core.run import Run


class Engine:
    """One run's inside: where the training stands, what was asked of it, and the order of things at every moment.

    An integration calls ``begin``, then the moments in the grammar's order, then ``finish``. The verbs of ``Run`` end
    here too. All of it happens on the training thread, except adding requests.
    """

    def __init__(self, run: "Run", fitness: Fitness) -> None:
        self.run = run
        self.dispatcher = Dispatcher()
        self.fitness_rule = fitness
        self.rate_host: RateHost | None = None
        self.saver: Saver | None = None
        self.copying: Callable[[], None] | None = None  # waits until a state that is being copied is whole
        self.predicted: Predictor | None = None  # of the validation batch that is ending
        self.trial: Trial | None = None  # how a copy of the model is trained, where the trainer shows it
        self.restorer: Callable[[Any], None] | None = None  # how a saved model is loaded, where load_into is not enough
        self.rewind: Callable[[Any], None] | None = None  # how a trainer goes back to a checkpoint, where it can
        self.cannot_validate: Callable[[], str | None] | None = None  # why no validation can be asked for, if so
        self.waited: Callable[[float], None] | None = None  # told how long a pause was, for a trainer's own clock
        self.aliases: dict[str, str] = {}
        self.model: Any = None
        self.optimizer: Any = None
        self.trainer: Any = None
        self.rank, self.world_size = 0, 1
        self.agree: Callable[[int], int] | None = None  # the highest of all ranks' numbers
        self.active = False
        self.slots = slots = self.dispatcher.slots
        self.batch_starts, self.batch_ends = slots["on_train_batch_start"], slots["on_train_batch_end"]
        self.steps, self.gradients = slots["optimizer_step"], slots["on_before_zero_grad"]
        self.policies, self.batch_policies, self.before_steps = (
            slots[one] for one in (SAFE_POINT, BATCH_POINT, BEFORE_STEP)
        )
        self.grammar_watch: GrammarWatch | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the training before: a new one begins."""
        self.metrics = Metrics(self.aliases)
        self.requests = Requests()
        self.orders = Orders(self)
        self.rollbacks = Rollbacks()
        self.rates = Rates()
        self.history: list[Mapping[str, float]] = []  # frozen rows
        self.params: dict[str, Any] = {}
        self.sinks: tuple[Callable[[Record], None], ...] = ()
        self.record: Callable[[Logged, Where], None] | None = None  # takes metrics into the run's store
        self.answer: Callable[[str, str, str], None] | None = None  # tells who sent a command what became of it
        self.note: Callable[[str, str, str, Mapping[str, Any]], None] | None = None  # writes down what happened
        self.offering: Callable[[], None] | None = None  # told that other commands are offered now
        self.when_over: list[Callable[[], None]] = []  # called after teardown, when the summary is whole
        self.notes: list[str] = []  # what the summary at the end must say
        self.checkpoint_error: Exception | None = None
        self.checkpoint_errors = 0
        self.parting: list[BaseException] = []  # what is raised once the trainer has returned
        self.fitness_rule.reset()
        self.end_reason: str | None = None
        self.error: BaseException | None = None
        self.stepping: Any = None  # the optimizer that is about to step
        self.step_skipped = False
        self.epoch = self.next_epoch = self.batch = self.val_batch = 0
        self.num_epochs: int | None = None
        self.num_batches: int | None = None
        self.num_val_batches: int | None = None
        self.step = self.batches = 0
        self.data = self.outputs = None
        self.in_training = self.in_epoch = self.in_batch = self.in_validation = self.in_val_batch = False
        self.batches_done = self.epoch_cut = self.rates_taken = self.warned_stale = False
        self.saves_wait = False  # the user's code in the body of a batch has not run to its end
        self.asked = self.counts = False  # a validation that was asked for; policies look at it
        self.answering: list[ValidationRequest] = []  # those that the running validation is an answer to
        self.reentry: Mapping[str, Any] | None = None  # the state in which an epoch may begin again
        self.groups = Groups()
        self.scopes: list[str] = []  # what has started and not ended, the innermost last
        self.started = time.monotonic()
        self.thread = get_ident()

    # -- logging ------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, Any]) -> None:
        """Take metrics; from another thread they wait for the next safe point."""
        if get_ident() != self.thread:
            self.requests.add_log(scalars(values))
            return
        validating = self.in_validation
        in_batch = self.in_val_batch if validating else self.in_batch
        batch = (self.val_batch if validating else self.batch) if in_batch else None
        in_epoch, metrics = self.in_epoch, self.metrics
        at = (self.epoch, batch, self.step)
        if validating and not in_epoch:
            values = {final_name(metrics.canonical(name)): value for name, value in values.items()}
        logged = metrics.log(values, at, batch=in_batch and (in_epoch or validating), validation=validating)
        if self.sinks:
            if self.record is not None:
                self.record(logged, at)
            if self.record is None or len(self.sinks) > 1:
                self.publish("metrics", dict(zip(*logged, strict=True)), At(*at))

    def add_sink(self, sink: Callable[[Record], None]) -> None:
        """Hand everything that is logged to ``sink`` from now on, until this training ends."""
        self.sinks = (*self.sinks, sink)

    def publish(self, kind: str, values: Mapping[str, Any], at: At | None = None, boxes: Boxes = ()) -> None:
        """Hand something to every logger; they read it off this thread."""
        record = Record(kind, values, at or At(self.epoch, None, self.step), time.time(), boxes)
        for sink in self.sinks:
            sink(record)

    def drain(self) -> None:
        """Take what other threads logged."""
        logs = self.requests.logs
        while logs:
            self.log(logs.popleft())

    # -- events and safe points ---------------------------------------------------------------------------------

    def slot(self, event: str) -> Slot:
        """Return an event's slot, for integrations that test it in their inner loop."""
        return self.slots[event]

    def fire(self, event: str) -> None:
        """Deliver an event."""
        slot = self.slots[event]
        if slot.calls:
            slot.fire(self.run)

    def safe_point(self, ended: Ended, settled: Mapping[str, float] | None = None) -> None:
        """Ask the policies, then take what was asked for; called after all callbacks of a moment."""
        now: Moment | None = None
        policies = self.batch_policies if ended == "batch" else self.policies
        if policies.calls:
            now = self.moment(ended, settled)
            policies.ask(self.run, now)
        if self.requests.waiting:
            serve(self, now, ended, settled)

    def moment(self, ended: Ended, settled: Mapping[str, float] | None) -> Moment:
        """Describe this safe point to the conditions."""
        arrived = self.metrics.arrived(wait=ended == "epoch") if self.metrics.watched else {}
        batch = self.batch if ended == "batch" else None
        return Moment(ended, self.epoch, batch, self.step, time.monotonic() - self.started, settled or {}, arrived)

    def apply_rates(self) -> None:
        """Take the learning rates that were asked for; the first request makes the trainer's side listen."""
        requests = self.requests.rates
        while requests:
            kind, value, group = requests.popleft()
            if kind == "set":
                self.rates.override(value, group)
            elif value is not None:
                self.rates.scale(value, group)
        self.take_over_rates()

    def take_over_rates(self) -> None:
        """Let our rates decide at every step from now on."""
        if not self.rates_taken and self.rate_host is not None:
            self.rates_taken = True
            self.rate_host.take_over()

    # -- the moments of a training ------------------------------------------------------------------------------

    def train_start(self, num_epochs: int | None, num_batches: int | None = None) -> None:
        """``on_train_start``; the clock of this process starts."""
        self.num_epochs, self.num_batches = num_epochs, num_batches
        self.in_training = True
        self.scopes.append("train")
        self.started = time.monotonic()
        watch(self)
        self.run.roster.tell_differences()
        self.fire("on_train_start")

    def epoch_start(self, epoch: int, num_batches: int | None = None) -> None:
        """``on_train_epoch_start``."""
        self.epoch, self.num_batches = epoch, num_batches if num_batches is not None else self.num_batches
        self.in_epoch, self.batches_done, self.epoch_cut = True, False, False
        self.fitness_rule.validated = False
        self.metrics.begin_epoch()
        go_inside(self, self.reentry)
        self.reentry = None
        self.scopes += ("epoch", "batches")
        self.fire("on_train_epoch_start")

    def batch_start(self, batch: int, data: Any = None) -> None:
        """``on_train_batch_start``; ``batch`` is the index in the epoch."""
        self.batch, self.data, self.outputs = batch, data, None
        self.in_batch = True
        self.groups.since_step += 1
        self.scopes.append("batch")
        if self.batch_starts.calls:
            self.batch_starts.fire(self.run)

    def before_step(self, optimizer: Any) -> bool:
        """Show the gradients to whoever asked for them; say whether the step is to be done."""
        self.stepping, self.step_skipped = optimizer, False
        try:
            self.before_steps.ask(self.run, optimizer)
        finally:
            self.stepping = None
        return not self.step_skipped

    def stepped(self, *, counts: bool = True) -> None:
        """``optimizer_step`` and ``on_before_zero_grad``; ``counts``: this optimizer's steps are ``run.step``."""
        if counts:
            self.step += 1
            self.groups.stepped()
        if self.in_epoch and not self.in_validation and not self.batches_done:
            if self.steps.calls:
                self.scopes.append("step")
                self.steps.fire(self.run)
                self.scopes.pop()
            if self.gradients.calls:
                self.gradients.fire(self.run)

    def batch_end(self, outputs: Any = None) -> None:
        """``on_train_batch_end`` and the safe point behind it."""
        requests = self.requests
        self.scopes.pop()
        self.outputs = outputs
        self.batches += 1
        if requests.logs:
            self.drain()
        if self.batch_ends.calls:
            self.batch_ends.fire(self.run)
        self.in_batch = False
        if self.batch_policies.calls or requests.waiting:
            self.safe_point("batch")
        self.data = self.outputs = None

    def train_epoch_end(self) -> None:
        """``on_train_epoch_end``: train metrics are the epoch's means from here on."""
        settle(self)
        self.batches_done = True
        self.scopes.pop()
        self.drain()
        self.metrics.end_batches(At(self.epoch, None, self.step))
        self.metrics.on_read = None if self.warned_stale else partial(speak_of_stale, self)
        try:
            self.fire("on_train_epoch_end")
        finally:
            self.metrics.on_read = None

    def val_start(self, num_val_batches: int | None = None) -> None:
        """``on_val_start``; outside an epoch it is a validation that decides nothing."""
        settle(self)
        if self.in_epoch:
            self.answering, self.requests.validations = self.requests.validations, []
        self.in_validation, self.num_val_batches, self.val_batch = True, num_val_batches, 0
        self.scopes.append("validation")
        self.fire("on_val_start")

    def val_batch_start(self, batch: int, data: Any = None) -> None:
        """``on_val_batch_start``."""
        self.val_batch, self.data, self.outputs = batch, data, None
        self.in_val_batch = True
        self.scopes.append("val_batch")
        self.fire("on_val_batch_start")

    def val_batch_end(self, outputs: Any = None) -> None:
        """``on_val_batch_end``."""
        self.scopes.pop()
        self.outputs = outputs
        self.fire("on_val_batch_end")
        self.in_val_batch = False
        self.data = self.outputs = None
        if self.requests.signals:
            leave(self, Moment("validation", self.epoch, None, self.step))

    def val_end(self) -> None:
        """``on_val_end``; inside an epoch what the validation logged settles and the policies are asked."""
        self.scopes.pop()
        self.drain()
        counts = self.in_epoch and (self.counts or not self.asked)
        looked = self.in_epoch and not counts
        self.metrics.end_validation(At(self.epoch, None, self.step), settles=counts, looked=looked)
        if counts:
            self.measure_fitness()
        self.fire("on_val_end")
        settled = None
        if counts:
            self.measure_fitness()
            settled = self.fitness_rule.settle(self.metrics, validation=True)
        self.in_validation = False
        self.validated()
        if looked:
            self.fitness_rule.native = None
        if counts:
            self.safe_point("validation", settled)
        elif looked and self.requests.waiting:
            serve(self, None, "validation", None)

    def validated(self, error: Exception | None = None) -> None:
        """Answer those who asked for the validation that is over."""
        answered, self.answering = self.answering, []
        self.orders.validated(answered, error)

    def epoch_end(self) -> None:
        """``on_fit_epoch_end`` and the safe point behind it; the epoch joins the history."""
        self.scopes.pop()
        self.drain()
        self.measure_fitness()
        self.history.append(self.metrics.history_row())
        self.fire("on_fit_epoch_end")
        self.drain()
        self.measure_fitness()
        self.history[-1] = self.metrics.history_row()
        settled = self.fitness_rule.settle(self.metrics, validation=False)
        self.in_epoch, self.next_epoch = False, self.epoch + 1
        agree(self)
        self.safe_point("epoch", settled)

    def measure_fitness(self) -> None:
        """Take the fitness if it was newly measured."""
        self.fitness_rule.measure(self.metrics, At(self.epoch, None, self.step), validating=self.in_validation)

    def abort_epoch(self) -> None:
        """``on_train_epoch_abort``: the epoch is given up; what it measured does not count."""
        settle(self)
        self.in_batch = self.in_val_batch = self.in_validation = self.in_epoch = False
        if "epoch" in self.scopes:  # else it is given up at its end
            del self.scopes[self.scopes.index("epoch") :]
        self.fire("on_train_epoch_abort")
        self.metrics.forget_epoch()
        self.fitness_rule.new = self.fitness_rule.native = None

    def train_end(self) -> None:
        """``on_train_end``; a checkpoint asked for in it is still written."""
        self.drain()
        self.end_reason = self.end_reason or ("stopped" if self.requests.stops else "completed")
        self.in_training = False
        self.scopes.clear()
        flush(self)  # callbacks look for the best checkpoint
        self.fire("on_train_end")
        if self.requests.saves:
            save(self, self.moment("epoch", None))

    def restore(self, saved: Any) -> None:
        """Load a checkpoint's model into the model in use."""
        settle(self)
        if self.restorer is not None:
            self.restorer(saved)
        else:
            saved.load_into(self.model)

    def stop_now(self) -> bool:
        """Say whether a stop may be taken after this batch: not inside a running accumulation group."""
        if self.world_size > 1:
            return False  # ranks agree at epoch ends only
        return bool(self.requests.stops) and not self.groups.unfinished(self.epoch)

    # -- the run's own state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the run's own state, to be saved beside the callbacks'."""
        return own_state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        load_own_state(self, state)
