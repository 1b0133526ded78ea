"""State: saved in the middle and restored into new objects, the answers go on as if nothing had happened."""

import json
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epochal.conditions.best import Best
from epochal.conditions.level import Diverged, NonFinite, Target
from epochal.conditions.plateau import Plateau
from epochal.conditions.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveIncreases
from epochal.conditions.schedule import Elapsed, Every
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment

LEAVES = [
    lambda: Plateau("val/loss", patience=2, min_delta=0.05),
    lambda: Plateau("fitness", patience=1, min_delta=0.1, relative=True, baseline=0.2),
    lambda: Best("val/loss"),
    lambda: Target("fitness", 0.5),
    lambda: Diverged("train/loss", 0.8),
    lambda: NonFinite("train/loss"),
    lambda: Every(steps=3),
    lambda: Every(batches=3),
    lambda: Every(epochs=2),
    lambda: Every(minutes=1),
    lambda: GeneralizationLoss("val/loss", alpha=10),
    lambda: ProgressQuotient("val/loss", alpha=0.1, k=2),
    lambda: SuccessiveIncreases("val/loss", s=1, k=2),
]

values = st.one_of(st.sampled_from([0.1, 0.2, 0.5, 0.9, math.nan, math.inf, -math.inf]), st.floats(-1, 1))
logged = st.dictionaries(st.sampled_from(["val/loss", "fitness", "train/loss"]), values)
arrivals = st.fixed_dictionaries({}, optional={"train/loss": st.lists(values, max_size=3).map(tuple)})
events = st.lists(
    st.tuples(
        st.sampled_from(["batch", "validation", "epoch"]), st.integers(0, 2), st.integers(0, 100), logged, arrivals
    ),
    max_size=25,
)


def moments(seq):
    epoch = step = seconds = batch = 0
    for ended, steps, passed, settled, arrived in seq:
        step, seconds, batch = step + steps, seconds + passed, batch + (ended == "batch")
        yield Moment(ended, epoch, batch, step, float(seconds), {} if ended == "batch" else settled, arrived)
        if ended == "epoch":
            epoch, batch = epoch + 1, 0


def strict_json(state):
    return json.loads(json.dumps(state, allow_nan=False))


def check_restoring(build, seq, cut):
    uninterrupted, first, second = build(), build(), build()
    fresh = strict_json(first.state_dict())
    began = 0.0
    for i, now in enumerate(moments(seq)):
        expected = uninterrupted.ask(now)
        if i < cut:
            assert first.ask(now) == expected
            began = now.seconds
            continue
        if i == cut:
            second.load_state_dict(strict_json(first.state_dict()))
        assert second.ask(now._replace(seconds=now.seconds - began)) == expected
        assert second.known == uninterrupted.known
    # Set back to its first state, an object is as good as new.
    first.load_state_dict(fresh)
    again = build()
    assert [first.ask(now) for now in moments(seq)] == [again.ask(now) for now in moments(seq)]


@pytest.mark.parametrize("build", LEAVES)
@settings(max_examples=60, deadline=None)
@given(seq=events, cut=st.integers(0, 25))
def test_a_restored_condition_goes_on_as_if_uninterrupted(build, seq, cut):
    check_restoring(build, seq, cut)


trees = st.recursive(
    st.integers(0, len(LEAVES) - 1),
    lambda inner: st.one_of(
        st.tuples(st.just("~"), inner),
        st.tuples(st.sampled_from("|&"), inner, inner),
        st.tuples(st.just("after"), inner),
    ),
    max_leaves=6,
)


def has_clock_after(tree, after=False):
    """A clock that is not asked yet cannot tell, when it is saved, how long it has waited."""
    if isinstance(tree, int):
        return after and "minutes" in repr(LEAVES[tree]())
    return any(has_clock_after(one, after or tree[0] == "after") for one in tree[1:])


def build_tree(tree):
    if isinstance(tree, int):
        return LEAVES[tree]()
    sign, *inner = tree
    parts = [build_tree(one) for one in inner]
    if sign == "~":
        return ~parts[0]
    if sign == "after":
        return parts[0].after(epochs=1)
    return parts[0] | parts[1] if sign == "|" else parts[0] & parts[1]


@settings(max_examples=150, deadline=None)
@given(trees, events, st.integers(0, 25))
def test_a_restored_combination_goes_on_as_if_uninterrupted(tree, seq, cut):
    assume(not has_clock_after(tree))
    check_restoring(lambda: build_tree(tree), seq, cut)


def test_elapsed_keeps_nothing_because_its_clock_is_this_process():
    assert Elapsed(hours=1).state_dict() == {}
    Elapsed(hours=1).load_state_dict({})


WRONG = [
    (Plateau("val/loss", patience=1), {}),
    (Plateau("val/loss", patience=1), {"members": []}),
    (Plateau("val/loss", patience=1), None),
    (Plateau("val/loss", patience=1), {"best": "good", "best_epoch": 1, "checks": 1, "bad": 0}),
    (Plateau("val/loss", patience=1), {"best": 0.1, "best_epoch": 1, "checks": 1, "bad": None}),
    (Elapsed(hours=1), {"value": 1}),
    (NonFinite("x") | NonFinite("y"), {"members": [{"value": None, "blamed": None}]}),
    (NonFinite("x") & NonFinite("y"), {"members": 2}),
    (~NonFinite("x"), {"members": []}),
    (NonFinite("x").after(epochs=1), {"inner": {"best": 1}}),
    (
        ProgressQuotient("val/loss", alpha=1),
        {"lowest": 1.0, "newest": 1.0, "strip": ["x"], "trained": True, "quotient": 0.0},
    ),
]


@pytest.mark.parametrize(("condition", "state"), WRONG)
def test_the_state_of_another_condition_is_refused_and_changes_nothing(condition, state):
    before = condition.state_dict()
    with pytest.raises(ArgumentError, match="saved state"):
        condition.load_state_dict(state)
    assert condition.state_dict() == before
