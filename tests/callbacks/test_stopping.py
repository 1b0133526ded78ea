"""Stop, EarlyStopping, TerminateOnNaN and TimeLimit: when they stop, what they say, what they refuse."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import (
    Checkpoint,
    Elapsed,
    EpochalError,
    MetricNotFound,
    NonFinite,
    Plateau,
    Stop,
    Target,
    TerminateOnNaN,
    TimeLimit,
)
from epochal import EarlyStopping as OurEarlyStopping
from epochal.callbacks.early_stopping import EarlyStopping
from epochal.conditions.base import Condition
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.moment import Moment
from epochal.testing import simulate

NAN = float("nan")


def losses(*values):
    return [{} if value is None else {"val/loss": value} for value in values]


def epochs_of_model(curve, patience, min_delta=0.0):
    """How many epochs a training runs, by the words of the contract."""
    best, bad = float("inf"), 0
    for epoch, value in enumerate(curve, start=1):
        if value is not None:
            improved = value == value and value < best - min_delta if best != float("inf") else value < best
            best, bad = (value, 0) if improved else (best, bad + 1)
        if bad >= patience:
            return epoch
    return len(curve)


@settings(deadline=None)
@given(
    curve=st.lists(
        st.one_of(st.none(), st.sampled_from([1.0, 0.75, 0.5, 0.25, NAN, float("inf")])), min_size=1, max_size=20
    ),
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.25, 0.3]),
)
def test_it_stops_at_the_pth_bad_check_since_the_best(curve, patience, min_delta):
    curve = [1.0, *curve]
    result = simulate([EarlyStopping("val/loss", patience=patience, min_delta=min_delta)], losses(*curve))
    assert result.epochs_run == epochs_of_model(curve, patience, min_delta)


def test_early_stopping_is_stop_on_a_plateau():
    curve = losses(1.0, 0.5, 0.6, NAN, 0.5, 0.4)
    one = simulate([EarlyStopping("val/loss", patience=3)], curve)
    other = simulate([Stop(when=Plateau("val/loss", patience=3))], curve)
    assert (one.epochs_run, one.end_reason) == (other.epochs_run, other.end_reason) == (5, "stopped")
    text = "val/loss has not improved for 3 checks (best 0.5 in epoch 2)"
    assert one.stop_reason == f"EarlyStopping(val/loss): {text}"
    assert other.stop_reason == f"Stop: {text}"


def test_the_door_gives_the_same_class():
    assert OurEarlyStopping is EarlyStopping


def test_it_asks_once_although_its_condition_goes_on_holding():
    # Batches, the validation and the epoch's end are safe points: it holds at each of them.
    result = simulate(
        [Stop(when=Target("train/loss", 1.0) | Elapsed(seconds=1e-9))], [{"train/loss": 0.5}] * 3, batches=4
    )
    assert result.stop_reason.count("Stop:") == 1


def test_after_a_stop_in_a_batch_no_further_batch_runs_and_the_epoch_ends_in_order():
    result = simulate([TimeLimit(seconds=1e-9)], losses(1.0, 1.0), batches=5)
    assert result.events.count("on_train_batch_end") == 1
    assert result.events[-4:] == ["on_val_end", "on_fit_epoch_end", "on_train_end", "teardown"]
    assert result.end_reason == "stopped"


def test_requests_of_several_add_up_in_their_order():
    policies = [
        EarlyStopping("val/loss", patience=1),
        TerminateOnNaN("val/loss"),
        Stop(when=Target("fitness", 5), name="goal"),
    ]
    result = simulate(policies, [{"val/loss": 1.0, "fitness": 1}, {"val/loss": NAN, "fitness": 6}])
    assert [text.partition(":")[0] for text in result.stop_reason.split("; ")] == [
        "EarlyStopping(val/loss)", "TerminateOnNaN(val/loss)", "goal",
    ]  # fmt: skip


def test_the_reason_names_the_members_that_hold():
    stop = Stop(when=NonFinite("train/loss") | Elapsed(hours=8) | Target("fitness", 0.9))
    result = simulate([stop], [{"train/loss": 1.0, "fitness": 0.95}])
    assert result.stop_reason == "Stop: fitness 0.95 reached 0.9"


def test_terminate_on_nan_stops_in_the_batch_that_logged_it():
    class Diverging(Callback):
        def on_train_batch_end(self, run):
            run.log({"train/loss": NAN if run.batch == 2 else 1.0})

    result = simulate([Diverging(), TerminateOnNaN()], [{}], batches=9)
    assert result.events.count("on_train_batch_end") == 3
    assert (
        result.stop_reason == "TerminateOnNaN(train/loss): train/loss is nan"
        or "train/loss is nan" in result.stop_reason
    )


def test_a_list_of_policies_serves_a_second_training_afresh():
    policies = [EarlyStopping("val/loss", patience=2), TerminateOnNaN("val/loss")]
    curve = losses(1.0, 1.0, 1.0, 1.0)
    assert [simulate(policies, curve).epochs_run for _ in range(3)] == [3, 3, 3]


def test_a_condition_cannot_serve_two_trainings_at_once():
    shared = Plateau("val/loss", patience=2)

    class Nested(Callback):
        def on_train_start(self, run):
            simulate([Stop(when=shared | Elapsed(hours=1))], losses(1.0))

    with pytest.raises(AttachError, match=r"Plateau.* serves another training"):
        simulate([Stop(when=shared), Nested()], losses(1.0))


def test_a_metric_that_is_never_logged_is_an_error_at_the_first_epochs_end():
    with pytest.raises(
        MetricNotFound,
        match=r"no metric 'valid/loss' .*did you mean 'val/loss'.*EarlyStopping\('valid/loss', patience=3\) needs it",
    ):
        simulate([EarlyStopping("valid/loss", patience=3)], losses(1.0, 1.0))
    with pytest.raises(MetricNotFound, match=r"after\(epochs=n\)"):
        simulate([Stop(when=NonFinite("train/loss") | Elapsed(hours=1))], losses(1.0, 1.0))


def test_after_allows_a_metric_that_comes_late():
    late = Plateau("val/loss", patience=1).after(epochs=2)
    assert simulate([Stop(when=late)], losses(None, None, 1.0, 1.0, 1.0)).epochs_run == 4
    with pytest.raises(MetricNotFound):
        simulate([Stop(when=Plateau("val/loss", patience=1).after(epochs=1))], losses(None, None, 1.0))


def test_a_training_that_is_stopped_before_its_first_validation_is_not_an_error_as_well():
    result = simulate([TimeLimit(seconds=1e-9), EarlyStopping("val/loss", patience=3)], losses(None))
    assert result.end_reason == "stopped"


def test_a_value_that_was_not_measured_again_is_no_check():
    assert (
        simulate([EarlyStopping("val/loss", patience=2)], losses(1.0, None, None, None, 1.0, None, 1.0)).epochs_run == 7
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: EarlyStopping("val/loss", patience=0),
            "^EarlyStopping: patience must be a whole number of at least 1, not 0",
        ),
        (lambda: EarlyStopping("val/loss", patience=1.5), "patience"),
        (lambda: EarlyStopping("val/loss", patience=3, min_delta=-0.1), "min_delta"),
        (lambda: EarlyStopping("val/loss", patience=3, mode="minimum"), 'mode must be "min" or "max"'),
        (lambda: EarlyStopping("val/thing", patience=3), "mode="),
        (lambda: EarlyStopping(3, patience=3), "name of a metric"),
        (lambda: Stop(when="val/loss"), "when must be a condition"),
        (lambda: Stop(when=Plateau), r"pass an object, Plateau\(...\)"),
        (lambda: Stop(when=lambda now: True), "subclass of epochal.Condition"),
        (lambda: Stop(when=True), "combined with"),
        (lambda: Stop(when=Target("fitness", NAN)), "value must be a number, not nan"),
        (lambda: TimeLimit(), "^TimeLimit needs a time above 0"),
        (lambda: TimeLimit(minutes=-1), "minutes"),
        (lambda: TerminateOnNaN(""), "^TerminateOnNaN: metric must be the name of a metric"),
    ],
)
def test_bad_arguments_are_refused_at_construction(make, said):
    with pytest.raises(EpochalError, match=said) as caught:
        make()
    assert isinstance(caught.value, ArgumentError)


def test_patience_has_no_default():
    with pytest.raises(TypeError, match="patience"):
        EarlyStopping("val/loss")


def test_names_are_class_and_first_argument():
    assert EarlyStopping("val/loss", patience=3).name == "EarlyStopping(val/loss)"
    assert EarlyStopping("val/loss", patience=3, name="mine").name == "mine"
    assert Stop(when=Elapsed(hours=1)).name == "Stop"
    assert repr(TimeLimit(hours=2)) == "TimeLimit(hours=2)"


def test_restore_best_brings_a_checkpoint_and_loads_the_best_at_the_end(caplog):
    caplog.set_level("INFO", logger="epochal")
    stop = EarlyStopping("val/loss", patience=2, restore_best=True)
    result = simulate([stop], losses(1.0, 0.5, 0.6, 0.7, 0.1))
    assert (result.epochs_run, result.restored) == (4, 1)
    assert "restored the model of epoch 1, the best by val/loss" in caplog.text
    assert [type(one) for one in stop.implies()] == [Checkpoint]


def test_restore_best_restores_also_when_the_training_ran_to_its_end():
    stop = EarlyStopping("score", patience=9, restore_best=True)
    assert simulate([stop], [{"score": x} for x in (1, 3, 2)]).restored == 1
    assert simulate([EarlyStopping("score", patience=9)], [{"score": x} for x in (1, 3, 2)]).restored is None


def test_without_any_number_nothing_is_restored_and_that_is_said(caplog):
    stop = EarlyStopping("val/loss", patience=2, restore_best=True)
    assert simulate([stop], losses(NAN, NAN)).restored is None
    assert "the last weights stay" in caplog.text


def test_a_condition_is_asked_once_at_every_safe_point_in_their_order():
    class Asked(Condition):
        def __init__(self):
            self.moments = []

        def holds(self, now):
            self.moments.append(now)
            return False

    asked = Asked()
    simulate([Stop(when=asked)], losses(1.0, 2.0), batches=2)
    assert [(now.ended, now.epoch) for now in asked.moments] == [
        (ended, epoch) for epoch in (0, 1) for ended in ("batch", "batch", "validation", "epoch")
    ]
    assert all(isinstance(now, Moment) for now in asked.moments)
    assert all(one.seconds <= other.seconds for one, other in pairwise(asked.moments))
