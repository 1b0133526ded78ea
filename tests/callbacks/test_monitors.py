"""GradientMonitor and ActivationMonitor: the right numbers, in few calls, without a read on the training thread."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from epochal import (
    ActivationMonitor,
    Callback,
    GradientMonitor,
    JSONLogger,
    Loop,
    Run,
    TensorBoardLogger,
    attach,
)
from epochal.callbacks.gradient_clip import GradientClip
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.hooks.norms import combined, norms


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2))


DATA = [torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def train(model, *callbacks, optimizer=None, epochs=1, accumulate=1, dtype=None, **options):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
    with Loop(model=model, optimizer=optimizer, callbacks=callbacks, **options) as run:
        for _ in run.epochs(epochs):
            for number, x in enumerate(run.batches(DATA)):
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                    loss = model(x).square().mean()
                loss.backward()
                if (number + 1) % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                run.log({"train/loss": loss})
    return run


class Naive(Callback):
    """Reads each gradient by itself, at the moment that is promised."""

    def __init__(self):
        self.norms = []

    def before_step(self, run, optimizer):
        named = run.model.named_parameters()
        self.norms.append({name: p.grad.double().norm().item() for name, p in named if p.grad is not None})


class Collect(Callback):
    """Takes the records of layers as a logger does."""

    def __init__(self):
        self.records = []

    def on_train_start(self, run):
        run.engine.add_sink(lambda record: self.records.append(record) if record.kind == "layers" else None)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradient_norms_are_those_of_each_gradient_read_by_itself(accumulate):
    naive, monitor, collect = Naive(), GradientMonitor(), Collect()
    run = train(net(), collect, naive, monitor, accumulate=accumulate)
    assert len(collect.records) == len(naive.norms) == 4 // accumulate
    for number, (record, expected) in enumerate(zip(collect.records, naive.norms, strict=True)):
        assert record.at.step == number + 1
        assert {name.removeprefix("gradient/"): v for name, v in record.values.items()} == pytest.approx(expected)
    assert monitor.latest == pytest.approx(naive.norms[-1])
    totals = [sum(v * v for v in one.values()) ** 0.5 for one in naive.norms]
    assert run.history[0]["train/grad_norm"] == pytest.approx(sum(totals) / len(totals))


def test_the_order_in_the_list_says_whether_gradients_are_seen_before_or_after_clipping():
    before, after = GradientMonitor(name="before"), GradientMonitor(name="after")
    train(net(), before, GradientClip(max_norm=1e-3), after)
    assert sum(v * v for v in after.latest.values()) ** 0.5 == pytest.approx(1e-3, rel=1e-3)
    assert sum(v * v for v in before.latest.values()) ** 0.5 > 2e-3


def test_every_and_a_pattern_choose_what_is_measured():
    collect = Collect()
    train(net(), collect, GradientMonitor("*.weight", every=3), epochs=2)
    assert [record.at.step for record in collect.records] == [3, 6]
    assert list(collect.records[0].values) == ["gradient/0.weight", "gradient/1.weight", "gradient/4.weight"]


def test_two_optimizers_are_measured_each_at_its_own_step():
    model = nn.ModuleDict({"g": nn.Linear(2, 1, bias=False), "d": nn.Linear(2, 1, bias=False)})
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.0) for one in model.values()]
    collect = Collect()
    with Loop(model=model, optimizer=optimizers, callbacks=[collect, GradientMonitor()]) as run:
        for _ in run.epochs(1):
            for x in run.batches([torch.tensor([[3.0, 4.0]])]):
                for one, optimizer in zip(model.values(), optimizers, strict=True):
                    one(x).sum().backward()
                    optimizer.step()
    assert [dict(one.values) for one in collect.records] == [{"gradient/g.weight": 5.0}, {"gradient/d.weight": 5.0}]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_activation_norms_are_those_of_each_output_read_by_itself(dtype):
    model, expected = net(), []
    twin = copy.deepcopy(model)
    for name, module in twin.named_children():
        module.register_forward_hook(
            lambda _m, _a, y, name=name: expected.append((name, y.detach().double().norm().item()))
        )
    train(twin, dtype=dtype)
    collect = Collect()
    train(model, collect, ActivationMonitor(), dtype=dtype)
    found = [pair for record in collect.records for pair in record.values.items()]
    assert [name for name, _ in found] == [f"activation/{name}" for name, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-2 if dtype else 1e-5)
    assert [record.at.step for record in collect.records] == [1, 2, 3, 4]


def test_a_layer_called_twice_has_the_norm_of_both_outputs():
    relu = nn.ReLU()
    model, monitor = nn.Sequential(relu, nn.Flatten(), relu), ActivationMonitor(nn.ReLU)
    with Loop(model=model, callbacks=[monitor]) as run:
        for _ in run.epochs(1):
            for x in run.batches([torch.tensor([[3.0, 4.0]])]):
                model(x)
    assert monitor.latest == {"0": pytest.approx(50**0.5)}


def test_no_bit_of_the_training_changes():
    nets = [net(), net()]
    train(nets[0], epochs=2)
    train(nets[1], GradientMonitor(), ActivationMonitor(), epochs=2)
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True)
    )


class Count(TorchDispatchMode):
    """Counts what is dispatched on this thread: all calls, and reads of a scalar."""

    def __init__(self):
        super().__init__()
        self.calls = self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_no_scalar_is_read_on_the_training_thread_and_calls_are_few():
    counts = []
    for callbacks in ([], [GradientMonitor(), ActivationMonitor()]):
        with Count() as count:
            train(net(), *callbacks)
        counts.append(count)
    bare, watched = counts
    # per batch: two calls for each of 5 outputs, one for all gradients, two stacks and a root
    assert (watched.calls - bare.calls) / len(DATA) == 10 + 1 + 2 + 1
    assert watched.reads - bare.reads == 0


def test_loggers_get_the_numbers_of_layers_with_the_step_they_are_from(tmp_path):
    import json

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    naive = Naive()
    train(net(), naive, GradientMonitor(), JSONLogger(tmp_path / "m.jsonl"), TensorBoardLogger(tmp_path / "tb"))
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    points = {point.step: point.value for point in events.Scalars("gradient/4.bias")}
    expected = [one["4.bias"] for one in naive.norms]
    assert points == {step + 1: pytest.approx(value) for step, value in enumerate(expected)}
    assert [point.step for point in events.Scalars("train/loss")] == [1, 2, 3, 4]  # late numbers void nothing
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["gradient/4.bias"] for line in lines if line["kind"] == "layers"] == pytest.approx(expected)


def test_no_thread_stays_after_a_crash_and_the_last_numbers_are_there():
    monitor = GradientMonitor()

    def fail(run):
        if run.step == 3:
            raise ZeroDivisionError

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loop = Loop(model=model, optimizer=optimizer, callbacks=[monitor, ActivationMonitor()])
    loop.run.add_callback("on_train_batch_end", fail)

    def body():
        with loop as run:
            for _ in run.epochs(1):
                for x in run.batches(DATA):
                    model(x).mean().backward()
                    optimizer.step()

    with pytest.raises(ZeroDivisionError):
        body()
    assert monitor.latest.keys() == {name for name, _ in model.named_parameters()}
    assert [one.name for one in threading.enumerate() if one.name.startswith("epochal ")] == []
    assert not [hook for module in model.modules() for hook in module._forward_hooks]


def test_wrong_patterns_and_missing_gradients_are_refused_at_once(caplog):
    with pytest.raises(ArgumentError, match="which must be a pattern of parameter names, not 3"):
        GradientMonitor(3)
    run = train(net(), GradientMonitor("conv.*"))
    assert run.past[-1].failures
    assert "no parameter matches 'conv.*'; nearest: " in caplog.text
    caplog.clear()
    compiled = torch.compile(net(), backend="eager")
    train(compiled, ActivationMonitor(), GradientMonitor())
    assert "ActivationMonitor: layer '0' and 4 more inside a module that torch.compile has taken over" in caplog.text
    assert "GradientMonitor failed" not in caplog.text
    run = Run(host="x", provides=frozenset())
    with pytest.raises(CapabilityError, match="gradients"):
        run.add(GradientMonitor())


def test_sparse_half_and_double_gradients_have_norms():
    sparse = torch.sparse_coo_tensor([[0, 0]], [3.0, 4.0], (2,))
    assert norms([sparse, torch.tensor([3.0, 4.0], dtype=torch.float16)]).tolist() == [7.0, 5.0]
    assert norms([torch.full((4,), 300.0, dtype=torch.float16)]).tolist() == [600.0]
    assert norms([torch.full((4,), 3e4, dtype=torch.float16)]).tolist() == [6e4]
    assert norms([torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([1.0])]).dtype == torch.float64
    assert combined(["a", "a", "a"], [2.0, 3.0, 6.0]) == {"a": 7.0}


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_yolo_is_monitored_and_its_weights_stay_the_same(yolo, quick, task):
    ends, gradients, activations, naive = [], GradientMonitor(), ActivationMonitor(), Naive()
    for callbacks in ((), (gradients, activations)):
        model = yolo(task, whole=True)
        model.add_callback("on_train_end", lambda trainer: ends.append(copy.deepcopy(trainer.model.state_dict())))
        if callbacks:
            run = attach(model, *callbacks, naive)
        model.train(**quick(epochs=1))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    expected = {name: norm for name, norm in naive.norms[-1].items() if name in gradients.latest}
    assert gradients.latest == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert len(gradients.latest) > 150
    assert "model.0.conv" in activations.latest
    assert run.past[-1].failures == {}
