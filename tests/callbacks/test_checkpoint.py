"""Checkpoint asks when its condition holds, and what it keeps is what a plain reading of its rule keeps."""

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Best, Callback, Checkpoint, Elapsed, Every
from epochal.checkpointing.memory import MemoryStore
from epochal.core.errors import ArgumentError, CheckpointError
from epochal.testing import simulate

NAN = float("nan")


def losses(*values):
    return [{} if value is None else {"val/loss": value} for value in values]


def test_alone_it_saves_each_epoch_and_keeps_the_last_and_the_best():
    result = simulate([Checkpoint()], losses(3, 1, 2, 4, 5))
    assert result.saved == [0, 1, 2, 3, 4]
    assert result.kept == [1, 4]


def test_best_saves_only_where_it_is_better():
    result = simulate([Checkpoint(Best("val/loss"), keep_last=-1)], losses(3, 3, 2, NAN, 2.5, 1))
    assert result.saved == result.kept == [0, 2, 5]


curves = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=80)
@given(curves, st.integers(-1, 4), st.integers(-1, 4), st.sampled_from(["min", "max"]))
def test_it_keeps_the_newest_and_the_best_of_what_it_asked_for(curve, keep_last, keep_best, mode):
    epochs = [{"x": value} for value in curve]
    rule = Checkpoint(Every(epochs=1), keep_last=keep_last, keep_best=keep_best, metric="x", mode=mode)
    kept = simulate([rule], epochs).kept
    # By hand: after each save, everything that neither rule wants goes, and what is gone stays gone.
    sign = 1 if mode == "min" else -1
    there = []
    for epoch in range(len(curve)):
        there.append(epoch)
        newest = set(there) if keep_last == -1 else set(there[-keep_last:] if keep_last else [])
        rated = sorted((one for one in there if curve[one] == curve[one]), key=lambda one: sign * curve[one])
        best = set(rated) if keep_best == -1 else set(rated[:keep_best])
        there = [one for one in there if one in newest | best or one == epoch]  # the newest resume point always stays
    assert kept == there


def test_it_ranks_by_the_one_best_else_by_metric_else_by_fitness():
    one = Checkpoint(Best("val/loss") | Every(minutes=10))
    assert (one.metric, one.mode) == ("val/loss", "min")
    one = Checkpoint(Best("val/x", mode="max") & Every(epochs=2))
    assert (one.metric, one.mode) == ("val/x", "max")
    one = Checkpoint(Best("val/loss") | Best("val/accuracy"))
    assert one.metric is None
    one = Checkpoint(Every(epochs=1), metric="val/accuracy")
    assert (one.metric, one.mode) == ("val/accuracy", "max")
    assert Checkpoint(Best("fitness")).metric is None


def test_several_share_one_write_per_moment_and_each_keeps_its_own():
    every, best = Checkpoint(Every(epochs=2), keep_last=2, keep_best=0), Checkpoint(Best("val/loss"), keep_last=0)
    result = simulate([every, best], losses(5, 4, 6, 3, 7, 8, 9, 9))
    assert result.saved == [0, 1, 3, 5, 7]  # epochs 1 and 3 were asked for by both
    assert result.kept == [3, 5, 7]
    asked = {one.manifest.epoch: one.manifest.asked_by for one in result.run.checkpoints}
    # Best is asked at the end of the validation already.
    assert asked == {3: ("Checkpoint#2", "Checkpoint"), 5: ("Checkpoint",), 7: ("Checkpoint",)}


def test_what_a_person_saves_is_kept_for_good():
    class Person(Callback):
        def on_fit_epoch_end(self, run):
            if run.epoch == 1:
                run.save("I want this one")

    result = simulate([Checkpoint(keep_best=0), Person()], losses(*range(6)))
    assert result.kept == [1, 5]
    assert result.run.checkpoints[0].manifest.pinned


def test_without_any_fitness_the_last_is_kept_and_nothing_is_best():
    result = simulate([Checkpoint(keep_last=2)], [{"x": 1.0}] * 4)
    assert result.kept == [2, 3]


def test_a_failed_write_is_an_event_and_the_next_save_tries_again(monkeypatch, caplog):
    whole, tries, heard = MemoryStore.save, [], []

    def fails_first(*args, **options):
        tries.append(1)
        if len(tries) == 1:
            raise CheckpointError("no space left")
        return whole(*args, **options)

    class Hear(Callback):
        def on_checkpoint_error(self, run):
            heard.append((run.epoch, str(run.engine.checkpoint_error)))

    monkeypatch.setattr(MemoryStore, "save", fails_first)
    result = simulate([Checkpoint(), Hear()], losses(3, 2, 1))
    assert heard == [(0, "no space left")]
    assert result.kept == [2]
    assert result.run.past[-1].checkpoint_errors == 1
    assert "the training goes on: no space left" in caplog.text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Checkpoint(keep_last=-2), "keep_last must be an int >= 0, or -1 for all, not -2"),
        (lambda: Checkpoint(keep_best=1.5), "keep_best must be an int >= 0, or -1 for all, not 1.5"),
        (lambda: Checkpoint(keep_last=None), "not None"),
        (lambda: Checkpoint(metric="x"), 'pass mode="min" or mode="max"'),
        (lambda: Checkpoint(mode="min"), "the higher fitness is always the better"),
        (lambda: Checkpoint(Best("val/loss"), metric="val/accuracy"), "leave metric= out, or rank by the same"),
        (lambda: Checkpoint("val/loss"), "when must be a condition"),
        (lambda: Checkpoint(Elapsed), "pass an object"),
    ],
)
def test_wrong_arguments_say_what_would_do(make, said):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert said in str(caught.value)


def test_what_writing_takes_is_charged_to_who_asked(monkeypatch):
    class Timed(Checkpoint):
        def on_train_start(self, run):
            super().on_train_start(run)
            run.time_callbacks()

    whole = MemoryStore.save

    def slow(*args, **options):
        until = perf_counter() + 0.02
        while perf_counter() < until:
            pass
        return whole(*args, **options)

    monkeypatch.setattr(MemoryStore, "save", slow)
    result = simulate([Timed(Every(epochs=1))], [{"val/loss": 1.0}] * 3)
    assert result.run.past[-1].costs["Timed"][1] >= 3 * 0.02
