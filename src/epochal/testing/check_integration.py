"""The contract suite of integrations: one list of scenarios, run on any trainer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from epochal.core.callback import Callback
from epochal.core.events import EVENT_NAMES, check_events
from epochal.core.run import Run

Train = Callable[[Sequence[Callback], int], Run]
EPOCHS = 2


class Seen(NamedTuple):
    """One event as a callback saw it."""

    event: str
    epoch: int
    batch: int
    step: int


class Witness(Callback):
    """Writes down every event with the numbers that the run showed at it."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    @property
    def events(self) -> list[str]:
        """The names of the events, in their order."""
        return [one.event for one in self.seen]

    def at(self, event: str) -> list[Seen]:
        """Return what was seen at one event."""
        return [one for one in self.seen if one.event == event]


def _recorder(event: str) -> Any:
    def record(self: Witness, run: Run) -> None:
        self.seen.append(Seen(event, run.epoch, run.batch, run.step))

    record.__name__, record.__doc__ = event, f"Write {event} down."
    return record


for _event in EVENT_NAMES:
    setattr(Witness, _event, _recorder(_event))


class At(Callback):
    """Calls a function once, at the n-th occurrence of an event."""

    def __init__(self, event: str, act: Callable[[Run], Any], occurrence: int = 1, *, guarded: bool = False) -> None:
        self.event, self.act, self.occurrence, self.guarded = event, act, occurrence, guarded
        self.count = 0
        setattr(self, event, self.happen)

    def happen(self, run: Run) -> None:
        """Count, and act when it is time."""
        self.count += 1
        if self.count == self.occurrence:
            self.act(run)


class Planted(Exception):
    """The error that scenarios plant."""


def check_integration(train: Train) -> dict[str, list[str]]:
    """Run every scenario on a trainer; AssertionError names the scenario and what is wrong in it.

    ``train(callbacks, epochs)`` makes a fresh, small training (at least three batches and one validation per epoch),
    attaches the callbacks, trains, lets errors through, and returns the run. Returns each scenario's trace.

    >>> import torch
    >>> from epochal import Loop
    >>> def train(callbacks, epochs):
    ...     net = torch.nn.Linear(1, 1)
    ...     optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ...     with Loop(model=net, optimizer=optimizer, callbacks=callbacks) as run:
    ...         for _ in run.epochs(epochs):
    ...             for x in run.batches([torch.ones(1)] * 3):
    ...                 loss = net(x).square().mean()
    ...                 optimizer.zero_grad(), loss.backward(), optimizer.step()
    ...                 run.log({"train/loss": loss})
    ...             with run.validation():
    ...                 run.log({"val/loss": 1.0})
    ...     return run
    >>> sorted(check_integration(train))[:3]
    ['ctrl_c', 'error_after_the_training', 'error_in_a_callback']
    """
    traces: dict[str, list[str]] = {}
    for scenario in SCENARIOS:
        name = scenario.__name__
        try:
            traces[name] = scenario(train).events
            check_events(traces[name])
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"scenario {name!r}: {error}") from error
    return traces


def normal(train: Train) -> Witness:
    """Epochs, batches and steps are counted the same everywhere, and values are fresh when promised."""
    witness = Witness()
    fresh: list[tuple[int, int]] = []
    reads = At("on_fit_epoch_end", lambda run: fresh.append((run.metrics.measured("val/loss").epoch, run.epoch)))
    run = train([witness, reads], EPOCHS)
    expect(run.end_reason, "completed", "end_reason")
    expect([one.epoch for one in witness.at("on_fit_epoch_end")], list(range(EPOCHS)), "epochs at on_fit_epoch_end")
    for epoch in range(EPOCHS):
        batches = [one.batch for one in witness.at("on_train_batch_end") if one.epoch == epoch]
        expect(batches, list(range(len(batches))), f"batches of epoch {epoch}")
    steps = [one.step for one in witness.at("optimizer_step")]
    expect(steps, list(range(1, len(steps) + 1)), "run.step at optimizer_step")
    expect(fresh, [(0, 0)], "epoch of val/loss at the first on_fit_epoch_end")
    expect(len(run.history), EPOCHS, "epochs in run.history")
    return witness


def stop_in_a_batch(train: Train) -> Witness:
    """No further batch runs; the epoch's validation and end still come."""
    witness = Witness()
    run = train([At("on_train_batch_end", lambda run: run.stop("planted"), 2), witness], EPOCHS)
    expect(run.end_reason, "stopped", "end_reason")
    expect(len(witness.at("on_train_batch_end")), 2, "batches done")
    expect(len(witness.at("on_fit_epoch_end")), 1, "epochs ended")
    check("planted" in (run.stop_reason or ""), f"stop_reason is {run.stop_reason!r}")
    return witness


def stop_at_an_epochs_end(train: Train) -> Witness:
    """The training ends after the epoch; every request is kept."""
    witness = Witness()
    stops = [At("on_fit_epoch_end", lambda run, text=text: run.stop(text)) for text in ("first", "second")]
    run = train([*stops, witness], EPOCHS + 1)
    expect(len(witness.at("on_train_epoch_start")), 1, "epochs begun")
    reason = run.stop_reason or ""
    check(0 <= reason.find("first") < reason.find("second"), f"stop_reason is {reason!r}")
    return witness


def error_in_a_callback(train: Train) -> Witness:
    """The error propagates unchanged, with a note; on_exception and teardown still come."""
    return failing(train, Planted("planted"), "on_train_batch_end", "exception")


def ctrl_c(train: Train) -> Witness:
    """Ctrl-C ends a training as an error does."""
    return failing(train, KeyboardInterrupt(), "on_train_batch_start", "interrupted")


def failing(train: Train, error: BaseException, event: str, reason: str) -> Witness:
    """Raise in a callback and look at how the training ends."""
    witness = Witness()
    runs: list[Run] = []

    def fail(run: Run) -> None:
        runs.append(run)
        raise error

    came_out: BaseException | None = None
    try:
        train([At(event, fail, 2), witness], EPOCHS)
    except BaseException as caught:
        came_out = caught
    check(came_out is error, f"{came_out!r} came out of the training, expected {error!r}")
    expect(witness.events[-1], "teardown", "last event")
    expect(witness.events.count("teardown"), 1, "number of teardowns")
    expect(witness.events.count("on_exception"), 1, "number of on_exception")
    expect(runs[0].end_reason, reason, "end_reason")
    return witness


def guarded_failure(train: Train) -> Witness:
    """A guarded callback's failure is counted and the training goes on."""
    witness = Witness()

    def fail(_run: Run) -> None:
        raise Planted("planted, to be survived")

    run = train([At("on_fit_epoch_end", fail, guarded=True), witness], EPOCHS)
    expect(run.end_reason, "completed", "end_reason")
    expect(sum(run.past[-1].failures.values()), 1, "failures counted")
    return witness


def error_after_the_training(train: Train) -> Witness:
    """What a callback wants raised after the training is raised when the trainer has ended as always."""
    witness, error = Witness(), Planted("planted")
    runs: list[Run] = []

    def ask(run: Run) -> None:
        runs.append(run)
        run.raise_after(error)
        run.stop("planted")

    came_out: BaseException | None = None
    try:
        train([At("on_fit_epoch_end", ask), witness], EPOCHS)
    except Planted as caught:
        came_out = caught
    check(came_out is error, f"{came_out!r} came out of the training, expected {error!r}")
    expect(runs[0].end_reason, "stopped", "end_reason")
    expect(witness.events[-1], "teardown", "last event")
    expect(witness.events.count("on_exception"), 0, "number of on_exception")
    expect(runs[0].engine.active, False, "still training")
    return witness


def learning_rate(train: Train) -> Witness:
    """A rate that was set is the rate of the next step; given back, the schedule goes on."""
    witness = Witness()
    rates: list[float] = []
    set_it = At("on_train_batch_end", lambda run: run.set_lr(0.0123))
    run = train([set_it, At("on_train_batch_start", lambda run: rates.extend(run.lr.values()), 2), witness], EPOCHS)
    expect(set(rates), {0.0123}, "run.lr after set_lr(0.0123)")
    expect(run.end_reason, "completed", "end_reason")
    return witness


def the_same_callbacks_again(train: Train) -> Witness:
    """Callbacks serve one training after the other, and decide the same."""
    stop, witness = At("on_fit_epoch_end", lambda run: run.stop("planted")), Witness()
    train([stop, witness], EPOCHS)
    first = list(witness.seen)
    witness.seen.clear()
    stop.count = 0
    train([stop, witness], EPOCHS)
    expect(witness.seen, first, "the second training's events")
    return witness


SCENARIOS: tuple[Callable[[Train], Witness], ...] = (
    normal,
    stop_in_a_batch,
    stop_at_an_epochs_end,
    error_in_a_callback,
    ctrl_c,
    error_after_the_training,
    guarded_failure,
    learning_rate,
    the_same_callbacks_again,
)


def expect(found: object, wanted: object, what: str) -> None:
    """Raise AssertionError unless two values are equal.

    >>> expect(1, 2, "steps")
    Traceback (most recent call last):
    AssertionError: steps: 1, expected 2
    """
    check(found == wanted, f"{what}: {found!r}, expected {wanted!r}")


def check(holds: bool, what: str) -> None:
    """Raise AssertionError unless something holds."""
    if not holds:
        raise AssertionError(what)
