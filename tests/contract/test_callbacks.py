"""One suite over every callback there is; a class without an example fails it."""

import importlib
import inspect
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal.callbacks
from epochal import (
    Best,
    Checkpoint,
    EarlyStopping,
    GradientClip,
    LearningRate,
    LearningRateFinder,
    LossSpike,
    MemorySnapshot,
    ModelSummary,
    NonFinite,
    Notifier,
    Plateau,
    PredictionPlots,
    Profile,
    Progress,
    ReduceLROnPlateau,
    SaveOnException,
    Spike,
    Stop,
    SystemStats,
    Target,
    TerminateOnNaN,
    Throughput,
    TimeLimit,
    Watchdog,
    WritePredictions,
)
from epochal.callbacks.schedules import Cosine, OneCycle, Step, Warmup, WarmupStableDecay
from epochal.conditions.prechelt import GeneralizationLoss
from epochal.conditions.schedule import Every
from epochal.core.callback import Callback
from epochal.testing.check_callback import check_callback, check_resume, check_second_training, example_epochs
from tests.contract.test_callbacks_in_a_loop import INSIDE


def exponential(optimizer):
    from torch.optim.lr_scheduler import ExponentialLR

    return ExponentialLR(optimizer, gamma=0.9)


EXAMPLES = {
    Stop: [
        lambda: Stop(when=Plateau("val/loss", patience=3)),
        lambda: Stop(when=NonFinite("train/loss") | (Target("fitness", 0.3) & Every(epochs=3))),
        lambda: Stop(when=~Target("val/accuracy", 0.2) & Every(batches=13)),
        lambda: Stop(when=Spike("val/loss", window=4, factor=1.0, min_rise=0.1)),
        lambda: Stop(when=GeneralizationLoss("val/loss", alpha=5.0).after(epochs=3)),
    ],
    EarlyStopping: [
        lambda: EarlyStopping("val/loss", patience=3),
        lambda: EarlyStopping("val/accuracy", patience=2, min_delta=0.1, relative=True, name="mine"),
        lambda: EarlyStopping("train/loss", patience=2, restore_best=True),
        lambda: EarlyStopping("val/loss", patience=2, baseline=0.5, restore_best=True, compat="keras"),
        lambda: EarlyStopping("val/loss", patience=3, check_finite=False, compat="lightning"),
        lambda: EarlyStopping("val/loss", patience=2, min_delta=0.01, compat="transformers"),
        lambda: EarlyStopping("fitness", patience=3, compat="ultralytics"),
    ],
    Checkpoint: [
        lambda: Checkpoint(when=Best("fitness")),
        lambda: Checkpoint(when=Best("val/loss") | Every(batches=7), keep_last=2, keep_best=1),
        lambda: Checkpoint(metric="val/loss", best_only=True, initial_best=0.9, compat="keras"),
        lambda: Checkpoint(metric="val/loss", keep_best=2, keep_last=1, compat="lightning"),
        lambda: Checkpoint(metric="val/loss", keep_last=1, compat="transformers"),
        lambda: Checkpoint(every_n_epochs=3, compat="ultralytics"),
    ],
    ReduceLROnPlateau: [
        lambda: ReduceLROnPlateau("val/loss", factor=0.5, patience=1, cooldown=2),
        lambda: ReduceLROnPlateau("fitness", factor=0.3, patience=2, min_lr=0.02),
        lambda: ReduceLROnPlateau("val/loss", factor=0.5, patience=1, cooldown=2, compat="keras"),
        lambda: ReduceLROnPlateau("val/loss", factor=0.5, patience=0, eps=0.01, compat="torch"),
    ],
    LearningRate: [
        lambda: LearningRate(Warmup(2, then=Cosine())),
        lambda: LearningRate(WarmupStableDecay(), every="step"),
        lambda: LearningRate(OneCycle(), every="step"),
        lambda: LearningRate(Step(3)),
        lambda: LearningRate(lambda epoch: 1 / (epoch + 1)),
        lambda: LearningRate(exponential),
    ],
    GradientClip: [lambda: GradientClip(1.0), lambda: GradientClip(value=0.5, error_if_nonfinite=True)],
    LearningRateFinder: [LearningRateFinder, lambda: LearningRateFinder(loss=print, data=[1], apply=True)],
    TerminateOnNaN: [TerminateOnNaN, lambda: TerminateOnNaN("val/loss")],
    TimeLimit: [lambda: TimeLimit(hours=1)],
    Progress: [Progress, lambda: Progress(callback_times=True, live=True)],
    LossSpike: [
        lambda: LossSpike(window=4, min_rise=0.1, factor=1.0),
        lambda: LossSpike("val/loss", window=4, then="skip"),
    ],
    MemorySnapshot: [MemorySnapshot, lambda: MemorySnapshot(largest=3, history=0)],
    ModelSummary: [ModelSummary, lambda: ModelSummary(input_size=(2, 3), depth=2)],
    Notifier: [
        lambda: Notifier(command=["true"]),
        lambda: Notifier("http://127.0.0.1:9/", on=["failure"], timeout=0.5),
    ],
    PredictionPlots: [PredictionPlots, lambda: PredictionPlots(Best("fitness"), worst=3, keep_last=2)],
    Profile: [lambda: Profile(wait=1000, record_shapes=True)],
    SaveOnException: [SaveOnException, lambda: SaveOnException(ValueError, keep_last=2)],
    SystemStats: [SystemStats, lambda: SystemStats(seconds=60)],
    Throughput: [Throughput, lambda: Throughput(samples=8, every=3)],
    Watchdog: [Watchdog, lambda: Watchdog(minutes=30, tell=print)],
    WritePredictions: [WritePredictions, lambda: WritePredictions(when=Best("val/loss"), keep_last=-1)],
}
CASES = [
    pytest.param(make, id=f"{cls.__name__}-{index}")
    for cls, makes in EXAMPLES.items()
    for index, make in enumerate(makes)
]
NOT_LEAVES = {"Averaging", "Inside", "OfValidation", "Policy", "Stopping"}


def callback_classes():
    """Every class of the folder that is a callback and no interface."""
    for module in pkgutil.iter_modules(epochal.callbacks.__path__, "epochal.callbacks."):
        for name, one in vars(importlib.import_module(module.name)).items():
            is_callback = inspect.isclass(one) and issubclass(one, Callback) and one.__module__ == module.name
            if is_callback and name not in NOT_LEAVES:
                yield one


def test_every_callback_stands_in_the_suite():
    assert set(callback_classes()) == {*EXAMPLES, *INSIDE}


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: one.__name__)
def test_every_callback_shows_an_example_and_is_behind_the_door(one):
    assert ">>>" in inspect.getdoc(one)
    assert getattr(epochal, one.__name__) is one


@pytest.mark.parametrize("make", CASES)
def test_keeps_what_every_callback_promises(make):
    check_callback(make)


@pytest.mark.parametrize("make", CASES)
def test_shows_what_it_is(make):
    callback = make()
    assert repr(callback).startswith(type(callback).__name__)
    given = vars(callback).get("_given_name")
    assert callback.name == given if given is not None else callback.name.startswith(type(callback).__name__)
    callback.name = "another"
    assert callback.name == "another"


values = st.one_of(st.floats(0, 1), st.sampled_from([0.5, float("nan"), float("inf")]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping("val/loss", patience=2),
        lambda: ReduceLROnPlateau("val/loss", factor=0.5, patience=1, cooldown=1, min_lr=0.01),
        lambda: Checkpoint(when=Best("val/loss"), keep_best=2),
    ],
    ids=["EarlyStopping", "ReduceLROnPlateau", "Checkpoint"],
)
@settings(max_examples=20, deadline=None)
@given(losses=st.lists(values, min_size=3, max_size=12), data=st.data())
def test_any_curve_can_be_interrupted_anywhere(make, losses, data):
    epochs = example_epochs(losses)
    check_second_training(make, epochs, 1)
    check_resume(make, epochs, 1, data.draw(st.integers(0, len(losses) - 2)))


class Forgetful(Callback):
    """Learns and does not say so."""

    def __init__(self, learns="seen"):
        self.seen = 0
        self.learns = learns

    def on_fit_epoch_end(self, run):
        self.seen += 1
        if self.seen > 3:
            run.stop("seen enough")


class LocalState(Forgetful):
    """Begins anew itself, so that only a restart shows what is missing."""

    def on_train_start(self, run):
        self.seen = 0


class Unwritable(Callback):
    """Has a state that no file can hold."""

    def state_dict(self):
        return {"when": {object()}}


def test_the_suite_finds_what_is_not_in_the_state():
    with pytest.raises(AssertionError, match="second training with the same object decides differently"):
        check_callback(Forgetful)
    with pytest.raises(AssertionError, match="saved after epoch 0 and restored, it goes on differently"):
        check_callback(LocalState)
    with pytest.raises(AssertionError, match="numbers, strings, lists, mappings and tensors only"):
        check_callback(Unwritable)
    shared = Forgetful()
    with pytest.raises(AssertionError, match="a new object at each call"):
        check_callback(lambda: shared)
