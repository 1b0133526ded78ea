"""Requests: stops are or-ed, saves are taken where they were asked for, learning rates are set and scaled."""

import logging
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal import Callback, Checkpoint, Every
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.core.rates import Rates
from epochal.core.requests import SaveRequest
from epochal.core.run import Run
from epochal.testing import RecordEvents, simulate

LOSSES = [{"val/loss": 1.0}] * 4


class Do(Callback):
    def __init__(self, label="", **at):
        if label:
            self.name = label
        for event, fn in at.items():
            setattr(self, event, fn)


# -- stop -------------------------------------------------------------------------------------------------------------


def test_stops_are_or_ed_in_their_order_each_with_who_asked():
    result = simulate(
        [Do("a", on_train_epoch_end=lambda run: run.stop("x")), Do("b", on_fit_epoch_end=lambda run: run.stop("y"))],
        LOSSES,
    )
    assert (result.epochs_run, result.end_reason, result.stop_reason) == (1, "stopped", "a: x; b: y")


def test_after_a_stop_in_a_batch_no_further_batch_runs_and_the_epochs_end_still_comes():
    record = RecordEvents()
    result = simulate([Do(on_train_batch_end=lambda run: run.stop("x")), record], LOSSES, batches=5)
    assert record.events.count("on_train_batch_start") == 1
    assert record.events[-6:] == [
        "on_train_epoch_end", "on_val_start", "on_val_end", "on_fit_epoch_end", "on_train_end", "teardown"
    ]  # fmt: skip
    assert result.run.history == ({"val/loss": 1.0},)


def test_a_stop_inside_a_running_accumulation_group_waits_for_its_step(drive):
    driver = drive().begin()
    engine = driver.engine
    engine.epoch_start(0)
    stops = []
    for batch in range(8):
        engine.batch_start(batch)
        if batch % 4 == 3:
            engine.stepped()
        if batch == 4:
            driver.run.stop("x")
        engine.batch_end()
        stops.append(engine.stop_now())
    assert stops == [False] * 7 + [True]


def test_a_new_training_of_the_same_run_begins_without_the_stops_of_the_one_before(drive):
    driver = drive().begin()
    driver.run.stop("x")
    driver.end()
    assert driver.run.end_reason == "stopped"
    driver.begin()
    assert (driver.run.stop_reason, driver.run.end_reason) == (None, None)
    driver.end()
    assert [one.end_reason for one in driver.run.past] == ["stopped", "completed"]
    assert [one.stop_reason for one in driver.run.past] == ["user: x", None]


# -- save -------------------------------------------------------------------------------------------------------------


class Counts(Callback):
    """Counts batches and epochs: what a checkpoint must hold of the moment at which it was asked for."""

    def __init__(self):
        self.batches = self.epochs = 0

    def on_train_batch_end(self, run):
        self.batches += 1

    def on_fit_epoch_end(self, run):
        self.epochs += 1

    def state_dict(self):
        return {"batches": self.batches, "epochs": self.epochs}

    def load_state_dict(self, state):
        self.batches, self.epochs = state["batches"], state["epochs"]


@pytest.mark.parametrize(
    ("event", "held"),
    [
        ("on_train_start", {"batches": 1, "epochs": 0}),  # the next safe point
        ("on_train_batch_start", {"batches": 1, "epochs": 0}),
        ("on_train_batch_end", {"batches": 1, "epochs": 0}),
        ("on_fit_epoch_end", {"batches": 2, "epochs": 1}),
    ],
)
def test_a_save_asked_for_at_a_moment_holds_every_callbacks_state_of_that_moment(event, held):
    events = []
    # Whoever asks comes first: the callbacks behind it have still to see the moment.
    callbacks = [Do(**{event: lambda run: run.save("now") if not run.checkpoints else None}), Counts()]
    result = simulate([*callbacks, Do(on_model_save=lambda run: events.append(run.step))], LOSSES, batches=2)
    assert result.run.checkpoints[0].load("callbacks")["Counts"] == held
    assert len(events) == len(result.run.checkpoints)


def test_what_a_person_asked_for_is_pinned_and_what_a_policy_asked_for_is_not():
    callbacks = [
        Checkpoint(Every(epochs=1), keep_last=1, keep_best=0),
        Do("me", on_fit_epoch_end=lambda run: run.save("mine") if run.epoch == 1 else None),
    ]
    result = simulate(callbacks, LOSSES)
    assert result.kept == [1, 3]
    pinned = result.run.checkpoints[0].manifest
    assert pinned.pinned
    assert set(pinned.asked_by) >= {"me", "Checkpoint"}
    assert "mine" in pinned.reason


def test_requests_for_one_moment_make_one_checkpoint_and_none_is_lost():
    run = Run(host="x", provides=frozenset())
    requests = run.engine.requests
    for request in (SaveRequest("a", "x"), SaveRequest("b", "x", True), SaveRequest("a", "x")):
        requests.add_save(request)
    assert requests.take_saves() == [SaveRequest("a", "x"), SaveRequest("b", "x", True)]
    assert requests.take_saves() == []


def test_a_save_is_announced_when_its_state_is_captured_and_before_the_next_moment():
    record = RecordEvents()
    simulate([Do(on_train_batch_end=lambda run: run.save("x")), record], LOSSES[:1], batches=2)
    first = record.events.index("on_model_save")
    assert record.events[first - 1] == "on_train_batch_end"
    assert record.events[first + 1] == "on_train_batch_start"


def test_a_save_asked_for_in_on_train_end_and_in_on_exception_is_still_taken():
    result = simulate([Do(on_train_end=lambda run: run.save("x"))], LOSSES[:1])
    assert result.saved == [0]
    assert result.events[-3:] == ["on_train_end", "on_model_save", "teardown"]

    def fail(run):
        raise ValueError("boom")

    record = RecordEvents()
    with pytest.raises(ValueError, match="boom"):
        simulate([Do(on_fit_epoch_end=fail, on_exception=lambda run: run.save("x")), record], LOSSES)
    assert record.events[-3:] == ["on_exception", "on_model_save", "teardown"]


def test_a_save_that_fails_is_said_counted_and_told_and_the_training_goes_on(drive, caplog):
    class FullDisk:
        def ready(self, asked, moment):
            return True

        def capture(self, asked, moment):
            return None

        def flush(self, limit=None):
            return True

        def close(self):
            pass

        def write(self, captured):
            return OSError("no space left")

    told = []
    driver = drive(
        Do(on_fit_epoch_end=lambda run: run.save("x"), on_checkpoint_error=lambda run: told.append(run.epoch))
    )
    driver.engine.saver = FullDisk()
    driver.begin()
    with caplog.at_level(logging.ERROR, "epochal"):
        driver.epoch(0)
        driver.epoch(1)
    driver.end()
    assert told == [0, 1]
    assert driver.run.past[-1].checkpoint_errors == 2
    assert driver.run.end_reason == "completed"
    assert "a checkpoint could not be written; the training goes on: no space left" in caplog.text


def test_a_state_dict_that_raises_while_training_is_a_checkpoint_error(caplog):
    class Broken(Callback):
        trained = False

        def on_train_start(self, run):
            self.trained = True

        def state_dict(self):
            if self.trained:
                raise RuntimeError("mine")
            return {}

    told = []
    with caplog.at_level(logging.ERROR, "epochal"):
        result = simulate([Broken(), Checkpoint(), Do(on_checkpoint_error=lambda run: told.append(1))], LOSSES[:2])
    assert result.end_reason == "completed"
    assert result.run.past[-1].checkpoint_errors == 2
    assert "mine" in caplog.text
    assert told == [1, 1]
    assert "on_model_save" not in result.events


def test_a_save_asked_for_when_the_training_is_over_is_said_to_be_lost(caplog):
    result = simulate([Do("late", teardown=lambda run: run.save("x"))], LOSSES[:1])
    assert result.saved == []
    assert "late asked for a checkpoint (x) when the training was over; ask in on_train_end" in caplog.text


def test_without_checkpoints_a_save_says_so(drive):
    with pytest.raises(CapabilityError, match="Driver has no checkpoints in this training: nothing can be saved"):
        drive().begin().run.save("x")


# -- learning rates ---------------------------------------------------------------------------------------------------


def test_set_lr_is_the_rate_and_none_gives_it_back_with_the_factors_asked_for_meanwhile(drive):
    driver = drive(pg0=0.1).begin()
    run = driver.run
    run.set_lr(0.5)
    assert run.lr == {"pg0": 0.5}
    run.scale_lr(0.5)
    assert run.lr == {"pg0": 0.25}
    driver.rates.rates["pg0"] = 0.08  # the schedule ran on unseen
    assert run.lr == {"pg0": 0.25}
    run.set_lr(None)
    assert run.lr == {"pg0": pytest.approx(0.04)}
    run.scale_lr(0.5)
    assert run.lr == {"pg0": pytest.approx(0.02)}
    run.set_lr(0.5)  # the rate *is* the value
    assert run.lr == {"pg0": 0.5}


def test_rates_are_set_and_given_back_per_group(drive):
    driver = drive(a=0.1, b=0.2).begin()
    run = driver.run
    run.set_lr(0.5, "a")
    assert run.lr == {"a": 0.5, "b": 0.2}
    run.scale_lr(0.1, "b")
    assert run.lr == {"a": 0.5, "b": pytest.approx(0.02)}
    run.set_lr(0.7)
    assert run.lr == {"a": 0.7, "b": 0.7}
    run.set_lr(None, "a")
    assert run.lr == {"a": 0.1, "b": 0.7}
    run.set_lr(None)
    assert run.lr == {"a": 0.1, "b": pytest.approx(0.02)}


GROUPS = ("a", "b")
REQUESTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"), st.one_of(st.none(), st.sampled_from([0.0, 0.25, 1.0])), st.sampled_from([None, *GROUPS])
        ),
        st.tuples(st.just("scale"), st.sampled_from([0.5, 2.0]), st.sampled_from([None, *GROUPS])),
    ),
    max_size=8,
)


@given(REQUESTS, st.integers(0, 8))
def test_rates_are_what_a_model_of_one_group_after_the_other_says(requests, cut):
    own = {"a": 0.125, "b": 4.0}
    factor, fixed = dict.fromkeys(GROUPS, 1.0), dict.fromkeys(GROUPS)
    rates = Rates()
    for number, (kind, value, group) in enumerate(requests):
        if number == cut:  # saved and restored in the middle
            saved, rates = rates.state_dict(), Rates()
            rates.load_state_dict(saved)
        (rates.override if kind == "set" else rates.scale)(value, group)
        for name in GROUPS if group is None else [group]:
            if kind == "set":
                fixed[name] = value
            else:
                factor[name] *= value
                fixed[name] = None if fixed[name] is None else fixed[name] * value
    expected = {name: fixed[name] if fixed[name] is not None else own[name] * factor[name] for name in GROUPS}
    assert {name: rates.effective(name, own[name]) for name in GROUPS} == expected


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", True, [0.1]])
def test_a_value_that_can_be_no_rate_is_refused(drive, value):
    run = drive().begin().run
    with pytest.raises(ArgumentError, match="a learning rate must be a finite number >= 0, not "):
        run.set_lr(value)
    with pytest.raises(ArgumentError, match="a factor of the learning rate must be a finite number >= 0, not "):
        run.scale_lr(value)
    with pytest.raises(ArgumentError, match="a factor of the learning rate must be a finite number >= 0, not None"):
        run.scale_lr(None)


def test_a_group_that_is_not_there_is_said_with_the_nearest(drive):
    run = drive(backbone=0.1, head=0.2).begin().run
    with pytest.raises(
        ArgumentError, match=r"no parameter group 'backbon'; did you mean 'backbone'\? Groups: backbone, head"
    ):
        run.set_lr(0.1, "backbon")


def test_a_rate_asked_for_by_another_thread_is_in_effect_from_the_next_safe_point_on(drive):
    driver = drive(pg0=0.1).begin()
    driver.engine.epoch_start(0)
    driver.engine.batch_start(0)
    thread = threading.Thread(target=lambda: (driver.run.set_lr(0.5), driver.run.scale_lr(0.5)))
    thread.start()
    thread.join()
    assert driver.rates.taken_over == 0
    driver.engine.batch_end()
    assert driver.rates.taken_over == 1
    assert driver.engine.rates.effective("pg0", 0.1) == 0.25


def test_rates_are_those_of_the_run_when_it_is_resumed(drive):
    first = drive(pg0=0.1).begin()
    first.run.set_lr(0.5)
    first.run.scale_lr(0.5)
    first.epoch(0)
    again = drive(pg0=0.1).begin({"run": first.engine.state_dict(), "callbacks": {}})
    assert again.run.lr == {"pg0": 0.25}
    assert again.rates.taken_over == 1
    fresh = drive(pg0=0.1)
    fresh.begin()
    fresh.run.set_lr(0.5)
    fresh.end()
    fresh.begin()
    assert fresh.run.lr == {"pg0": 0.1}


def test_without_an_optimizer_a_rate_cannot_be_set(drive):
    driver = drive()
    driver.engine.rate_host = None
    with pytest.raises(CapabilityError, match="shows no optimizer now: its learning rate cannot be changed"):
        driver.begin().run.set_lr(0.1)
    assert driver.run.lr == {}
