"""What presets accept and refuse, and what they are beside their decisions: callbacks like any other."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Checkpoint, EarlyStopping, Every, ReduceLROnPlateau
from epochal.checkpointing.layout import Manifest
from epochal.checkpointing.retention import Keep, Ranks, kept, ranked
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

NAN = math.nan


def losses(*values):
    return [{} if value is None else {"val/loss": value} for value in values]


REFUSED = [
    (lambda: EarlyStopping("val/loss", patience=1, compat="kera"), "'keras'"),
    (lambda: EarlyStopping("val/loss", patience=1, compat="torch"), 'compat must be "keras" or "lightning"'),
    (lambda: EarlyStopping("val/loss", patience=1, baseline=1.0, compat="lightning"), 'or use compat="keras"'),
    (lambda: EarlyStopping("val/loss", patience=1, restore_best=True, compat="lightning"), "takes no restore_best"),
    (lambda: EarlyStopping("val/loss", patience=1, check_finite=False, compat="keras"), "takes no check_finite"),
    (lambda: EarlyStopping("val/loss", patience=1, relative=True, compat="keras"), "takes no relative"),
    (lambda: EarlyStopping("val/loss", patience=1, start_from_epoch=2, compat="transformers"), 'compat="keras"'),
    (lambda: EarlyStopping("fitness", patience=1, min_delta=0.1, compat="ultralytics"), "takes no min_delta"),
    (lambda: EarlyStopping("val/loss", patience=1, mode="min", compat="ultralytics"), "always maximises"),
    (lambda: EarlyStopping("val/loss", patience=None, compat="keras"), "patience must be a whole number"),
    (lambda: EarlyStopping("val/loss", patience=-1, compat="keras"), "of at least 0, not -1"),
    (lambda: EarlyStopping("val/loss", patience=1, min_delta=NAN, compat="keras"), "min_delta must be a number"),
    (lambda: EarlyStopping("val/loss", patience=1, stopping_threshold="x", compat="lightning"), "stopping_threshold"),
    (lambda: EarlyStopping("val/thing", patience=1, compat="lightning"), "pass mode="),
    (lambda: EarlyStopping("val/loss", patience=1, start_from_epoch=2), r"Plateau\(...\).after\(epochs=n\)"),
    (lambda: EarlyStopping("val/loss", patience=1, check_finite=True), "goes with compat= only"),
    (lambda: EarlyStopping("val/loss", patience=1, stopping_threshold=0.1), "Target"),
    (lambda: EarlyStopping("val/loss", patience=1, divergence_threshold=9), "Diverged"),
    (lambda: ReduceLROnPlateau("val/loss", compat="lightning"), 'compat must be "keras" or "torch"'),
    (lambda: ReduceLROnPlateau("val/loss", relative=True, compat="keras"), 'or use compat="torch"'),
    (lambda: ReduceLROnPlateau("val/loss", eps=0.1, compat="keras"), "takes no eps"),
    (lambda: ReduceLROnPlateau("val/loss", eps=0.1), "eps= goes with compat= only"),
    (lambda: ReduceLROnPlateau("val/loss", eps="x", compat="torch"), "eps must be a number, not 'x'"),
    (lambda: ReduceLROnPlateau("val/loss", eps=-1, compat="torch"), "eps must be a finite number of at least 0"),
    (lambda: ReduceLROnPlateau("val/loss", factor=1.0, compat="torch"), "factor must be below 1"),
    (lambda: ReduceLROnPlateau("val/loss", patience=-1, compat="torch"), "patience"),
    (lambda: Checkpoint(compat="torch"), "compat must be"),
    (lambda: Checkpoint(Every(epochs=1), compat="keras"), "leave when="),
    (lambda: Checkpoint(overhead=0.02, compat="keras"), "leave when="),
    (lambda: Checkpoint(metric="val/loss", best_only=True, compat="lightning"), "takes no best_only"),
    (lambda: Checkpoint(metric="val/loss", keep_best=2, compat="keras"), "takes no keep_best"),
    (lambda: Checkpoint(metric="val/loss", every_n_epochs=2, compat="keras"), "takes no every_n_epochs"),
    (lambda: Checkpoint(metric="val/loss", initial_best=2, compat="transformers"), "takes no initial_best"),
    (lambda: Checkpoint(metric="val/loss", keep_best=2, compat="transformers"), "keeps one best only"),
    (lambda: Checkpoint(metric="val/loss", keep_last=2, compat="lightning"), "save_last only"),
    (lambda: Checkpoint(keep_best=2, compat="lightning"), "needs a metric to rank by"),
    (lambda: Checkpoint(metric="val/loss", keep_best=-2, compat="lightning"), "keep_best must be a whole number"),
    (lambda: Checkpoint(metric="val/loss", initial_best=NAN, compat="keras"), "initial_best must be a number"),
    (lambda: Checkpoint(metric="val/loss", mode="min", compat="ultralytics"), "always maximises"),
    (lambda: Checkpoint(best_only=True), r"when=Best\(metric\)"),
    (lambda: Checkpoint(every_n_epochs=2), r"when=Every\(epochs=n\)"),
    (lambda: Checkpoint(initial_best=2), "goes with compat= only"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_what_a_library_does_not_have_is_refused_with_a_cure(make, said):
    with pytest.raises(ArgumentError, match=said):
        make()


def test_what_a_library_accepts_is_accepted():
    curve = losses(1.0, 1.0, 1.0, 1.0)
    assert simulate([EarlyStopping("val/loss", patience=0, compat="keras")], curve).epochs_run == 2
    assert simulate([EarlyStopping("val/loss", patience=0, compat="lightning")], curve).epochs_run == 2
    assert simulate([EarlyStopping("val/loss", patience=0, compat="transformers")], curve).epochs_run == 1
    for never in (0, None):
        assert simulate([EarlyStopping("val/loss", patience=never, compat="ultralytics")], curve).epochs_run == 4
    for compat in ("keras", "lightning", "transformers"):
        EarlyStopping("val/loss", patience=1, min_delta=-0.1, compat=compat)
    assert Checkpoint(metric="val/loss", keep_last=None, compat="transformers").keep_last == -1
    assert Checkpoint(metric="val/loss", keep_last=True, compat="lightning").keep_last == 1
    assert Checkpoint(metric="val/loss", keep_last=None, compat="lightning").keep_last == 0
    assert Checkpoint(every_n_epochs=-1, compat="ultralytics").metric == "fitness"


def test_ultralytics_always_maximises_whatever_the_name_says():
    result = simulate([EarlyStopping("val/loss", patience=2, compat="ultralytics")], losses(1.0, 2.0, 1.9, 1.8, 1.7))
    assert result.epochs_run == 4


def test_defaults_are_the_librarys():
    assert ReduceLROnPlateau("val/loss", compat="torch").due.relative is True
    assert ReduceLROnPlateau("val/loss", compat="torch").due.min_delta == 1e-4
    assert ReduceLROnPlateau("val/loss", compat="torch").eps == 1e-8
    assert ReduceLROnPlateau("val/loss", compat="keras").due.min_delta == 1e-4
    assert ReduceLROnPlateau("val/loss").due.min_delta == 0.0
    one = Checkpoint(metric="val/loss", compat="lightning")
    assert (one.keep_last, one.keep_best) == (0, 1)


def test_a_metric_that_nobody_logs_is_said_once_and_decides_nothing(caplog):
    policies = [
        EarlyStopping("val/loss", patience=1, compat="keras"),
        ReduceLROnPlateau("val/loss", patience=1, compat="torch"),
        Checkpoint(metric="val/loss", compat="lightning"),
    ]
    result = simulate(policies, [{"x": 1.0}] * 4)
    assert (result.epochs_run, result.end_reason, result.lrs[-1], result.saved) == (4, "completed", 0.1, [])
    assert [text.count("nobody has measured 'val/loss' yet") for text in caplog.messages] == [1, 1, 1]


def test_the_reason_says_who_counts():
    result = simulate([EarlyStopping("val/loss", patience=2, compat="keras")], losses(1.0, 0.5, 0.6, 0.7))
    text = "val/loss has not improved for 2 checks (best 0.5 in epoch 2) (as keras counts)"
    assert result.stop_reason == f"EarlyStopping(val/loss): {text}"
    result = simulate([EarlyStopping("val/loss", patience=2, compat="lightning")], losses(1.0, NAN))
    assert result.stop_reason == "EarlyStopping(val/loss): val/loss is nan (as lightning counts)"
    lightning = EarlyStopping("val/loss", patience=2, stopping_threshold=0.5, compat="lightning")
    assert "0.4 reached 0.5" in simulate([lightning], losses(1.0, 0.4)).stop_reason


MAKERS = [
    lambda: EarlyStopping("val/loss", patience=2, restore_best=True, compat="keras"),
    lambda: EarlyStopping("val/loss", patience=2, check_finite=False, compat="lightning"),
    lambda: EarlyStopping("val/loss", patience=2, min_delta=0.1, restore_best=True, compat="transformers"),
    lambda: EarlyStopping("val/loss", patience=2, compat="ultralytics"),
    lambda: ReduceLROnPlateau("val/loss", patience=1, cooldown=1, compat="keras"),
    lambda: ReduceLROnPlateau("val/loss", patience=1, cooldown=1, compat="torch"),
    lambda: Checkpoint(metric="val/loss", best_only=True, compat="keras"),
    lambda: Checkpoint(metric="val/loss", keep_best=2, keep_last=1, compat="lightning"),
    lambda: Checkpoint(metric="val/loss", keep_last=2, compat="transformers"),
    lambda: Checkpoint(metric="val/loss", every_n_epochs=3, compat="ultralytics"),
]
values = st.one_of(st.none(), st.sampled_from([1.0, 0.9, 0.9 + 1e-9, 0.5, 0.0, NAN, math.inf]))


@settings(deadline=None, max_examples=25)
@given(st.lists(values, min_size=1, max_size=9), st.sampled_from(MAKERS))
def test_a_second_training_and_copies_decide_as_the_first(curve, make):
    one = make()
    copies = [copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    first = simulate([one], losses(*curve))._replace(run=None)
    copies += [copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    for other in [one, *copies]:
        assert simulate([other], losses(*curve))._replace(run=None) == first


@settings(deadline=None, max_examples=40)
@given(
    st.lists(values, min_size=2, max_size=10), st.sampled_from(["keras", "lightning", "transformers"]), st.booleans()
)
def test_a_training_that_goes_on_decides_as_one_that_was_never_cut(curve, compat, best):
    def policies():
        more = {} if compat == "lightning" else {"restore_best": best}
        return [EarlyStopping("val/loss", patience=2, compat=compat, **more), Checkpoint(keep_last=-1, name="all")]

    whole = simulate(policies(), losses(*curve))
    half = whole.epochs_run // 2
    cut = simulate(policies(), losses(*curve[:half])) if half else None
    if cut is None or cut.end_reason == "stopped":
        return
    newest = cut.run.checkpoints.last
    state = {"run": newest.load("run"), "callbacks": newest.load("callbacks")}
    rest = simulate(policies(), losses(*curve), state=state)
    assert rest.run.epoch == whole.run.epoch
    assert rest.end_reason == whole.end_reason


# -- retention ------------------------------------------------------------------------------------------------------


def saves(*rates):
    return [
        Manifest(name=f"n{n}", epoch=n, step=n, asked_by=("a",), resume_point=True, metrics={"x": rate})
        for n, rate in enumerate(rates)
    ]


rates = st.lists(st.sampled_from([0.5, 0.5 + 1e-9, 0.25, NAN, math.inf, -math.inf]), max_size=7)


@given(rates, st.sampled_from(["min", "max"]), st.sampled_from(["nan", "worst", "nothing"]), st.booleans())
def test_the_best_are_ranked_as_told(rates, mode, never, later):
    order = ranked(saves(*rates), metric="x", mode=mode, ranks=Ranks(never=never, later=later))
    worst = math.inf if mode == "min" else -math.inf
    found = [worst if math.isnan(one.metrics["x"]) else one.metrics["x"] for one in order]
    assert found == sorted(found, reverse=mode == "max")
    for one, other in pairwise(order):
        if found[order.index(one)] == found[order.index(other)]:
            assert (one.epoch > other.epoch) == later
    left_out = {"nan": lambda x: x != x, "worst": lambda x: x != x or x == worst, "nothing": lambda x: False}[never]
    assert sorted(one.epoch for one in order) == [n for n, rate in enumerate(rates) if not left_out(rate)]


@given(rates.filter(len), st.integers(1, 4))
def test_the_best_is_one_of_the_last(rates, limit):
    there = saves(*rates)
    rule = Keep(last=limit, best=1, metric="x", mode="min", shared=True)
    best = {one.name for one in ranked(there, metric="x", mode="min")[:1]}
    # By the words of the library: the oldest go, but neither the best nor the newest, until so many are left.
    stay = [one.name for one in there]
    protected = best | {stay[-1]}
    for name in list(stay):
        if len(stay) > max(limit, len(protected)) and name not in protected:
            stay.remove(name)
    assert kept(there, {"a": rule}) == set(stay)


def test_a_training_that_is_over_needs_no_newest():
    rule = Keep(last=0, best=1, metric="x", mode="min", over=True)
    assert kept(saves(0.2, 0.1, 0.3), {"a": rule}) == {"n1"}
    assert kept(saves(NAN, NAN), {"a": rule}) == {"n1"}  # nothing is best
    other = [*saves(0.2, 0.1), Manifest(name="z", epoch=9, step=9, asked_by=("b",), resume_point=True)]
    assert kept(other, {"a": rule, "b": Keep(last=0)}) == {"n1", "z"}


def test_of_each_so_manieth_epoch_one_stays():
    assert kept(saves(*[0.0] * 8), {"a": Keep(last=1, every=3)}) == {"n0", "n3", "n6", "n7"}
