"""The suite of callbacks that act inside a model or an optimizer: the same promises as all, in a real training."""

import copy
import inspect
import pickle
from collections import OrderedDict

import cloudpickle
import pytest
import torch
from torch import nn

import epochal
from epochal import (
    EMA,
    ActivationMonitor,
    Checkpoint,
    FreezeLayers,
    GradientAccumulation,
    GradientMonitor,
    Layers,
    Loop,
    WeightAverage,
    WhereIsNaN,
)
from epochal.core.errors import CapabilityError
from epochal.testing import simulate
from epochal.testing.check_callback import check_looks, check_plain

EPOCHS, BATCHES = 4, 3

INSIDE = {
    Layers: [lambda: Layers("body.*", forward=lambda layer, y: y * 1.5, backward=lambda layer, g: g * 0.5, every=2)],
    GradientMonitor: [GradientMonitor, lambda: GradientMonitor("*.weight", every=2)],
    ActivationMonitor: [ActivationMonitor, lambda: ActivationMonitor(nn.Linear, every=2)],
    EMA: [lambda: EMA(0.9), lambda: EMA(0.5, warmup=True, use_buffers=True, swap=False, keep=False)],
    FreezeLayers: [lambda: FreezeLayers("body"), lambda: FreezeLayers(nn.BatchNorm1d, start=1, until=3)],
    GradientAccumulation: [lambda: GradientAccumulation(2), lambda: GradientAccumulation({1: 3, 2: 2})],
    WeightAverage: [lambda: WeightAverage(1, lr=0.02, anneal_epochs=2), lambda: WeightAverage(0.5, every=2)],
    WhereIsNaN: [WhereIsNaN, lambda: WhereIsNaN(then="stop", every=2)],
}
CASES = [
    pytest.param(make, id=f"{cls.__name__}-{index}")
    for cls, makes in INSIDE.items()
    for index, make in enumerate(makes)
]


class Crash(Exception):
    """Ends a training."""


def batch(epoch, number):
    draw = torch.Generator().manual_seed(100 * epoch + number)
    return torch.randn(6, 4, generator=draw), torch.randint(0, 2, (6,), generator=draw)


def train(callback, folder, *, crash_after=None, resume=False):
    """Train a small net with a callback, and return everything that the callback may have changed."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
    model = nn.Sequential(OrderedDict(body=body, head=nn.Linear(8, 2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss_of = nn.CrossEntropyLoss()
    saving = [Checkpoint()] if resume or crash_after is not None else []
    loop = Loop(model=model, optimizer=optimizer, callbacks=[callback, *saving], dir=folder, name="run", resume=resume)
    with loop as run:
        for epoch in run.epochs(EPOCHS):
            model.train()
            for number in run.batches(range(BATCHES)):
                x, y = batch(epoch, number)
                optimizer.zero_grad()
                loss = loss_of(model(x), y)
                run.log({"train/loss": loss})
                loss.backward()
                optimizer.step()
            model.eval()
            with run.validation(), torch.no_grad():
                x, y = batch(99, 0)
                run.log({"val/loss": loss_of(model(x), y)})
            if epoch == crash_after:
                run.save("before the crash")
                run.add_callback("on_train_epoch_start", crash)
    assert run.past[-1].failures == {}
    assert [hook for one in model.modules() for hook in (*one._forward_hooks, *one._forward_pre_hooks)] == []
    assert not optimizer._optimizer_step_pre_hooks
    assert "step" not in vars(optimizer)
    assert "zero_grad" not in vars(optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    return {"model": model.state_dict(), "rates": rates, "step": run.step, "why": run.stop_reason}


def crash(run):
    raise Crash


def assert_same(one, other):
    assert {key: one[key] for key in ("rates", "step", "why")} == {key: other[key] for key in ("rates", "step", "why")}
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


@pytest.mark.parametrize("cls", INSIDE, ids=lambda cls: cls.__name__)
def test_shows_an_example_and_is_behind_the_door(cls):
    assert ">>>" in inspect.getdoc(cls)
    assert getattr(epochal, cls.__name__) is cls


@pytest.mark.parametrize("make", CASES)
def test_looks_as_every_callback_does(make):
    check_looks(make)
    callback = make()
    assert repr(callback).startswith(type(callback).__name__)
    callback.name = "another"
    assert callback.name == "another"


@pytest.mark.parametrize("make", CASES)
def test_a_second_training_and_copies_do_as_the_first(make, tmp_path):
    callback = make()
    first = train(callback, tmp_path / "1")
    check_plain(callback.state_dict(), "the state after a training")
    for number, again in enumerate([callback, copy.deepcopy(callback), pickle.loads(cloudpickle.dumps(callback))]):
        assert_same(train(again, tmp_path / f"again{number}"), first)
    for number, fresh in enumerate([copy.deepcopy(make()), pickle.loads(cloudpickle.dumps(make()))]):
        assert_same(train(fresh, tmp_path / f"fresh{number}"), first)


@pytest.mark.parametrize("make", CASES)
def test_a_training_that_crashed_and_is_resumed_ends_as_if_nothing_had_happened(make, tmp_path):
    whole = train(make(), tmp_path / "whole")
    with pytest.raises(Crash):
        train(make(), tmp_path / "crashed", crash_after=1)
    assert_same(train(make(), tmp_path / "crashed", resume=True), whole)


@pytest.mark.parametrize("make", CASES)
def test_without_a_torch_model_it_says_so(make, caplog):
    callback = make()
    if callback.guarded:
        simulate([callback], [{}])
        assert "looks inside a torch.nn.Module; this trainer's model is" in caplog.text
    else:
        with pytest.raises(CapabilityError, match="this trainer's model is"):
            simulate([callback], [{}])
