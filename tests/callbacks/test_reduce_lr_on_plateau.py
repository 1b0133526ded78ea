"""ReduceLROnPlateau cuts where PyTorch's own class does, translated, and where Keras' rules say."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import MetricNotFound, ReduceLROnPlateau
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

NAN = float("nan")
RECORDED = Path(__file__).parent.parent / "data" / "keras_reduce_lr_on_plateau.jsonl"
# Exact in binary: which of a - b > c and a < b - c an edge falls to is a matter of rounding, not of the rule.
numbers = st.sampled_from([1.0, 0.875, 0.8125, 0.75, 0.5, 0.4375, 0.25, -0.25])
options = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "patience": st.integers(1, 4),
        "min_delta": st.sampled_from([0.0, 0.0625, 0.25]),
        "cooldown": st.integers(0, 4),
        "mode": st.sampled_from(["min", "max"]),
    }
)


def rates(curve, lr=0.1, **options):
    epochs = [{} if value is None else {"loss": value} for value in curve]
    return simulate([ReduceLROnPlateau("loss", **options)], epochs, lr=lr).lrs


def rates_of_torch(curve, lr, *, factor, patience, min_delta, cooldown, mode, min_lr=0.0):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": one} for one in lr], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience - 1, threshold=min_delta, threshold_mode="abs",
        cooldown=max(cooldown - 1, 0), eps=0, min_lr=min_lr,
    )  # fmt: skip
    found = []
    for value in curve:
        scheduler.step(value)
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
    return found


def rates_of_model(curve, lr, *, factor, patience, min_delta, cooldown, mode, min_lr=0.0):
    """The rules of Keras, with ours for NaN, ties and missing values, in the plainest words."""
    sign = 1 if mode == "min" else -1
    best, wait, cool, found = None, 0, 0, []
    for value in curve:
        if value is not None:
            if cool > 0:
                cool, wait = cool - 1, 0
            score = sign * value
            improved = score < float("inf") if best is None else score + min_delta < best
            if improved:
                best, wait = score, 0
            elif cool == 0:
                wait += 1
                if wait >= patience and lr > min_lr:
                    lr, cool, wait = max(lr * factor, min_lr), cooldown, 0
        found.append(lr)
    return found


@settings(deadline=None)
@given(curve=st.lists(numbers, min_size=1, max_size=25), options=options)
def test_it_cuts_where_torchs_own_class_does(curve, options):
    ours = rates(curve, lr=(0.1, 0.02), **options)
    assert ours == [pytest.approx(pair) for pair in rates_of_torch(curve, (0.1, 0.02), **options)]


@settings(deadline=None)
@given(
    curve=st.lists(st.one_of(numbers, st.none(), st.just(NAN), st.just(float("inf"))), min_size=1, max_size=25),
    options=options,
    min_lr=st.sampled_from([0.0, 0.004, 0.03, 0.2]),
)
def test_it_counts_as_keras_does_with_our_rules_for_nan_and_ties(curve, options, min_lr):
    curve = [1.0, *curve]
    expected = rates_of_model(curve, 0.1, **options, min_lr=min_lr)
    assert rates(curve, **options, min_lr=min_lr) == pytest.approx(expected)


def test_it_repeats_what_keras_did():
    for case in map(json.loads, RECORDED.read_text().splitlines()[1:]):
        curve = [None if value is None else float(value) for value in case["seq"]]  # "nan" and "inf" are strings
        # Keras holds the rate in float32.
        assert rates(curve, lr=case["lr0"], **case["opts"]) == pytest.approx(case["dec"]["lr"], rel=1e-4), case["id"]


@settings(deadline=None)
@given(
    curve=st.lists(st.sampled_from([1.0, NAN]), min_size=20, max_size=40),
    lr=st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=3),
    floor=st.floats(1e-9, 1.0),
    factor=st.floats(0.01, 0.99),
)
def test_no_cut_goes_below_the_floor(curve, lr, floor, factor):
    for found in rates(curve, lr=lr, factor=factor, patience=1, min_lr=floor):
        assert all(rate >= min(floor, own) for rate, own in zip(found, lr, strict=True))


def test_floors_can_be_given_per_group():
    flat = [1.0] * 9
    for floors in ([0.05, 0.001], {"pg0": 0.05, "pg1": 0.001}):
        assert rates(flat, lr=(0.1, 0.02), factor=0.1, patience=1, min_lr=floors)[-1] == pytest.approx((0.05, 0.001))
    assert rates(flat[:3], lr=(0.1, 0.02), factor=0.1, patience=1, min_lr={"pg0": 0.05})[-1] == pytest.approx(
        (0.05, 0.0002)
    )


def test_the_factor_stays_under_what_a_person_sets():
    class Person(Callback):
        def on_fit_epoch_end(self, run):
            if run.epoch == 1:
                run.set_lr(0.8)

    epochs = [{"loss": 1.0}] * 4
    result = simulate([ReduceLROnPlateau("loss", factor=0.5, patience=2), Person()], epochs)
    assert result.lrs == pytest.approx([0.1, 0.8, 0.4, 0.4])


def test_a_cut_is_said(caplog):
    caplog.set_level("INFO", logger="epochal")
    rates([1.0, 1.0, 1.0], factor=0.5, patience=2)
    assert (
        "ReduceLROnPlateau(loss): learning rate of pg0 0.1 -> 0.05 (loss has not improved for 2 checks)" in caplog.text
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": 1.0}, "factor must be below 1"),
        ({"factor": 0}, "factor"),
        ({"patience": 0}, "patience must be"),
        ({"cooldown": -1}, "cooldown"),
        ({"min_lr": -0.1}, "min_lr"),
        ({"min_lr": NAN}, "min_lr"),
        ({"min_lr": [0.1, -1]}, "min_lr"),
        ({"min_delta": -1}, "min_delta"),
        ({"mode": "up"}, 'mode must be "min" or "max"'),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, said):
    with pytest.raises(ArgumentError, match=said):
        ReduceLROnPlateau("loss", **options)


def test_floors_that_fit_no_group_are_refused_with_the_groups():
    with pytest.raises(ArgumentError, match=r"2 numbers for 1 parameter groups \(pg0\)"):
        rates([1.0, 1.0], patience=1, min_lr=[0.1, 0.2])
    with pytest.raises(ArgumentError, match=r"'pg3'.* Groups: pg0"):
        rates([1.0, 1.0], patience=1, min_lr={"pg3": 0.1})


def test_a_metric_that_is_never_logged_is_an_error():
    with pytest.raises(MetricNotFound, match=r"ReduceLROnPlateau\('loss'.*needs it"):
        rates([None, 1.0])
