"""The scenarios of the contract suite of integrations: each trains, looks, and returns what a witness saw last."""

from collections.abc import Callable, Mapping
from math import isclose
from typing import Any, NamedTuple

from epochal.core.callback import Callback
from epochal.core.events import EVENT_NAMES, check_events
from epochal.core.run import Run
from epochal.testing.failures import (
    ctrl_c,
    ctrl_c_as_a_signal,
    error_after_the_training,
    error_in_a_callback,
    error_in_a_step,
    error_in_a_validation,
    raised_by,
)
from epochal.testing.steering import pause, validate
from epochal.testing.witness import EPOCHS, At, Planted, Train, Witness, check, expect, trained_weights

SOMETIMES = frozenset({"on_resume", "on_train_epoch_abort", "on_model_save", "on_exception"})
OF_LOADERS = frozenset({"on_val_batch_start", "on_val_batch_end"})  # a validation need not have batches


class Scenario(NamedTuple):
    """One scenario, the keyword that ``train`` must take for it, and what the run must provide."""

    play: Callable[[Train], Witness]
    takes: str = ""
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name under which its outcome is told."""
        return self.play.__name__


def normal(train: Train) -> Witness:
    """Epochs, batches and steps are counted the same everywhere, and values are fresh when promised."""
    witness = Witness()
    fresh: list[tuple[int | None, int]] = []
    validated: list[tuple[int | None, int]] = []

    def validate(run: Run) -> None:
        if run.engine.in_epoch:
            validated.append((epoch_of("val/loss", run), run.epoch))

    end = At("on_fit_epoch_end", lambda run: fresh.append((epoch_of("val/loss", run), run.epoch)), None)
    run = train([witness, At("on_val_end", validate, None), end], EPOCHS)
    check(bool(witness.events), "no event came: attach the callbacks that train is given, before it trains")
    expect(run.end_reason, "completed", "end_reason")
    expect([one.epoch for one in witness.at("on_fit_epoch_end")], list(range(EPOCHS)), "epochs at on_fit_epoch_end")
    for epoch in range(EPOCHS):
        batches = [one.batch for one in witness.at("on_train_batch_end") if one.epoch == epoch]
        expect(batches, list(range(len(batches))), f"batches of epoch {epoch}")
    steps = [one.step for one in witness.at("optimizer_step")]
    expect(steps, list(range(1, len(steps) + 1)), "run.step at optimizer_step")
    check(not witness.at("on_train_batch_end") or run.step > 0, "run.step is 0: engine.stepped() tells of each step")
    expect(fresh, [(epoch, epoch) for epoch in range(EPOCHS)], "epochs of val/loss at on_fit_epoch_end")
    late = [pair for pair in validated if pair[0] != pair[1]]
    expect(late, [], "epochs of val/loss at on_val_end, and of that validation: it is logged before engine.val_end()")
    expect(len(run.history), EPOCHS, "epochs in run.history")
    came, provided = frozenset(witness.events), run.roster.provides & frozenset(EVENT_NAMES)
    expect(sorted(came - provided - SOMETIMES), [], "events that came and are not provided")
    expect(sorted(provided - came - SOMETIMES - OF_LOADERS), [], "events that are provided and never came")
    return witness


def the_runs_facts(train: Train) -> Witness:
    """What a run shows in a batch is there: numbers, model, and the data where it is provided."""
    witness = Witness()
    found: list[dict[str, Any]] = []
    names = ("num_epochs", "num_batches", "model", "trainer", "data")
    look = At("on_train_batch_end", lambda run: found.append({name: getattr(run, name) for name in names}), None)
    run = train([look, witness], EPOCHS)
    batches = len(witness.at("on_train_batch_end")) // EPOCHS
    for one in found:
        expect(one["num_epochs"], EPOCHS, "run.num_epochs")
        check(one["num_batches"] in (None, batches), f"run.num_batches: {one['num_batches']}, expected {batches}")
        wanted = ("model", "trainer", *({"data"} & run.roster.provides))
        empty = [name for name in wanted if one[name] is None]
        expect(empty, [], "what is None in a batch")
    expect((run.data, run.outputs), (None, None), "run.data and run.outputs after the training")
    return witness


class Outputs(At):
    """Looks at what the model returned, which some trainers show only to who requires it."""

    requires = frozenset({"outputs"})


def the_outputs(train: Train) -> Witness:
    """What the model returned for a batch is there at its end."""
    witness = Witness()
    found: list[bool] = []
    train([Outputs("on_train_batch_end", lambda run: found.append(run.outputs is not None), None), witness], EPOCHS)
    expect(found, [True] * len(witness.at("on_train_batch_end")), "run.outputs is there at on_train_batch_end")
    return witness


def epoch_of(name: str, run: Run) -> int | None:
    """Return the epoch in which a metric was measured last, or None before it was."""
    return run.metrics.measured(name).epoch if name in run.metrics else None


def the_mean_of_an_epoch(train: Train) -> Witness:
    """A loss logged in batches is the batch's own there, and the epoch's mean from on_train_epoch_end on."""
    witness = Witness()
    seen: dict[int, list[float]] = {epoch: [] for epoch in range(EPOCHS)}
    means: list[float | None] = []
    late: list[tuple[int | None, int]] = []

    def look(run: Run) -> None:
        if epoch_of("train/loss", run) == run.epoch:  # where it comes with the epoch, it is the one before's
            measured = run.metrics.measured("train/loss")
            seen[run.epoch].append(measured.value)
            late.extend([] if measured.batch == run.batch else [(measured.batch, run.batch)])

    batch = At("on_train_batch_end", look, None)
    end = At("on_train_epoch_end", lambda run: means.append(run.metrics.get("train/loss")), None)
    run = train([batch, end, witness], EPOCHS)
    expect(
        late, [], "batches of train/loss at on_train_batch_end, and the batch: it is logged before engine.batch_end()"
    )
    for epoch, of_batches in seen.items():
        whole = len(of_batches) == len([one for one in witness.at("on_train_batch_end") if one.epoch == epoch])
        mean = means[epoch]
        if of_batches and whole and mean is not None:
            wanted = sum(of_batches) / len(of_batches)
            check(isclose(mean, wanted, rel_tol=1e-4), f"train/loss at on_train_epoch_end: {mean}, mean is {wanted}")
            expect(run.history[epoch]["train/loss"], mean, "train/loss in run.history")
    return witness


def stop_in_a_batch(train: Train) -> Witness:
    """No further batch runs; the epoch's validation and end still come."""
    witness = Witness()

    def save(run: Run) -> None:
        if "save" in run.roster.provides:
            run.save("the end of a part of an epoch")

    stop = At("on_train_batch_end", lambda run: run.stop("planted"), 2)
    run = train([stop, At("on_fit_epoch_end", save), witness], EPOCHS)
    expect(run.end_reason, "stopped", "end_reason")
    expect(len(witness.at("on_train_batch_end")), 2, "batches done")
    expect(len(witness.at("on_fit_epoch_end")), 1, "epochs ended")
    check(witness.events.count("on_val_start") > 0, "no validation came after the stop")
    check("planted" in (run.stop_reason or ""), f"stop_reason is {run.stop_reason!r}")
    points = [one.manifest.resume_point for one in run.checkpoints if "a part of" in one.manifest.reason]
    check(not any(points), "what is left of the epoch would be skipped by a resume: engine.epoch_cut was not set")
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


def guarded_failure(train: Train) -> Witness:
    """A guarded callback's failure is counted and the training goes on."""
    witness = Witness()

    def fail(_run: Run) -> None:
        raise Planted("planted, to be survived")

    run = train([At("on_fit_epoch_end", fail, guarded=True), witness], EPOCHS)
    expect(run.end_reason, "completed", "end_reason")
    expect(sum(run.past[-1].failures.values()), 1, "failures counted")
    return witness


def mid_epoch_validation(train: Train) -> Witness:
    """A validation after two batches and one at the end: the epoch goes on between, and ends once."""
    witness = Witness()
    measured: list[tuple[int, int | None]] = []
    fresh = At("on_val_end", lambda run: measured.append((run.metrics.measured("val/loss").epoch, run.epoch)), None)
    run = train([witness, fresh], EPOCHS, validations=2)
    for epoch in range(EPOCHS):
        events = [one.event for one in witness.seen if one.epoch == epoch]
        events = events[events.index("on_train_epoch_start") : events.index("on_fit_epoch_end")]
        expect(events.count("on_val_start"), 2, f"validations of epoch {epoch}")
        first = events.index("on_val_start")
        if "on_train_batch_end" in run.roster.provides:
            expect(events[:first].count("on_train_batch_end"), 2, f"batches before the first validation of {epoch}")
        last, batches_end = len(events) - events[::-1].index("on_val_start"), events.index("on_train_epoch_end")
        check(first < batches_end < last, "on_train_epoch_end is not between the epoch's validations")
    expect([one for one in measured if one[0] != one[1]], [], "stale val/loss at on_val_end")
    expect(len(run.history), EPOCHS, "epochs in run.history")
    return witness


def accumulation(train: Train) -> Witness:
    """Two batches make one step; the first of the two has none."""
    witness = Witness()
    train([witness], EPOCHS, accumulation=2)
    ends = witness.at("on_train_batch_end")
    for number, one in enumerate(ends, start=1):
        expect(one.step, number // 2, f"run.step at the end of batch {number}")
    if steps := witness.at("optimizer_step"):
        expect([one.batch % 2 for one in steps], [1] * (len(ends) // 2), "batches that step")
    return witness


def stop_in_a_group(train: Train) -> Witness:
    """A stop in the first batch of an accumulation group, not of the very first, is taken after the group's step."""
    witness = Witness()
    run = train([At("on_train_batch_end", lambda run: run.stop("planted"), 3), witness], EPOCHS, accumulation=2)
    expect((len(witness.at("on_train_batch_end")), run.step), (4, 2), "batches and steps done")
    expect(run.end_reason, "stopped", "end_reason")
    return witness


class Rates(Callback):
    """Writes down the learning rates that every batch begins with."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Mapping[str, float]] = {}

    def on_train_batch_start(self, run: Run) -> None:
        """Write them down."""
        self.found[run.epoch, run.batch] = dict(run.lr)


def learning_rate(train: Train) -> Witness:
    """A rate that was set holds at every step, whatever the schedule; given back, the schedule goes on unseen."""
    witness, plain, changed = Witness(), Rates(), Rates()
    weights: list[list[bytes] | None] = []

    def keep(run: Run) -> None:
        weights.append(trained_weights(run.model))

    halve = At("on_train_start", lambda run: run.scale_lr(0.5))
    freeze = At("on_train_batch_end", lambda run: (run.set_lr(0.0), keep(run)), 2)
    thaw = At("on_train_epoch_start", lambda run: (keep(run), run.set_lr(None)), 2)
    usual = train([plain], EPOCHS)
    run = train([halve, freeze, thaw, changed, witness, At("on_train_end", keep)], EPOCHS)
    expect(list(changed.found), list(plain.found), "batches")
    for (epoch, batch), rates in changed.found.items():
        factor = 0.5 if batch < 2 or epoch else 0.0
        for group, rate in rates.items():
            wanted = factor * plain.found[epoch, batch][group]
            check(isclose(rate, wanted, rel_tol=1e-6), f"rate of {group} in {epoch}.{batch}: {rate}, expected {wanted}")
    check(weights[0] == weights[1], "weights changed although the rate is 0")
    check(weights[2] is None or weights[1] != weights[2], "weights did not change although the rate was given back")
    moved = any(losses(name, run) != losses(name, usual) for name in ("train/loss", "val/loss"))
    check(weights[0] is not None or moved, "other rates, the same losses: the trainer does not use those of run.lr")
    return witness


def save_on_request(train: Train) -> Witness:
    """What a callback asks to save is a checkpoint, pinned, with on_model_save."""
    witness = Witness()
    run = train([At("on_fit_epoch_end", lambda run: run.save("planted")), witness], EPOCHS)
    check("on_model_save" in witness.events, "on_model_save did not come")
    found = [one.manifest for one in run.checkpoints if "planted" in one.manifest.reason]
    expect([(one.epoch, one.pinned) for one in found], [(0, True)], "checkpoints asked for")
    return witness


class Counter(Callback):
    """Counts epochs, in its state."""

    def __init__(self) -> None:
        self.epochs = 0
        self.at_start: int | None = None

    def on_train_start(self, run: Run) -> None:
        """Write down what was known."""
        self.at_start = self.epochs

    def on_train_epoch_start(self, run: Run) -> None:
        """Count."""
        self.epochs += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the count back."""
        self.epochs = state["epochs"]


def resume(train: Train) -> Witness:
    """A training that failed in its second epoch goes on there, and measures what one measures that did not fail."""
    from epochal.callbacks.checkpoint import Checkpoint

    error, before, witness, counter = Planted("planted"), Witness(), Witness(), Counter()

    def fail(_run: Run) -> None:
        raise error

    whole = train([], EPOCHS)
    failing_run = raised_by(
        lambda: train([Checkpoint(), At("on_train_epoch_start", fail, 2), Counter(), before], EPOCHS)
    )
    check(failing_run is error, f"{failing_run!r} came out of the training, expected {error!r}")
    check_events(before.events)
    run = train([Checkpoint(), counter, witness], EPOCHS, resume=True)
    expect(run.end_reason, "completed", "end_reason")
    expect(witness.events.count("on_resume"), 1, "number of on_resume")
    check(witness.events.index("on_resume") < witness.events.index("on_train_start"), "on_resume after on_train_start")
    expect([one.epoch for one in witness.at("on_train_epoch_start")], [1], "epochs begun")
    expect(witness.at("on_train_epoch_start")[0].step, before.at("on_fit_epoch_end")[-1].step, "step at the start")
    expect(counter.at_start, 1, "epochs that a callback's state has counted")
    expect(run.step, whole.step, "steps in all")
    for name in ("train/loss", "val/loss"):
        expect(losses(name, run), losses(name, whole), f"{name} of every epoch, beside a training that did not fail")
    return witness


def losses(name: str, run: Run) -> list[float | None]:
    """Return what every epoch of a run measured of a loss."""
    return [row.get(name) for row in run.history]


def two_trainings(train: Train) -> Witness:
    """Callbacks serve one training after the other, and decide the same."""
    stop, witness = At("on_fit_epoch_end", lambda run: run.stop("planted")), Witness()
    train([stop, witness], EPOCHS)
    first = list(witness.seen)
    witness.seen.clear()
    stop.count = 0
    train([stop, witness], EPOCHS)
    expect(witness.seen, first, "the second training's events")
    return witness


IN_BATCHES = frozenset({"on_train_batch_start", "on_train_batch_end"})
SCENARIOS: tuple[Scenario, ...] = (
    Scenario(normal),
    Scenario(the_runs_facts, needs=IN_BATCHES),
    Scenario(the_outputs, needs=IN_BATCHES | {"outputs"}),
    Scenario(the_mean_of_an_epoch, needs=IN_BATCHES),
    Scenario(stop_in_a_batch, needs=IN_BATCHES | {"stop_in_batch"}),
    Scenario(stop_at_an_epochs_end),
    Scenario(error_in_a_step, takes="error"),
    Scenario(error_in_a_callback, needs=IN_BATCHES),
    Scenario(error_in_a_validation),
    Scenario(ctrl_c, needs=IN_BATCHES),
    Scenario(ctrl_c_as_a_signal, needs=IN_BATCHES),
    Scenario(error_after_the_training),
    Scenario(guarded_failure),
    Scenario(mid_epoch_validation, takes="validations"),
    Scenario(accumulation, takes="accumulation", needs=IN_BATCHES),
    Scenario(stop_in_a_group, takes="accumulation", needs=IN_BATCHES | {"stop_in_batch"}),
    Scenario(learning_rate, needs=IN_BATCHES | {"set_lr"}),
    Scenario(pause, needs=IN_BATCHES | {"pause"}),
    Scenario(validate, needs=IN_BATCHES | {"validate"}),
    Scenario(save_on_request, needs=frozenset({"save"})),
    Scenario(resume, takes="resume", needs=frozenset({"save"})),
    Scenario(two_trainings),
)
