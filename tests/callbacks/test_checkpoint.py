"""Checkpoint asks when its condition holds, and what it keeps is what a plain reading of its rule keeps."""

import json
import math
from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Best, Callback, Checkpoint, EarlyStopping, Elapsed, Every
from epochal.checkpointing.memory import MemoryStore
from epochal.conditions.pace import Pace
from epochal.core.errors import ArgumentError, CheckpointError
from epochal.core.moment import Moment
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


def test_it_ranks_by_a_name_of_the_trainers_own_that_is_known_when_it_is_measured():
    class Names(Callback):
        def on_val_start(self, run):
            run.engine.metrics.aliases["eval_accuracy"] = "val/accuracy"

    curve = [{"val/accuracy": value} for value in (0.5, 0.9, 0.6, 0.7, 0.4)]
    assert simulate([Names(), Checkpoint(metric="eval_accuracy")], curve).kept == [1, 4]
    restoring = EarlyStopping("eval_accuracy", patience=9, restore_best=True)
    assert simulate([Names(), restoring, Checkpoint(keep_best=0)], curve).restored == 1


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


# -- overhead ---------------------------------------------------------------------------------------------------------


def saves_at(overhead, step, stall, durable, steps):
    """Simulate a clock: every step takes ``step`` seconds, every save so much; return the steps after which it saved."""
    pace, clock, over, saved = Pace(overhead), 0.0, 0.0, []
    done_at = None
    for number in range(1, steps + 1):
        clock += step
        pace.state.pending = done_at is not None and clock < done_at
        if done_at is not None and clock >= done_at:
            pace.told(stall=stall, durable=durable, over=over)
        if pace.ask(Moment("batch", epoch=0, seconds=clock)):
            saved.append(number)
            done_at = clock + durable
            clock += stall
            over = clock
    return saved


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([0.01, 0.02, 0.1, 0.5]),
    st.sampled_from([0.125, 0.5, 2.0]),
    st.sampled_from([0.0625, 0.25, 1.0]),
    st.sampled_from([0.0, 0.5, 4.0]),
)
def test_the_interval_is_that_of_checkfreq(overhead, step, stall, more):
    durable = stall + more
    # CheckFreq: k steps, so that the stall is at most its share of them and none begins before the last is durable
    k = max(math.ceil(stall / (overhead * step)), math.ceil((durable - stall) / step), 1)
    saved = saves_at(overhead, step, stall, durable, steps=3 * k + 2)
    assert [later - earlier for earlier, later in pairwise(saved)] == [k] * (len(saved) - 1)
    assert len(saved) >= 3
    assert saved[0] == 1


def test_it_is_tuned_anew_when_the_cost_drifts():
    pace = Pace(0.1)
    assert pace.ask(Moment("epoch", epoch=0, seconds=1.0))
    pace.told(stall=1.0, durable=1.0, over=2.0)
    assert not pace.ask(Moment("epoch", epoch=1, seconds=11.9))
    assert pace.ask(Moment("epoch", epoch=2, seconds=12.0))
    pace.told(stall=2.0, durable=2.0, over=14.0)
    assert not pace.ask(Moment("epoch", epoch=3, seconds=33.9))
    assert pace.ask(Moment("epoch", epoch=4, seconds=34.0))


def test_a_resumed_run_waits_an_interval_and_does_not_try_the_cost_out_again():
    pace = Pace(0.1)
    pace.ask(Moment("epoch", epoch=0, seconds=5.0))
    pace.told(stall=1.0, durable=1.0, over=6.0)
    again = Pace(0.1)
    again.load_state_dict(json.loads(json.dumps(pace.state_dict())))
    assert not again.ask(Moment("epoch", epoch=1, seconds=9.9))
    assert again.ask(Moment("epoch", epoch=2, seconds=10.0))


def test_an_attempt_whose_cost_nobody_told_is_not_repeated_at_once():
    pace = Pace(0.1)
    assert [pace.ask(Moment("batch", epoch=0, seconds=second)) for second in (1.0, 2.0, 60.9, 61.0)] == [
        True, False, False, True
    ]  # fmt: skip


def test_overhead_keeps_standing_still_within_its_share_of_a_training(monkeypatch):
    clock = [0.0]
    whole = MemoryStore.save

    def slow(*args, **options):
        clock[0] += 0.5
        return whole(*args, **options)

    class Work(Callback):
        def on_train_batch_start(self, run):
            clock[0] += 1.0

    monkeypatch.setattr(MemoryStore, "save", slow)
    for module in ("epochal.checkpointing.saver", "epochal.checkpointing.snapshot"):
        monkeypatch.setattr(f"{module}.perf_counter", lambda: clock[0])
    monkeypatch.setattr("epochal.core.engine.time.monotonic", lambda: clock[0])
    result = simulate([Work(), Checkpoint(overhead=0.1, keep_last=-1)], losses(*range(30)))
    # epochs of 1 s, a stall of 0.5 s: one save, then 5 s of training for each; and the end
    assert result.saved == [*range(0, 30, 5), 29]


def test_overhead_saves_at_batches_ends_where_the_trainer_resumes_from_them(tmp_path):
    import torch

    from epochal import Loop

    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=[Checkpoint(overhead=0.5)], dir=tmp_path) as run:
        for _ in run.epochs(1):
            for x in run.batches([torch.ones(2)] * 3):
                net(x).sum().backward()
                optimizer.step()
                if run.batch == 1:
                    run.engine.saver.flush()
                    assert run.checkpoints.last.manifest.reason == "within 50.00% of the time"
    assert run.checkpoints.last.manifest.step == 3  # the end is kept, whether or not the pace allowed it before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Checkpoint(snapshot="quick"), '"eager", "lazy" or "off", not \'quick\''),
        (lambda: Checkpoint(overhead=2), "above 0 and below 1, such as 0.02, not 2"),
        (lambda: Checkpoint(overhead="2%"), "must be a number, not '2%'"),
        (lambda: Checkpoint(Every(epochs=1), overhead=0.02), "leave when= out, or overhead="),
    ],
)
def test_wrong_ways_of_taking_states_say_what_would_do(make, said):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert said in str(caught.value)
