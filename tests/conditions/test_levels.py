"""Target, Diverged and NonFinite against models of their words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.conditions.level import Diverged, NonFinite, Target
from epochal.core.moment import Moment

numbers = st.one_of(st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]), st.floats())
groups = st.lists(st.tuples(st.lists(numbers, max_size=3), st.none() | numbers), max_size=20)


def moments(seq):
    for epoch, (arrived, settled) in enumerate(seq):
        yield Moment(
            "epoch",
            epoch=epoch,
            settled={} if settled is None else {"m": settled},
            arrived={"m": tuple(arrived)} if arrived else {},
        )


def holds_by_words(seq, bad):
    newest, answers = [], []
    for arrived, settled in seq:
        new = list(arrived) or ([] if settled is None else [settled])
        newest = new[-1:] or newest
        answers.append(any(bad(value) for value in new + newest))
    return answers


@given(groups)
def test_non_finite_holds_at_any_bad_arrival_and_then_as_the_newest_value(seq):
    condition = NonFinite("m")
    assert [condition.ask(now) for now in moments(seq)] == holds_by_words(seq, lambda x: x != x or abs(x) == math.inf)


@given(groups, st.sampled_from(["min", "max"]), st.floats(allow_nan=False))
def test_diverged_holds_at_any_worse_arrival_and_then_as_the_newest_value(seq, mode, threshold):
    condition = Diverged("m", threshold, mode=mode)
    worse = (lambda x: x > threshold) if mode == "min" else (lambda x: x < threshold)
    assert [condition.ask(now) for now in moments(seq)] == holds_by_words(seq, worse)


@given(groups, st.sampled_from(["min", "max"]), st.floats(allow_nan=False))
def test_target_is_the_level_of_the_newest_settled_value_and_ignores_arrivals(seq, mode, value):
    condition, newest = Target("m", value, mode=mode), math.nan
    for (_, settled), now in zip(seq, moments(seq), strict=True):
        newest = newest if settled is None else settled
        assert condition.ask(now) == (newest <= value if mode == "min" else newest >= value)


@pytest.mark.parametrize(
    "build", [lambda: Target("m", 0.0, mode="max"), lambda: Diverged("m", 0.0, mode="max"), lambda: NonFinite("m")]
)
def test_it_is_unknown_and_missing_until_the_first_value(build):
    condition = build()
    assert condition.missing() == frozenset()
    condition.ask(Moment("epoch", epoch=0))
    assert not condition.known
    assert condition.missing() == {"m"}
    condition.ask(Moment("epoch", epoch=1, settled={"m": 1.0}))
    assert condition.known
    assert condition.missing() == frozenset()


def test_only_arrival_conditions_are_watched():
    assert (NonFinite("a") | Diverged("loss", 1.0)).watches == {"a", "loss"}
    assert (NonFinite("a") | Diverged("loss", 1.0)).settles == frozenset()
    assert Target("fitness", 1.0).watches == frozenset()
    assert Target("fitness", 1.0).settles == {"fitness"}


def test_reasons_name_the_values():
    now = Moment("epoch", epoch=0, settled={"fitness": 0.93}, arrived={"train/loss": (120.0, math.nan, 2.0)})
    target, diverged, broken = Target("fitness", 0.9), Diverged("train/loss", 100), NonFinite("train/loss")
    assert all([target.ask(now), diverged.ask(now), broken.ask(now)])
    assert target.reason(now) == "fitness 0.93 reached 0.9"
    assert diverged.reason(now) == "train/loss 120 is above 100"
    assert broken.reason(now) == "train/loss is nan"
