"""Retention, against a model that decides for each checkpoint on its own by counting who is before it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.checkpointing.layout import Manifest
from epochal.checkpointing.memory import MemoryStore
from epochal.checkpointing.retention import Keep, kept, ranked, surplus
from epochal.core.errors import ArgumentError

LABELS = ("a", "b", "gone")
values = st.none() | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf, -math.inf])


@st.composite
def histories(draw):
    count = draw(st.integers(0, 8))
    return [
        Manifest(
            name=f"n{index}",
            epoch=index,
            step=index,
            asked_by=tuple(draw(st.sets(st.sampled_from(LABELS)))),
            pinned=draw(st.booleans()) and draw(st.booleans()),
            resume_point=draw(st.booleans()),
            fitness=draw(values),
            metrics={name: value for name in ("loss", "fitness") if (value := draw(values)) is not None},
        )
        for index in range(count)
    ]


rules = st.builds(
    Keep,
    last=st.none() | st.integers(-1, 4),
    best=st.none() | st.integers(0, 4),
    metric=st.sampled_from([None, "loss", "fitness"]),
    mode=st.sampled_from(["min", "max"]),
)


def value_of(one, metric):
    if metric == "loss":
        return one.metrics.get("loss", math.nan)
    return one.metrics.get("fitness", math.nan) if one.fitness is None else one.fitness


def stays(one, history, rules, protected):
    if one.pinned or one.name in protected or not one.asked_by:
        return True
    if one.resume_point and not any(other.resume_point and other.epoch > one.epoch for other in history):
        return True
    for label in one.asked_by:
        if label not in rules:
            return True
        rule, asked = rules[label], [other for other in history if label in other.asked_by]
        if rule.last in (None, -1) or sum(other.epoch > one.epoch for other in asked) < rule.last:
            return True
        mine = value_of(one, rule.metric)
        better = 0
        for other in asked:
            his = value_of(other, rule.metric)
            if his == mine and other.epoch < one.epoch:
                better += 1
            if (his < mine) if rule.mode == "min" else (his > mine):
                better += 1
        if not math.isnan(mine) and better < (rule.best or 0):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(history=histories(), a=rules, b=rules, protected=st.sets(st.sampled_from(["n0", "n3", "other"])))
def test_what_stays_is_what_the_model_says(history, a, b, protected):
    table = {"a": a, "b": b}
    expected = {one.name for one in history if stays(one, history, table, protected)}
    assert kept(history, table, protected=protected) == expected


@settings(max_examples=300, deadline=None)
@given(history=histories(), a=rules, b=rules, protected=st.sets(st.sampled_from(["n0", "n3", "other"])))
def test_surplus_is_what_only_a_last_above_1_keeps(history, a, b, protected):
    lean = {
        label: Keep(min(rule.last, 1), rule.best, rule.metric, rule.mode) if rule.last not in (None, -1) else rule
        for label, rule in (("a", a), ("b", b))
    }
    expected = [one.name for one in history if not stays(one, history, lean, protected)]
    assert surplus(history, {"a": a, "b": b}, protected=protected) == expected


@settings(max_examples=100, deadline=None)
@given(history=histories(), rule=rules)
def test_retention_applied_twice_removes_nothing_more(history, rule):
    table = {"a": rule, "b": rule, "gone": rule}
    first = kept(history, table)
    assert kept([one for one in history if one.name in first], table) == first


@settings(max_examples=100, deadline=None)
@given(history=histories(), rule=rules)
def test_after_each_save_a_resume_point_is_left_if_there_was_one(history, rule):
    store = MemoryStore()
    for label in LABELS:
        store.keep(label, rule)
    seen = False
    for one in history:
        store.save(
            {},
            epoch=one.epoch,
            step=one.step,
            asked_by=one.asked_by,
            resume_point=one.resume_point,
            fitness=one.fitness,
        )
        seen |= one.resume_point
        assert (store.newest_resume_point() is not None) == seen


def test_a_tie_is_no_improvement():
    saves = [Manifest(name=name, epoch=0, step=0, fitness=1.0) for name in "abc"]
    assert [one.name for one in ranked(saves)] == ["a", "b", "c"]


@pytest.mark.parametrize("wrong", [{"last": -2}, {"best": -1}, {"mode": "up"}])
def test_a_rule_that_cannot_work_is_refused(wrong):
    with pytest.raises(ArgumentError):
        Keep(**wrong)
