"""Layers: functions inside the model see and replace activations and gradients, and are gone with the training."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from epochal import Layers, Loop, attach
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.hooks.model_hooks import tensors_in

ROWS = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for table in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in table.values()
    ]


def linear(bias=False):
    net = nn.Linear(2, 1, bias=bias)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, -0.25]]))
    return net


def train(net, *callbacks, rows=ROWS, lr=0.1, epochs=1, step=True, tmp="runs"):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=tmp) as run:
        for _ in run.epochs(epochs):
            for row in run.batches(rows):
                optimizer.zero_grad()
                net(row[None]).sum().backward()
                if step:
                    optimizer.step()
    return run


class Outer(nn.Module):
    """Holds the layer, as hooks are set on what is inside a model."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_a_replaced_gradient_changes_the_weights_as_the_closed_form_says():
    net = Outer(linear())
    train(net, Layers("inner", backward=lambda layer, gradient: 3 * gradient))
    # y = w x, loss = y: dloss/dw = x for each row; tripled
    expected = torch.tensor([[0.5, -0.25]]) - 0.1 * 3 * ROWS.sum(0)
    assert torch.allclose(net.inner.weight, expected, atol=1e-7)


def test_a_replaced_activation_changes_the_weights_as_the_closed_form_says():
    net = Outer(linear())
    train(net, Layers("inner", forward=lambda layer, output: output**2), rows=ROWS[:1])
    # loss = (w x)^2: dloss/dw = 2 (w x) x, with w x = 0.5 * 1 - 0.25 * 2 = 0
    assert torch.equal(net.inner.weight, torch.tensor([[0.5, -0.25]]))
    net = Outer(linear())
    train(net, Layers("inner", forward=lambda layer, output: output**2), rows=ROWS[1:2])
    w, x = torch.tensor([[0.5, -0.25]]), ROWS[1]
    assert torch.allclose(net.inner.weight, w - 0.1 * 2 * (w @ x) * x)


def test_both_together_the_gradient_is_the_one_by_the_replaced_output():
    seen = []
    net = Outer(linear())
    train(
        net,
        Layers(
            "inner",
            forward=lambda layer, output: 2 * output,
            backward=lambda layer, gradient: seen.append(gradient) or gradient * 5,
        ),
        rows=ROWS[:1],
    )
    assert [one.item() for one in seen] == [1.0]
    assert torch.allclose(net.inner.weight, torch.tensor([[0.5, -0.25]]) - 0.1 * 5 * 2 * ROWS[0])


def test_looking_changes_no_bit():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(2, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    seen = []
    train(nets[0], epochs=3)
    train(nets[1], Layers("*", forward=lambda layer, y: seen.append(y.sum()), backward=lambda layer, g: None), epochs=3)
    assert len(seen) == 27
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_the_gradient_of_a_layer_whose_output_the_next_overwrites_is_its_own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    twin = copy.deepcopy(net)
    twin[1].inplace = False
    seen = {}
    train(net, Layers("0", backward=lambda layer, g: seen.update({layer.name: g})), rows=ROWS[:1], step=False)
    y = twin[0](ROWS[:1])
    y.retain_grad()
    twin[2](twin[1](y)).sum().backward()
    assert torch.equal(seen["0"], y.grad)


def test_every_counts_optimizer_steps_and_validation_is_not_looked_at():
    seen = []
    net = Outer(linear())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(
        model=net,
        optimizer=optimizer,
        callbacks=[Layers("inner", forward=lambda layer, y: seen.append(layer.run.step), every=3)],
    ) as run:
        for _ in run.epochs(2):
            for row in run.batches(ROWS[[0, 1, 2, 0]]):
                net(row[None]).sum().backward()
                optimizer.step()
            with run.validation():
                net(ROWS)
    assert seen == [2, 5]


@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_no_hook_is_left_after_the_training_however_it_ends(error):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def look(layer, value):
        if error is not None and layer.run.step == 2:
            raise error

    layers = Layers("*", forward=look, backward=lambda layer, g: None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def body():
        with Loop(model=net, optimizer=optimizer, callbacks=[layers]) as run:
            for _ in run.epochs(2):
                for _ in run.batches(range(2)):
                    assert len(hooks_of(net)) == 3
                    net(ROWS).sum().backward()
                    optimizer.step()

    if error is None:
        body()
    else:
        with pytest.raises(error) as caught:
            body()
        assert "raised by Layers(*) in the forward of layer '0'" in caught.value.__notes__
    assert hooks_of(net) == []
    assert layers.hooks is None


def test_a_pattern_that_matches_nothing_names_the_nearest_layers():
    net = nn.Sequential()
    net.add_module("backbone", nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    net.add_module("head", nn.Linear(4, 1))
    with pytest.raises(ArgumentError) as caught:
        train(net, Layers("backbone.conv*", forward=print))
    message = str(caught.value)
    assert message.startswith("Layers(backbone.conv*): no layer matches 'backbone.conv*'; nearest: backbone")
    assert message.endswith("The model has 4 layers, head last.")
    with pytest.raises(ArgumentError, match="no layer is a LSTM; the model has"):
        train(net, Layers(nn.LSTM, forward=print))
    assert hooks_of(net) == []


def test_classes_and_several_patterns_choose_layers_in_the_models_order():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.Tanh())
    seen = []
    train(net, Layers(["3", nn.Linear], forward=lambda layer, y: seen.append(layer.name)), rows=ROWS[:1])
    assert seen == ["0", "2", "3"]


@pytest.mark.parametrize("how", ["torch.compile", "compile()"])
def test_a_compiled_model_is_refused_with_the_cure(how):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    if how == "compile()":
        net.compile(backend="eager")
        model = net
    else:
        model = torch.compile(net, backend="eager")
    with pytest.raises(CapabilityError, match=r"hooks set now would never fire\. Train without torch.compile"):
        train(model, Layers("0", forward=print))
    assert hooks_of(net) == []


def test_layers_that_are_never_called_are_told_of(caplog):
    net = nn.Sequential(nn.Linear(2, 1))
    compiled = torch.compile(net, backend="eager")
    compiled(ROWS[:1])  # traced without hooks
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=[Layers("0", forward=lambda layer, y: None)]) as run:
        for _ in run.epochs(1):
            for row in run.batches(ROWS):
                compiled(row[None])
    told = [one.getMessage() for one in caplog.records if "was called in the first batch" in one.getMessage()]
    assert len(told) == 1
    assert "Layers(0): none of its 1 layers" in told[0]


def test_copies_and_pickles_of_a_watched_model_carry_no_hook_of_ours():
    net = nn.Sequential(nn.Linear(2, 1))
    seen, copies = [], []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=[Layers("0", forward=lambda layer, y: seen.append(1))]) as run:
        for _ in run.epochs(1):
            for row in run.batches(ROWS[:1]):
                copies += [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
                for one in copies:
                    assert torch.equal(one(row[None]), net(row[None]))
    assert len(seen) == 2
    assert b"epochal" not in pickle.dumps(copies[1])


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_trainings_leak_nothing(count):
    net = nn.Sequential(nn.Linear(2, 1))
    layers = Layers("0", forward=lambda layer, y: None, backward=lambda layer, g: None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runs = []

    def cycle():
        with Loop(model=net, optimizer=optimizer, callbacks=[layers]) as run:
            for _ in run.epochs(1):
                for row in run.batches(ROWS[:1]):
                    net(row[None]).sum().backward()
        runs.append(weakref.ref(run))

    for _ in range(20):
        cycle()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(count):
        cycle()
    gc.collect()
    assert hooks_of(net) == []
    assert [one for one in runs if one() is not None] == []
    assert len(gc.get_objects()) - before < count + 200  # the list of weak references, and what the machine keeps


def test_wrong_arguments_are_refused():
    for bad, expected in [
        (lambda: Layers("*"), "give a function"),
        (lambda: Layers("*", forward=3), "forward must be a function of a layer and a tensor, not 3"),
        (lambda: Layers("*", forward=print, every=0), "every must be an int >= 1"),
    ]:
        with pytest.raises(ArgumentError, match=expected):
            bad()


def test_floats_of_any_structure_are_found():
    tree = {"a": (torch.zeros(1), [torch.ones(2)]), "b": torch.arange(3), "c": None}
    assert [tuple(one.shape) for one in tensors_in(tree)] == [(1,), (2,)]


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_yolo_layers_are_seen_in_training_batches_and_the_weights_stay_the_same(yolo, quick, task):
    ends, seen, gradients = [], [], []
    for watched in (False, True):
        model = yolo(task)
        model.add_callback("on_train_end", lambda trainer: ends.append(copy.deepcopy(trainer.model.state_dict())))
        if watched:
            attach(
                model,
                Layers(
                    "model.*.conv",
                    forward=lambda layer, y: seen.append((layer.name, layer.run.epoch)),
                    backward=lambda layer, g: gradients.append(layer.name),
                ),
            )
        model.train(**quick())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert {epoch for _, epoch in seen} == {0, 1}
    assert ("model.0.conv", 0) in seen
    assert len(gradients) == len(seen)
    assert hooks_of(model.model) == []
    last = torch.load(model.trainer.last, weights_only=False)
    assert hooks_of(last["ema"] if last["ema"] is not None else last["model"]) == []
