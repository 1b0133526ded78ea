"""Every and Elapsed: grids of steps, batches, epochs and minutes."""

import json

from hypothesis import given
from hypothesis import strategies as st

from epochal.conditions.schedule import Elapsed, Every
from epochal.core.moment import Moment


@given(st.integers(1, 7), st.lists(st.integers(0, 3), max_size=40))
def test_steps_hold_once_for_each_batch_that_reached_or_passed_a_multiple(n, steps_per_batch):
    every, step = Every(steps=n), 0
    for batch, more in enumerate(steps_per_batch):
        crossed = any(one % n == 0 for one in range(step + 1, step + more + 1))
        step += more
        assert every.ask(Moment("batch", epoch=0, batch=batch, step=step)) == crossed
        assert not every.ask(Moment("validation", epoch=0, batch=batch, step=step))


@given(st.integers(1, 7), st.integers(1, 100))
def test_steps_begun_later_fire_only_on_the_grid(n, step):
    assert Every(steps=n).ask(Moment("batch", epoch=3, batch=5, step=step)) == (step % n == 0)


@given(st.integers(1, 7), st.lists(st.sampled_from(["batch", "validation", "epoch"]), max_size=40))
def test_batches_count_ends_of_batches_and_nothing_else(n, ends):
    every = Every(batches=n)
    for i, ended in enumerate(ends):
        expected = ended == "batch" and ends[: i + 1].count("batch") % n == 0
        assert every.ask(Moment(ended, epoch=0)) == expected


@given(st.integers(1, 7), st.integers(0, 50), st.sampled_from(["batch", "validation", "epoch"]))
def test_epochs_hold_at_the_end_of_each_nth_epoch(n, epoch, ended):
    assert Every(epochs=n).ask(Moment(ended, epoch=epoch)) == (ended == "epoch" and (epoch + 1) % n == 0)


@given(st.integers(1, 5), st.lists(st.integers(0, 400), max_size=40))
def test_minutes_hold_once_when_a_point_of_the_grid_was_passed(minutes, gaps):
    every, seconds = Every(minutes=minutes), 0
    for gap in gaps:
        before, seconds = seconds // (60 * minutes), seconds + gap
        assert every.ask(Moment("batch", epoch=0, seconds=seconds)) == (seconds // (60 * minutes) > before)


def test_after_a_restart_the_rest_of_the_period_is_waited_for():
    first = Every(minutes=10)
    assert [first.ask(Moment("batch", epoch=0, seconds=s)) for s in (599, 600, 840)] == [False, True, False]
    second = Every(minutes=10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.ask(Moment("batch", epoch=0, seconds=s)) for s in (0, 359, 360, 959, 960)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_saved_before_the_first_moment_it_starts_afresh():
    every = Every(minutes=1)
    fresh = every.state_dict()
    every.ask(Moment("batch", epoch=0, seconds=1000))
    every.load_state_dict(fresh)
    assert [every.ask(Moment("batch", epoch=0, seconds=s)) for s in (59, 60)] == [False, True]


@given(st.floats(0, 10), st.floats(0, 100), st.floats(0.01, 1000), st.floats(0, 1e5))
def test_elapsed_is_the_clock_against_the_sum(hours, minutes, seconds, clock):
    condition = Elapsed(hours=hours, minutes=minutes, seconds=seconds)
    assert condition.ask(Moment("batch", epoch=0, seconds=clock)) == (clock >= condition.total)
    assert abs(condition.total - (3600 * hours + 60 * minutes + seconds)) < 1e-6
    assert condition.state_dict() == {}


def test_reasons_read_as_sentences():
    now = Moment("epoch", epoch=3, batch=9, step=400, seconds=1e6)
    assert Elapsed(hours=8).reason(now) == "8 hours have passed"
    assert Elapsed(hours=1).reason(now) == "1 hour has passed"
    assert Elapsed(hours=1, minutes=30).reason(now) == "1 hour 30 minutes have passed"
    assert Every(steps=100).reason(now) == "every 100 steps (step 400)"
    assert Every(epochs=1).reason(now) == "every epoch (end of epoch 4)"
    assert Every(batches=2).reason(now) == "every 2 batches (batch 10 of epoch 4)"
    assert Every(minutes=0.5).reason(now) == "every 0.5 minutes"
