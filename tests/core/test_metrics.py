"""Metrics: lazy, read once, known by when they were measured; the history; settled values."""

import logging
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Callback, MetricNotFound
from epochal.conditions.base import Condition
from epochal.core.errors import ArgumentError
from epochal.core.inside import metrics_state, restore_metrics
from epochal.core.metrics import At, Metrics
from epochal.testing import simulate


class Counted:
    """A number on some device that counts how often it is read."""

    def __init__(self, value):
        self.value, self.reads = value, 0

    def __float__(self):
        self.reads += 1
        return float(self.value)


class Do(Callback):
    def __init__(self, **at):
        for event, fn in at.items():
            setattr(self, event, fn)


class Ask(Callback):
    """Writes down what a condition is told: every moment at which something settled or arrived."""

    def __init__(self, *watch):
        self.watched, self.settled, self.arrived, self.ended = watch, [], [], []

    def on_train_start(self, run):
        for name in self.watched:
            run.metrics.watch(name)

    def at_safe_point(self, run, now):
        self.ended.append((now.ended, now.epoch, now.batch))
        if now.settled:
            self.settled.append((now.ended, dict(now.settled)))
        if now.arrived:
            self.arrived.append(dict(now.arrived))


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_value_nobody_reads_is_never_read_in_a_batch(drive):
    values = [Counted(1), Counted(3)]
    driver = drive().begin()
    driver.engine.epoch_start(0)
    for index, value in enumerate(values):
        driver.engine.batch_start(index)
        driver.run.log({"train/loss": value})
        driver.engine.batch_end()
    assert [one.reads for one in values] == [0, 0]


def test_a_value_is_read_once_however_often_somebody_looks(drive):
    values = [Counted(1), Counted(3), Counted(8)]
    read = []
    ask = Ask("train/loss")
    driver = drive(ask, Do(on_train_batch_end=lambda run: read.append(run.metrics["train/loss"]))).begin()
    driver.run.add_callback("on_train_batch_end", lambda run: read.append(run.metrics.measured("train/loss").value))
    driver.epoch(batches=[{"train/loss": value} for value in values])
    assert read == [1, 1, 3, 3, 8, 8]
    assert ask.arrived == [{"train/loss": (1.0,)}, {"train/loss": (3.0,)}, {"train/loss": (8.0,)}]
    assert driver.run.history[0]["train/loss"] == 4
    assert [one.reads for one in values] == [1, 1, 1]


def test_the_mean_of_an_epoch_reads_each_value_once(drive):
    values, other = [Counted(1), Counted(3)], [Counted(5), Counted(7)]
    driver = drive().begin()
    driver.epoch(batches=[{"train/loss": a, "norm": b} for a, b in zip(values, other, strict=True)])
    assert driver.run.history[0] == {"train/loss": 2, "norm": 6}
    assert [one.reads for one in values + other] == [1, 1, 1, 1]


def test_a_tensor_is_detached_and_not_copied(drive):
    driver = drive().begin()
    weight = torch.tensor(2.0, requires_grad=True)
    loss = weight * 3
    driver.run.log({"train/loss": loss})
    kept = driver.engine.metrics.entries["train/loss"].raw
    assert not kept.requires_grad
    assert kept.data_ptr() == loss.data_ptr()
    assert driver.run.metrics["train/loss"] == 6.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0), (True, 1.0), (0.5, 0.5), (float("inf"), math.inf), (torch.tensor([2.5]), 2.5),
        (torch.tensor(4, dtype=torch.int64), 4.0), (torch.tensor(1.5, dtype=torch.bfloat16), 1.5), (Counted(7), 7.0),
    ],
)  # fmt: skip
def test_every_kind_of_number_is_a_float_when_read(drive, value, expected):
    driver = drive().begin()
    driver.run.log({"x": value})
    assert driver.run.metrics["x"] == expected
    assert type(driver.run.metrics["x"]) is float


def test_numpys_numbers_are_floats_too(drive):
    np = pytest.importorskip("numpy")
    driver = drive().begin()
    driver.run.log({"a": np.float32(0.5), "b": np.array([2]), "c": np.int64(3)})
    assert dict(driver.run.metrics) == {"a": 0.5, "b": 2.0, "c": 3.0}
    with pytest.raises(ArgumentError, match=r"'x' was logged with an array of shape \(2,\); log one number"):
        driver.run.log({"x": np.zeros(2)})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0.5", r"'val/loss' was logged with '0.5' \(str\); log one number"),
        (None, r"'val/loss' was logged with None \(NoneType\); log one number"),
        ([1.0], r"'val/loss' was logged with \[1.0\] \(list\); log one number"),
        (torch.zeros(2, 3), r"'val/loss' was logged with a tensor of shape \(2, 3\); log one number"),
        (10**400, "'val/loss' was logged with an int above 1.8e308; log what a float can hold"),
        (1j, r"'val/loss' was logged with 1j \(complex\); log one number"),
    ],
)
def test_what_is_no_number_is_refused_where_it_is_logged(drive, value, said):
    driver = drive().begin()
    with pytest.raises(ArgumentError, match=said):
        driver.run.log({"val/loss": value})


@pytest.mark.parametrize("name", ["", 5, None])
def test_a_name_is_text(drive, name):
    with pytest.raises(ArgumentError, match=f"a metric's name is a non-empty str, not {name!r}"):
        drive().begin().run.log({name: 1.0})


def test_what_is_no_mapping_is_refused_with_an_example(drive):
    with pytest.raises(ArgumentError, match=r"log takes a mapping, such as run.log\({\"train/loss\": 0.5}\), not 0.5"):
        drive().begin().run.log(0.5)


# -- the mapping ------------------------------------------------------------------------------------------------------


def test_metrics_are_a_mapping_of_what_was_measured():
    metrics = Metrics({"metrics/mAP50(B)": "val/map50"})
    metrics.watch("never/logged")
    assert len(metrics) == 0
    metrics.log({"metrics/mAP50(B)": 0.5, "train/loss": 2.0}, At(1, None, 7))
    assert list(metrics) == ["val/map50", "train/loss"]
    assert metrics["metrics/mAP50(B)"] == metrics["val/map50"] == 0.5
    assert "metrics/mAP50(B)" in metrics
    assert "never/logged" not in metrics
    assert metrics.get("never/logged", 3) == 3
    assert metrics.get("x") is None
    assert metrics.measured("metrics/mAP50(B)") == (0.5, 1, None, 7)
    assert repr(metrics) == "Metrics(val/map50, train/loss)"


def test_a_name_never_measured_lists_what_was_logged_the_nearest_first():
    metrics = Metrics()
    with pytest.raises(MetricNotFound, match="no metric 'x' was measured so far"):
        metrics["x"]
    metrics.log({"lr/pg0": 1, "train/loss": 1, "val/loss": 1}, At(0, None, 0))
    for read in (metrics.__getitem__, metrics.measured):
        with pytest.raises(KeyError) as caught:
            read("val/los")
        assert isinstance(caught.value, MetricNotFound)
        assert str(caught.value) == (
            "no metric 'val/los' was measured so far; did you mean 'val/loss'? Logged: val/loss, train/loss, lr/pg0"
        )


def test_measured_says_epoch_batch_and_step_of_the_newest_value(drive):
    driver = drive().begin()
    inside = []
    driver.run.add_callback("on_train_batch_end", lambda run: inside.append(run.metrics.measured("train/loss")))
    driver.epoch(0, batches=[{"train/loss": 1.0}, {"train/loss": 2.0}], val={"val/loss": 3.0})
    assert inside == [(1.0, 0, 0, 0), (2.0, 0, 1, 1)]
    assert driver.run.metrics.measured("train/loss") == (1.5, 0, None, 2)
    assert driver.run.metrics.measured("val/loss") == (3.0, 0, None, 2)


# -- the epoch's mean, the history ------------------------------------------------------------------------------------


def test_a_train_metric_is_the_batchs_own_inside_a_batch_and_the_epochs_mean_from_its_end_on(drive):
    seen = {}
    driver = drive().begin()
    for event in ("on_train_batch_end", "on_train_epoch_end", "on_val_end", "on_fit_epoch_end"):
        driver.run.add_callback(
            event, lambda run, event=event: seen.setdefault(event, []).append(run.metrics["train/loss"])
        )
    driver.epoch(batches=[{"train/loss": value} for value in (1.0, 2.0, 6.0)], val={"val/loss": 1.0})
    assert seen == {
        "on_train_batch_end": [1.0, 2.0, 6.0], "on_train_epoch_end": [3.0], "on_val_end": [3.0], "on_fit_epoch_end": [3.0]
    }  # fmt: skip
    driver.engine.epoch_start(1)
    assert driver.run.metrics["train/loss"] == 3.0
    driver.engine.batch_start(0)
    driver.run.log({"train/loss": 10.0})
    assert driver.run.metrics["train/loss"] == 10.0


def test_history_holds_means_last_values_and_only_what_the_epoch_measured(drive):
    driver = drive().begin()
    driver.epoch(0, batches=[{"train/loss": 1, "x": 1}, {"train/loss": 3, "x": 2}], val={"val/loss": 5}, end={"lr": 1})
    driver.epoch(1, batches=[{"train/loss": 7}], mid={"val/loss": 4}, val={"val/loss": 2}, end={"once": 1})
    driver.epoch(2)
    assert driver.run.history == (
        {"train/loss": 2, "x": 1.5, "val/loss": 5, "lr": 1},
        {"train/loss": 7, "val/loss": 2, "once": 1},
        {},
    )
    with pytest.raises(TypeError):
        driver.run.history[0]["val/loss"] = 0.0
    with pytest.raises(AttributeError):
        driver.run.history.append({})


def test_the_history_of_a_long_epoch_is_the_mean_of_all_its_batches(drive):
    driver = drive().begin()
    driver.epoch(batches=[{"train/loss": float(n)} for n in range(2500)])
    assert driver.run.history[0]["train/loss"] == pytest.approx(2499 / 2)


def test_the_epochs_row_is_there_at_its_end_and_holds_what_is_logged_there_too(drive):
    rows = []
    driver = drive(Do(on_fit_epoch_end=lambda run: rows.append(run.history[-1])))
    driver.run.add_callback("on_fit_epoch_end", lambda run: run.log({"late": 1.0}))
    driver.begin().epoch(val={"val/loss": 5.0})
    assert rows == [{"val/loss": 5.0}]
    assert driver.run.history == ({"val/loss": 5.0, "late": 1.0},)


def test_an_aborted_epoch_leaves_no_trace_in_the_history(drive):
    driver = drive().begin()
    driver.engine.epoch_start(0)
    driver.engine.batch_start(0)
    driver.run.log({"train/loss": 100.0})
    driver.engine.abort_epoch()
    driver.epoch(0, batches=[{"train/loss": 1.0}])
    assert driver.run.history == ({"train/loss": 1.0},)


def test_a_metric_logged_in_validation_batches_is_that_validations_mean(drive):
    ask = Ask()
    driver = drive(ask).begin()
    engine, run = driver.engine, driver.run

    def validate(values):
        engine.val_start()
        for index, value in enumerate(values):
            engine.val_batch_start(index)
            run.log({"val/acc": value, "acc": value})
            engine.val_batch_end()
        engine.val_end()

    engine.epoch_start(0)
    engine.batch_start(0)
    engine.batch_end()
    validate([1.0, 3.0])
    assert (run.metrics["val/acc"], run.metrics["acc"]) == (2.0, 2.0)
    engine.train_epoch_end()
    validate([10.0, 20.0, 30.0])
    engine.epoch_end()
    assert ask.settled == [("validation", {"val/acc": 2.0, "acc": 2.0}), ("validation", {"val/acc": 20.0, "acc": 20.0})]
    assert run.history == ({"val/acc": 20.0, "acc": 20.0},)


def test_what_is_logged_in_validation_batches_does_not_mix_into_the_epochs_mean(drive):
    ask = Ask()
    driver = drive(ask).begin()
    engine, run = driver.engine, driver.run
    engine.epoch_start(0)
    for index in range(2):
        engine.batch_start(index)
        run.log({"loss": 1.0})
        engine.batch_end()
        engine.val_start()
        engine.val_batch_start(0)
        run.log({"loss": 100.0 + index})
        engine.val_batch_end()
        engine.val_end()
    engine.train_epoch_end()
    engine.epoch_end()
    assert [one for one in ask.settled if one[0] == "validation"] == [
        ("validation", {"loss": 100.0}),
        ("validation", {"loss": 101.0}),
    ]


# -- settled values ---------------------------------------------------------------------------------------------------


def test_conditions_are_asked_at_the_end_of_each_batch_validation_and_epoch(drive):
    ask = Ask()
    driver = drive(ask).begin()
    driver.epoch(0, batches=[{}, {}], mid={"val/loss": 1.0}, val={"val/loss": 1.0})
    assert ask.ended == [
        ("batch", 0, 0), ("validation", 0, None), ("batch", 0, 1), ("validation", 0, None), ("epoch", 0, None)
    ]  # fmt: skip


def test_each_check_is_seen_once(drive):
    ask = Ask()
    driver = drive(ask, fitness="val/acc").begin()
    driver.epoch(
        0, batches=[{"train/loss": 2}, {"train/loss": 4}], mid={"val/acc": 1}, val={"val/acc": 3}, end={"x": 1}
    )
    driver.epoch(1, val={"val/acc": 3})  # measured anew: a check, also with the same value
    driver.epoch(2, end={"x": 2})
    driver.epoch(3)
    assert ask.settled == [
        ("validation", {"val/acc": 1, "fitness": 1}),
        ("validation", {"val/acc": 3, "fitness": 3}),
        ("epoch", {"train/loss": 3, "x": 1}),
        ("validation", {"val/acc": 3, "fitness": 3}),
        ("epoch", {"x": 2}),
    ]


def test_a_metric_logged_in_a_validation_and_at_the_epochs_end_is_two_checks(drive):
    ask = Ask()
    driver = drive(ask).begin()
    driver.epoch(0, val={"x": 1}, end={"x": 2})
    assert ask.settled == [("validation", {"x": 1}), ("epoch", {"x": 2})]


def test_validations_outside_an_epoch_ask_nobody_and_change_neither_history_nor_fitness(drive):
    ask = Ask()
    driver = drive(ask, fitness="-val/loss").begin()
    driver.validation({"val/loss": 0.1, "val/acc": 1, "x": 2})
    driver.epoch(0, val={"val/loss": 5.0})
    driver.validation({"val/loss": 0.1})
    driver.end()
    run = driver.run
    assert (run.metrics["final/loss"], run.metrics["final/acc"], run.metrics["final/x"]) == (0.1, 1, 2)
    assert run.metrics["val/loss"] == 5.0
    assert (run.fitness, run.best_fitness) == (-5.0, -5.0)
    assert run.history == ({"val/loss": 5.0, "fitness": -5.0},)
    assert ask.settled == [("validation", {"val/loss": 5.0, "fitness": -5.0})]


def test_native_names_settle_beside_ours(drive):
    ask = Ask("val_loss")
    driver = drive(ask)
    driver.engine.aliases = {"val_loss": "val/loss"}
    driver.begin()
    driver.epoch(0, val={"val_loss": 5.0})
    assert ask.settled == [("validation", {"val/loss": 5.0, "val_loss": 5.0, "fitness": -5.0})]
    assert ask.arrived == [{"val_loss": (5.0,)}]
    assert driver.run.history == ({"val/loss": 5.0},)


def test_watched_values_arrive_each_once_and_in_their_order(drive):
    ask = Ask("train/loss")
    driver = drive(ask).begin()
    driver.engine.epoch_start(0)
    driver.engine.batch_start(0)
    for value in (1.0, 2.0):
        driver.run.log({"train/loss": value})
    driver.engine.batch_end()
    driver.engine.train_epoch_end()
    driver.engine.epoch_end()
    assert ask.arrived == [{"train/loss": (1.0, 2.0)}]


# -- stale values -----------------------------------------------------------------------------------------------------


def stale_warnings(caplog):
    return [one.getMessage() for one in caplog.records if "was read at on_train_epoch_end" in one.getMessage()]


def test_a_stale_value_is_spoken_of_once_with_the_epoch_it_is_from_and_the_event_that_has_it(caplog):
    read = []
    with caplog.at_level(logging.WARNING, "epochal"):
        simulate(
            [Do(on_train_epoch_end=lambda run: read.append((run.metrics.get("val/loss"), run.fitness)))],
            [{"val/loss": 3.0}, {"val/loss": 2.0}, {"val/loss": 1.0}],
        )
    assert read == [(None, None), (3.0, -3.0), (2.0, -2.0)]
    (warning,) = stale_warnings(caplog)
    assert warning.startswith("'val/loss' was read at on_train_epoch_end of epoch 1, but it is from epoch 0")
    assert "on_fit_epoch_end" in warning


def test_nothing_is_said_of_values_that_are_fresh_or_read_elsewhere(drive, caplog):
    driver = drive(
        Do(on_train_epoch_end=lambda run: (run.metrics["train/loss"], run.metrics.get("x"))),
        Do(on_fit_epoch_end=lambda run: (run.fitness, run.metrics["val/loss"])),
        Do(on_train_batch_end=lambda run: (run.fitness, run.metrics.get("val/loss"))),
    ).begin()
    with caplog.at_level(logging.WARNING, "epochal"):
        for epoch in range(3):
            driver.epoch(epoch, batches=[{"train/loss": 1}], val={"val/loss": 1}, end={"x": 1})
    assert stale_warnings(caplog) == []


def test_a_value_that_a_validation_in_the_middle_of_this_epoch_measured_is_not_stale(drive, caplog):
    driver = drive(Do(on_train_epoch_end=lambda run: run.fitness)).begin()
    with caplog.at_level(logging.WARNING, "epochal"):
        for epoch in range(3):
            driver.epoch(epoch, batches=[{}, {}], mid={"val/loss": 1}, val={"val/loss": 1})
    assert stale_warnings(caplog) == []


# -- threads ----------------------------------------------------------------------------------------------------------


def in_a_thread(fn):
    errors = []

    def call():
        try:
            fn()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_what_other_threads_log_is_taken_at_the_next_safe_point(drive):
    driver = drive().begin()
    engine, run = driver.engine, driver.run
    engine.epoch_start(0)
    engine.batch_start(0)
    in_a_thread(lambda: run.log({"gpu": 5.0}))
    assert "gpu" not in run.metrics
    engine.batch_end()
    assert run.metrics["gpu"] == 5.0
    engine.train_epoch_end()
    engine.epoch_end()
    assert run.history[0]["gpu"] == 5.0


def test_many_threads_lose_nothing(drive):
    driver = drive().begin()
    engine, run = driver.engine, driver.run
    engine.epoch_start(0)
    threads = [
        threading.Thread(target=lambda n=n: [run.log({f"t{n}": float(i)}) for i in range(200)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for batch in range(20):
        engine.batch_start(batch)
        if batch == 19:
            for thread in threads:
                thread.join()
        engine.batch_end()
    engine.train_epoch_end()
    engine.epoch_end()
    assert run.history == ({f"t{n}": sum(range(200)) / 200 for n in range(4)},)


def test_what_another_thread_logs_wrongly_is_its_own_error_and_what_it_logs_holds_no_graph(drive):
    driver = drive().begin()
    with pytest.raises(ArgumentError, match="log one number"):
        in_a_thread(lambda: driver.run.log({"x": "high"}))
    in_a_thread(lambda: driver.run.log({"x": torch.tensor(1.0, requires_grad=True) * 2}))
    assert not driver.engine.requests.logs[0]["x"].requires_grad


class Moments(Condition):
    """Counts how often it is asked."""

    def __init__(self):
        self.count = 0

    def holds(self, now):
        self.count += 1
        return False


def test_a_condition_shared_by_two_policies_of_a_run_counts_once_per_moment():
    from epochal import Checkpoint, Plateau, Stop

    shared = Moments()
    simulate([Stop(shared), Checkpoint(shared | Moments())], [{"val/loss": 1.0}] * 3, batches=2)
    assert shared.count == 3 * (2 + 1 + 1)
    plateau = Plateau("val/loss", patience=3)
    result = simulate([Stop(plateau), Checkpoint(plateau)], [{"val/loss": 1.0}] * 9)
    assert result.epochs_run == 4


ODD = st.one_of(st.integers(-3, 3), st.floats(-1, 1).map(torch.tensor), st.floats(-1, 1, width=32).map(np.float32))
NUMBERS = st.one_of(st.floats(-10, 10), st.floats(-10, 10), ODD)
BATCH = st.dictionaries(st.sampled_from(["train/a", "train/b", "c"]), NUMBERS, min_size=1)
LOOKS = st.sampled_from(["newest", "epoch", "watch", "state", None])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(BATCH, max_size=3), LOOKS), max_size=8), st.integers(1, 4))
def test_what_waits_counts_as_if_it_had_been_taken_at_once_whenever_somebody_looks(batches, most):
    """Most batches only wait; the expected values are counted from the list of what was logged."""
    metrics, logged, step, watched = Metrics(), [], 0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epochal.core.metrics.MOST", most)
        for calls, look in batches:
            step += 1
            for values in calls:
                kept = metrics.log(values, At(0, step - 1, step), batch=True)
                assert {name: float(one) for name, one in zip(*kept, strict=True)} == {
                    n: float(v) for n, v in values.items()
                }
                logged += [(name, float(value), step) for name, value in values.items()]
                watched += [float(values["c"])] if "c" in values and "c" in metrics.watched else []
                values.clear()  # the caller's own, which may change it
            newest = {name: (value, at) for name, value, at in logged}
            if look == "newest":
                assert {name: (metrics[name], metrics.measured(name).step) for name in metrics} == newest
            elif look == "epoch":
                row = metrics.history_row()
                for name in newest:
                    each = [value for one, value, _ in logged if one == name]
                    assert row[name] == pytest.approx(sum(each) / len(each))
            elif look == "watch":
                metrics.watch("c")
            elif look == "state":
                again = Metrics()
                restore_metrics(again, metrics_state(metrics))
                assert dict(again.history_row()) == dict(metrics.history_row())
        assert [*metrics.arrived(wait=True).get("c", ())] == watched


def test_of_values_with_a_bad_one_among_them_none_is_taken():
    metrics = Metrics()
    metrics.watch("a")
    metrics.log({"a": 0.5, "b": 1.0}, At(0, 0, 0), batch=True)
    for bad in ({"a": 7.0, "b": "low"}, {"b": 3.0, "a": None}, {"a": 7.0, "new": []}):
        with pytest.raises(ArgumentError, match="was logged with"):
            metrics.log(bad, At(0, 1, 1), batch=True)
    assert metrics.arrived(wait=True) == {"a": (0.5,)}
    assert dict(metrics.history_row()) == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("bad", ["low", None, 10**400, [0.5]])
def test_a_value_that_is_none_is_refused_also_after_many_that_are(bad):
    metrics = Metrics()
    for step in range(3):
        metrics.log({"a": 0.5, "b": 1.0}, At(0, step, step), batch=True)
    with pytest.raises(ArgumentError, match="'b' was logged with"):
        metrics.log({"a": 0.5, "b": bad}, At(0, 3, 3), batch=True)
    assert dict(metrics) == {"a": 0.5, "b": 1.0}


def test_a_tensor_that_comes_where_numbers_were_keeps_no_graph():
    metrics = Metrics()
    for step in range(3):
        metrics.log({"a": 0.5}, At(0, step, step), batch=True)
    _, (kept,) = metrics.log({"a": torch.ones((), requires_grad=True) * 2}, At(0, 3, 3), batch=True)
    assert not kept.requires_grad
    assert dict(metrics) == {"a": 2.0}
