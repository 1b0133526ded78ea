"""Plateau and Best against a model of their words, and Plateau against peers' own classes."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.conditions.best import Best
from epochal.conditions.plateau import Plateau
from epochal.core.moment import Moment

curves = st.lists(
    st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.2, -0.1, math.nan, math.inf, -math.inf]), st.floats()),
    max_size=30,
)
modes = st.sampled_from(["min", "max"])


def moments(seq, name="m"):
    """One epoch per value; None is a metric that was not measured."""
    for epoch, value in enumerate(seq):
        yield Moment("batch", epoch=epoch, batch=0)
        yield Moment("epoch", epoch=epoch, settled={} if value is None else {name: value})


def at_epoch_ends(condition, seq, name="m"):
    answers = [(now.ended, condition.ask(now)) for now in moments(seq, name)]
    return [answer for ended, answer in answers if ended == "epoch"]


def good_checks(seq, mode, delta, baseline):
    """By the words: better than all that counted before by more than delta, never NaN; one flag per check."""
    sign = 1 if mode == "max" else -1
    best = None if baseline is None else sign * baseline
    flags = []
    for value in seq:
        score = -math.inf if math.isnan(value) else sign * value
        good = score > -math.inf and (best is None or score - delta > best)
        best = score if good else best
        flags.append(good)
    return flags


def bad_since_good(flags):
    return next((n for n, good in enumerate(reversed(flags)) if good), len(flags))


@given(curves, modes, st.integers(1, 5), st.sampled_from([0.0, 0.05, 0.1]), st.sampled_from([None, 0.15, -1.0]))
def test_plateau_holds_while_p_checks_or_more_passed_since_the_best(seq, mode, patience, delta, baseline):
    plateau = Plateau("m", patience=patience, mode=mode, min_delta=delta, baseline=baseline)
    answers = at_epoch_ends(plateau, seq)
    for n, answer in enumerate(answers, 1):
        flags = good_checks([value for value in seq[:n] if value is not None], mode, delta, baseline)
        assert answer == (bad_since_good(flags) >= patience)


@given(curves, modes, st.sampled_from([0.0, 0.05]))
def test_best_holds_at_each_improvement_and_only_then(seq, mode, delta):
    best = Best("m", mode=mode, min_delta=delta)
    answers = [best.ask(now) for now in moments(seq)]
    flags = iter(good_checks([value for value in seq if value is not None], mode, delta, None))
    expected = [flag for value in seq for flag in (False, value is not None and next(flags))]
    assert answers == expected


def test_relative_delta_is_a_share_of_the_best_whatever_its_sign():
    # The best is -100, 1 % of it is 1: -101 is not better by more than that, -101.5 is.
    seq = [-100.0, -101.0, -101.5]
    assert at_epoch_ends(Plateau("m", patience=1, mode="min", min_delta=0.01, relative=True), seq) == [
        False,
        True,
        False,
    ]


def test_small_gains_do_not_move_the_reference():
    assert at_epoch_ends(Plateau("m", patience=3, mode="min", min_delta=0.1), [1.0, 0.95, 0.91, 0.89, 0.85]) == [
        False,
        False,
        False,
        False,
        False,
    ]
    assert at_epoch_ends(Plateau("m", patience=2, mode="min", min_delta=0.1), [1.0, 0.95, 0.91, 0.89]) == [
        False,
        False,
        True,
        False,
    ]


def test_several_validations_in_an_epoch_are_several_checks():
    plateau = Plateau("val/loss", patience=2)
    answers = [plateau.ask(Moment("validation", epoch=0, settled={"val/loss": 1.0})) for _ in range(3)]
    assert answers == [False, False, True]


def test_the_reason_tells_the_best_and_when_it_was():
    plateau = Plateau("val/loss", patience=2)
    now = Moment("epoch", epoch=0)
    for epoch, value in enumerate([0.5, 0.31, 0.4, 0.4]):
        now = Moment("epoch", epoch=epoch, settled={"val/loss": value})
        plateau.ask(now)
    assert plateau.reason(now) == "val/loss has not improved for 2 checks (best 0.31 in epoch 2)"


plain = st.lists(st.integers(1, 10**6), min_size=1, max_size=30, unique=True).map(lambda xs: [x / 1024 for x in xs])


@settings(max_examples=60, deadline=None)
@given(plain, st.integers(1, 5), modes)
def test_bad_checks_are_those_of_torch_reduce_lr_on_plateau(seq, patience, mode):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, patience=10**6, threshold=0.0, threshold_mode="abs"
    )
    plateau = Plateau("m", patience=patience, mode=mode)
    for value, answer in zip(seq, at_epoch_ends(plateau, seq), strict=True):
        peer.step(value)
        assert answer == (peer.num_bad_epochs >= patience)


@settings(max_examples=40, deadline=None)
@given(plain, st.integers(1, 5))
def test_it_stops_where_ultralytics_early_stopping_stops(seq, patience):
    peer = pytest.importorskip("ultralytics.utils.torch_utils").EarlyStopping(patience=patience)
    theirs = [bool(peer(epoch, value)) for epoch, value in enumerate(seq)]
    ours = at_epoch_ends(Plateau("fitness", patience=patience), seq, "fitness")
    assert (theirs.index(True) if any(theirs) else None) == (ours.index(True) if any(ours) else None)


def recorded():
    lines = (Path(__file__).parent.parent / "data" / "keras_early_stopping.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_it_stops_where_keras_early_stopping_was_recorded_to_stop():
    cases = recorded()
    assert len(cases) == 150
    for case in cases:
        options = case["opts"]
        plateau = Plateau(
            "m", patience=max(1, options["patience"]), min_delta=abs(options["min_delta"]), mode=options["mode"]
        )
        answers = at_epoch_ends(plateau, [None if value is None else float(value) for value in case["seq"]])
        stopped = next((epoch for epoch, answer in enumerate(answers) if answer), None)
        assert stopped == case["stopped_epoch"], case
