"""How conditions combine: truth tables with the unknown, asking once, errors of construction, names, copies."""

import copy
import itertools
import pickle
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.conditions.base import And, Condition, Or
from epochal.conditions.best import Best
from epochal.conditions.level import NonFinite, Target
from epochal.conditions.plateau import Plateau
from epochal.conditions.schedule import Elapsed, Every
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment

NOW = Moment("epoch", epoch=5)


class Fixed(Condition):
    """Answers True, False, or None for unknown; counts how often it was really asked."""

    def __init__(self, value):
        self.value, self.times = value, 0

    def holds(self, now):
        self.times += 1
        return bool(self.value)

    @property
    def known(self):
        return self.value is not None

    def __repr__(self):
        return f"Fixed({self.value})"


def verdict(condition):
    """Kleene's third value for a condition that is not known."""
    answer = condition.ask(NOW)
    assert not (answer and not condition.known)
    return answer if condition.known else None


def kleene_or(*values):
    return True if True in values else None if None in values else False


def kleene_and(*values):
    return False if False in values else None if None in values else True


def kleene_not(value):
    return None if value is None else not value


@pytest.mark.parametrize(("a", "b", "c"), itertools.product([True, False, None], repeat=3))
def test_truth_tables_are_kleenes(a, b, c):
    def fixed():
        return Fixed(a), Fixed(b), Fixed(c)

    x, y, z = fixed()
    assert verdict(x | y | z) == kleene_or(a, b, c)
    x, y, z = fixed()
    assert verdict(x & y & z) == kleene_and(a, b, c)
    x, y, z = fixed()
    assert verdict(~(x | (y & ~z))) == kleene_not(kleene_or(a, kleene_and(b, kleene_not(c))))
    x, y, z = fixed()
    assert verdict(~~x & ~(y & z)) == kleene_and(a, kleene_not(kleene_and(b, c)))


trees = st.recursive(
    st.sampled_from([True, False, None]),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["or", "and"]), inner, inner),
        st.tuples(st.just("after"), inner),
    ),
    max_leaves=12,
)


def build(tree):
    if not isinstance(tree, tuple):
        return Fixed(tree)
    sign, *inner = tree
    parts = [build(one) for one in inner]
    if sign == "not":
        return ~parts[0]
    if sign == "after":
        return parts[0].after(epochs=NOW.epoch)
    return parts[0] | parts[1] if sign == "or" else parts[0] & parts[1]


def evaluate(tree):
    if not isinstance(tree, tuple):
        return tree
    sign, *inner = tree
    values = [evaluate(one) for one in inner]
    return {"not": kleene_not, "after": lambda x: x, "or": kleene_or, "and": kleene_and}[sign](*values)


@given(trees)
def test_nested_combinations_follow_three_valued_logic_and_ask_every_leaf_once(tree):
    condition = build(tree)
    assert verdict(condition) == evaluate(tree)
    condition.ask(NOW)
    assert [leaf.times for leaf in condition.leaves()] == [1] * len(list(condition.leaves()))


def test_a_leaf_without_a_value_holds_neither_plain_nor_inverted_however_deep():
    for condition in (Target("fitness", 0.5), Plateau("val/loss", patience=1), Best("fitness"), NonFinite("x")):
        assert not condition.ask(NOW)
        assert not (~condition).ask(NOW)
        assert not (~(condition | condition)).ask(NOW)
        assert not (~(condition & ~condition)).ask(NOW)


def test_one_object_in_two_places_counts_once_per_moment():
    every = Every(batches=2)
    both, other = every | (every & every), every | Elapsed(hours=1)
    answers = []
    for _ in range(4):
        now = Moment("batch", epoch=0)
        answers.append((both.ask(now), other.ask(now), every.ask(now)))
    assert answers == [(False,) * 3, (True,) * 3, (False,) * 3, (True,) * 3]


def test_after_neither_asks_nor_counts_nor_knows_during_the_first_epochs():
    inner = Plateau("val/loss", patience=1)
    condition = inner.after(epochs=2)
    inverted = ~condition
    assert condition.missing() == frozenset()
    for epoch in (0, 1):
        now = Moment("epoch", epoch=epoch, settled={"val/loss": 1.0})
        assert not condition.ask(now)
        assert not inverted.ask(now)
        assert condition.missing() == frozenset()
    assert inner.state.checks == 0
    now = Moment("epoch", epoch=2)
    assert not condition.ask(now)
    assert condition.missing() == {"val/loss"}
    assert [condition.ask(Moment("epoch", epoch=e, settled={"val/loss": 2.0})) for e in (2, 3)] == [False, True]


def test_a_combination_misses_settles_and_watches_what_its_leaves_do():
    condition = (NonFinite("a") & ~Target("fitness", 0.5)) | Plateau("val/loss", patience=1).after(epochs=9)
    assert condition.settles == {"fitness", "val/loss"}
    assert condition.watches == {"a"}
    condition.ask(Moment("epoch", epoch=0, arrived={"a": (1.0,)}))
    assert condition.missing() == {"fitness"}
    assert [type(leaf).__name__ for leaf in condition.leaves()] == ["NonFinite", "Target", "Plateau"]


@pytest.mark.parametrize("other", [None, "val/loss", 3, NonFinite, lambda now: True])
def test_combining_with_something_else_says_what_is_needed(other):
    condition = Elapsed(hours=1)
    for combine in (
        lambda: condition | other,
        lambda: other | condition,
        lambda: condition & other,
        lambda: other & condition,
    ):
        with pytest.raises(TypeError, match="combines conditions"):
            combine()


def test_a_class_instead_of_an_object_is_told_from_other_mistakes():
    with pytest.raises(TypeError, match=r"the class NonFinite: write NonFinite\(\.\.\.\)"):
        NonFinite | Elapsed(hours=1)


def test_or_and_not_point_to_the_operators():
    a, b = NonFinite("x"), Elapsed(hours=1)
    for mistake in (lambda: a or b, lambda: a and b, lambda: not a, lambda: bool(a | b)):
        with pytest.raises(TypeError, match=r"\| & ~"):
            mistake()


def test_names_are_the_calls_that_make_them():
    condition = (NonFinite("train/loss") | Elapsed(hours=8) | (Target("fitness", 0.9) & Every(epochs=2))) & ~Best(
        "val/x", mode="min"
    )
    shown = "(NonFinite('train/loss') | Elapsed(hours=8) | (Target('fitness', 0.9) & Every(epochs=2))) & ~Best('val/x', mode='min')"
    assert repr(condition) == shown
    assert repr(eval(shown)) == shown
    assert (
        repr(Plateau("val/loss", patience=5, min_delta=0.0, baseline=1.0))
        == "Plateau('val/loss', patience=5, baseline=1.0)"
    )
    assert repr((~NonFinite("x")).after(epochs=2)) == "(~NonFinite('x')).after(epochs=2)"
    assert repr(~(NonFinite("x") | NonFinite("y"))) == "~(NonFinite('x') | NonFinite('y'))"


def test_chains_are_flat_and_mixtures_are_not():
    a, b, c, d = (NonFinite(name) for name in "abcd")
    assert (a | b | c | d).members == ((a | b) | (c | d)).members == (a, b, c, d)
    mixed = a | (b & c)
    assert isinstance(mixed, Or)
    assert isinstance(mixed.members[1], And)


def test_reasons_are_those_of_the_members_that_hold():
    now = Moment("epoch", epoch=1, seconds=7200, settled={"fitness": 0.93})
    either = NonFinite("x") | Elapsed(hours=1) | Target("fitness", 0.9)
    both = (Elapsed(hours=1) & Target("fitness", 0.9)).after(epochs=1)
    assert either.ask(now)
    assert both.ask(now)
    assert either.reason(now) == "1 hour has passed; fitness 0.93 reached 0.9"
    assert both.reason(now) == "1 hour has passed and fitness 0.93 reached 0.9"
    low = ~Target("fitness", 0.95)
    assert low.ask(now)
    assert low.reason(now) == "Target('fitness', 0.95) does not hold"


@dataclass(frozen=True)
class Frozen(Condition):
    epoch: int

    def holds(self, now):
        return now.epoch >= self.epoch


@dataclass(slots=True)
class Slotted(Condition):
    epoch: int

    def holds(self, now):
        return now.epoch >= self.epoch


@dataclass
class Count:
    asked_times: int = 0


@dataclass(eq=False)
class Patient(Condition):
    """A user's own leaf that keeps its state the short way."""

    times: int
    state: Count = field(default_factory=Count)

    def holds(self, now):
        self.state.asked_times += 1
        return self.state.asked_times >= self.times


def test_a_users_own_leaf_may_be_a_dataclass_of_any_kind():
    for leaf in (Frozen(5), Slotted(5), Patient(1)):
        assert (leaf | NonFinite("x")).ask(NOW)
        assert leaf.ask(NOW)
    patient = Patient(3)
    patient.ask(NOW)
    assert patient.state_dict() == {"asked_times": 1}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_does_not_share_the_last_answer(duplicate):
    for leaf in (
        Frozen(5),
        Slotted(5),
        Patient(1),
        Plateau("val/loss", patience=1),
        Elapsed(hours=1) | ~NonFinite("x"),
    ):
        leaf.ask(NOW)
        other = duplicate(leaf)
        assert not other.asked
        other.ask(Moment("epoch", epoch=0))
        assert type(other) is type(leaf)
        if not isinstance(leaf, Patient):  # it is no dataclass and shows no arguments
            assert repr(other) == repr(leaf)
        assert leaf.ask(NOW) == leaf.answer


def test_a_condition_without_holds_cannot_be_made():
    class Empty(Condition):
        pass

    with pytest.raises(TypeError, match="holds"):
        Empty()


def test_after_takes_whole_epochs():
    with pytest.raises(ArgumentError, match="epochs"):
        NonFinite("x").after(epochs=2.5)  # type: ignore[arg-type]
