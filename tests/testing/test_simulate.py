"""``epochal.testing``: what a simulation returns, and that its events are a training's."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Best, Callback, Checkpoint, EarlyStopping, Every, ReduceLROnPlateau
from epochal.core.errors import ArgumentError
from epochal.core.events import EVENT_NAMES
from epochal.testing import RecordEvents, check_events, simulate

LOSSES = [{"val/loss": x} for x in (3.0, 1.0, 2.0, 2.0, 2.0)]


def test_what_a_simulation_returns():
    result = simulate(
        [EarlyStopping("val/loss", patience=3, restore_best=True), Checkpoint(Every(epochs=2), keep_last=1)], LOSSES
    )
    assert result.epochs_run == 5
    assert result.end_reason == "stopped"
    assert result.stop_reason.startswith("EarlyStopping(val/loss): ")
    assert result.lrs == [0.1] * 5
    assert result.saved == [0, 1, 3]
    assert result.kept == [1, 3]
    assert result.restored == 1
    check_events(result.events)


def test_without_a_policy_it_runs_through():
    result = simulate([], LOSSES)
    assert (result.epochs_run, result.stop_reason, result.end_reason) == (5, None, "completed")
    assert (result.saved, result.kept, result.restored) == ([], [], None)
    assert simulate([], []).events == ["on_train_start", "on_train_end", "teardown"]


def test_the_rate_is_the_one_after_each_epochs_last_event_and_a_tuple_for_several_groups():
    def cut():
        return ReduceLROnPlateau("val/loss", factor=0.5, patience=1)

    assert simulate([cut()], LOSSES).lrs == [0.1, 0.1, 0.05, 0.025, 0.0125]
    assert simulate([cut()], LOSSES, lr=(0.1, 1.0)).lrs[2:4] == [(0.05, 0.5), (0.025, 0.25)]
    assert simulate([], LOSSES[:1], lr=[0.2]).lrs == [(0.2,)]


def test_batches_are_steps_and_a_stop_in_one_ends_the_epoch_there():
    class StopAt(Callback):
        def on_train_batch_end(self, run):
            if run.step == 5:
                run.stop("x")

    result = simulate([StopAt()], LOSSES, batches=3)
    assert result.run.step == 5
    assert result.epochs_run == 2
    with pytest.raises(ArgumentError, match="batches must be >= 1, not 0"):
        simulate([], LOSSES, batches=0)


@pytest.mark.parametrize("epochs", [{"val/loss": [3.0, 1.0]}, [3.0, 1.0], 3])
def test_what_is_no_list_of_epochs_is_told_with_an_example(epochs):
    with pytest.raises(ArgumentError, match=r"such as \[\{\"val/loss\": 0.5\}"):
        simulate([], epochs)
    with pytest.raises(ArgumentError, match=r"such as \[EarlyStopping\(val/loss\)\]"):
        simulate(EarlyStopping("val/loss", patience=2), LOSSES)


def test_nan_infinities_and_what_is_left_out_are_logged_as_they_are():
    result = simulate([], [{"val/loss": math.nan}, {}, {"val/loss": math.inf, "train/x": 1.0}])
    assert math.isnan(result.run.history[0]["val/loss"])
    assert result.run.history[1:] == ({}, {"val/loss": math.inf, "train/x": 1.0})


def test_the_recorder_hears_every_event_of_the_grammar():
    assert all(event in vars(RecordEvents) for event in EVENT_NAMES)
    record = RecordEvents()
    result = simulate([record, Checkpoint()], LOSSES[:1])
    assert record.events == result.events


def test_callbacks_may_write_where_they_are_told(tmp_path):
    class Writes(Callback):
        def on_train_end(self, run):
            run.folder.make()
            (run.dir / "mine.txt").write_text("x")

    simulate([Writes()], LOSSES[:1], dir=tmp_path)
    assert (tmp_path / "simulate" / "mine.txt").read_text() == "x"
    simulate([Writes()], LOSSES[:1])


VALUES = st.one_of(st.sampled_from([math.nan, math.inf, -math.inf, 0.0]), st.floats(-10, 10))
EPOCHS = st.lists(st.dictionaries(st.sampled_from(["val/loss", "train/loss", "fitness"]), VALUES), max_size=8)


@settings(deadline=None, max_examples=60)
@given(EPOCHS, st.integers(1, 3))
def test_whatever_is_logged_the_trace_is_a_training_and_a_second_run_the_same(epochs, batches):
    epochs = [{"val/loss": 1.0, "fitness": 0.0}, *epochs]
    callbacks = [
        EarlyStopping("val/loss", patience=2, restore_best=True),
        Checkpoint(when=Best("fitness") | Every(epochs=2), keep_last=1, keep_best=1),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=1),
    ]
    first = simulate(callbacks, epochs, batches=batches)
    check_events(first.events)
    second = simulate(callbacks, epochs, batches=batches)
    assert first._replace(run=None) == second._replace(run=None)
    assert set(first.kept) <= set(first.saved)
    fitness = [row["fitness"] for row in first.run.history if not math.isnan(row.get("fitness", math.nan))]
    assert first.run.best_fitness == max(fitness)
