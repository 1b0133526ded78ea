"""WhereIsNaN names the right layer and the right direction, for faults that are planted one by one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from epochal import Loop, WhereIsNaN, attach
from epochal.core.errors import ArgumentError
from epochal.hooks.finite_trace import Value, backward_fault, forward_fault


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.act(self.bn1(self.conv1(x))) + self.conv2(x)


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), Residual(4), nn.MaxPool2d(2), Residual(4), nn.Flatten(), nn.Linear(4 * 9, 2)
    )


def transformer():
    return nn.Sequential(
        nn.Embedding(10, 8),
        *(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)),
        nn.Linear(8, 2),
    )


class Both(nn.Module):
    """Two ways that share what they are given, and code of its own between layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.left(x) * torch.sigmoid(self.right(x)))


def rows(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


MODELS = {
    "mlp": (mlp, lambda seed: rows((6, 4), seed)),
    "resnet": (resnet, lambda seed: rows((4, 3, 8, 8), seed)),
    "transformer": (
        transformer,
        lambda seed: torch.randint(0, 10, (3, 5), generator=torch.Generator().manual_seed(seed)),
    ),
    "both": (Both, lambda seed: rows((6, 4), seed)),
}


class SpoiltBackward(torch.autograd.Function):
    """Passes values on, and spoils their gradient."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def spoil_output(module, factor=math.nan):
    original = module.forward

    def forward(*args, **kwargs):
        output = original(*args, **kwargs)
        return (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor

    module.forward = forward


def spoil_gradient(module, factor=math.nan):
    original = module.forward
    module.forward = lambda *args, **kwargs: SpoiltBackward.apply(original(*args, **kwargs), factor)


def spoil_weight(module):
    with torch.no_grad():
        module.weight.view(-1)[0] = math.nan


FORWARD = [
    ("mlp", "0"), ("mlp", "1"), ("mlp", "3"), ("mlp", "4"), ("resnet", "0"), ("resnet", "1.conv1"), ("resnet", "1.bn1"),
    ("resnet", "1.act"), ("resnet", "3.conv2"), ("resnet", "2"), ("transformer", "0"), ("transformer", "1.self_attn"),
    ("transformer", "2.linear2"), ("transformer", "2.norm1"), ("both", "right"), ("both", "head"),
]  # fmt: skip
BACKWARD = [
    ("mlp", "4"), ("mlp", "3"), ("mlp", "1"), ("mlp", "0"), ("resnet", "5"), ("resnet", "3.conv1"), ("resnet", "1.bn1"),
    ("resnet", "1.act"), ("resnet", "0"), ("transformer", "3"), ("transformer", "2.linear1"), ("transformer", "1.norm2"),
    ("transformer", "0"), ("both", "head"),
]  # fmt: skip


def train(name, spoil, *, watch=None, batch=2, change=lambda x: x, dtype=None, lr=1e-3, batches=4):
    """Train for some batches, spoil something from one batch on, and return what was found."""
    torch.manual_seed(0)
    make, data = MODELS[name]
    model, watch = make(), watch or WhereIsNaN()
    model = model.to(dtype) if dtype else model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with Loop(model=model, optimizer=optimizer, callbacks=[watch]) as run:
        for _ in run.epochs(1):
            for number in run.batches(range(batches)):
                x = data(number)
                x = x.to(dtype) if dtype and x.is_floating_point() else x
                if number == batch:
                    spoil(model)
                    x = change(x)
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
    assert not [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    return watch.found, run


@pytest.mark.parametrize(("name", "layer"), FORWARD)
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_names_the_layer_whose_output_was_spoilt(name, layer, factor):
    found, run = train(name, lambda model: spoil_output(model.get_submodule(layer), factor))
    assert (found.layer, found.direction, found.batch) == (layer, "forward", 2)
    assert [note for note in run.past[-1].notes if found.text in note]


@pytest.mark.parametrize(("name", "layer"), BACKWARD)
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_names_the_layer_whose_backward_was_spoilt(name, layer, factor):
    found, _ = train(name, lambda model: spoil_gradient(model.get_submodule(layer), factor))
    assert (found.layer, found.direction, found.batch) == (layer, "backward", 2)


def test_two_layers_that_share_what_they_are_given_are_both_named():
    found, _ = train("both", lambda model: spoil_gradient(model.right))
    assert found.direction == "backward"
    assert "the backward of layer left or layer right returned holds NaN" in found.text


@pytest.mark.parametrize(("name", "layer"), [("mlp", "2"), ("resnet", "3.conv1"), ("transformer", "1.linear1")])
def test_a_weight_that_is_not_finite_is_told(name, layer):
    found, _ = train(name, lambda model: spoil_weight(model.get_submodule(layer)))
    assert (found.layer, found.direction) == (layer, "forward")
    assert found.text.endswith(f"its parameter {layer}.weight is not finite")


@pytest.mark.parametrize("name", ["mlp", "resnet", "both"])
def test_nan_in_the_data_is_the_datas(name):
    def change(x):
        x.view(-1)[5] = math.nan
        return x

    found, _ = train(name, lambda model: None, change=change)
    assert (found.layer, found.direction, found.batch) == ("", "data", 2)
    assert found.text == "what the model was given holds NaN, in batch 2 of epoch 0 (both from 0)"


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_an_overflow_of_fp16_in_the_forward(layer):
    def enlarge(model):
        with torch.no_grad():
            model.get_submodule(layer).weight.mul_(0).add_(6e4)
            model.get_submodule(layer).bias.fill_(6e4)

    found, _ = train("mlp", enlarge, dtype=torch.float16, change=lambda x: x.abs())
    assert (found.layer, found.direction) == (layer, "forward")
    assert "is infinite" in found.text


@pytest.mark.parametrize("layer", ["2", "4"])
def test_an_overflow_of_fp16_in_the_backward(layer):
    found, _ = train("mlp", lambda model: spoil_gradient(model.get_submodule(layer), 6e4 * 6e4), dtype=torch.float16)
    assert (found.layer, found.direction) == (layer, "backward")


def test_code_of_a_models_own_is_told_from_its_layers():
    class Own(nn.Module):
        def __init__(self, log):
            super().__init__()
            self.first, self.last, self.log = nn.Linear(2, 2), nn.Linear(2, 2), log

        def forward(self, x):
            y = self.first(x)
            if self.log == "between":
                y = torch.log(-y.abs())
            y = self.last(y)
            return torch.log(-y.abs()) if self.log == "behind" else y

    for log, expected in [
        ("between", "in the own code of the whole model, what it gave layer last holds NaN"),
        (
            "behind",
            "the output of the whole model holds NaN, in its own code: the layers inside it returned finite values",
        ),
    ]:
        model, watch = Own(log), WhereIsNaN()
        with Loop(model=model, callbacks=[watch]) as run:
            for _ in run.epochs(1):
                for x in run.batches([torch.ones(1, 2)]):
                    model(x)
        assert (watch.found.layer, watch.found.direction) == ("", "forward")
        assert watch.found.text.startswith(expected)


def test_a_loss_whose_gradient_is_not_finite_is_behind_the_last_layer():
    torch.manual_seed(0)
    model, watch = mlp(), WhereIsNaN()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Loop(model=model, optimizer=optimizer, callbacks=[watch]) as run:
        for _ in run.epochs(1):
            for x in run.batches([torch.ones(1, 4)]):
                y = model(x)
                (y - y.detach()).abs().sum().sqrt().backward()  # the root's slope at 0 is infinite, times 0
                optimizer.step()
    assert (watch.found.layer, watch.found.direction) == ("4", "backward")
    assert "came back to the output of layer 4, from behind it or from the loss, holds NaN" in watch.found.text


def test_stop_ends_the_training_with_the_finding_as_its_reason():
    found, run = train("mlp", lambda model: spoil_output(model[2]), watch=WhereIsNaN(then="stop"), batches=200)
    assert run.end_reason == "stopped"
    assert run.step < 200
    assert run.stop_reason == f"WhereIsNaN: {found.text}"


def test_a_gradient_that_the_scaler_throws_away_is_no_fault_unless_it_never_stops():
    def run_with(bad):
        torch.manual_seed(0)
        model, watch = mlp(), WhereIsNaN()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        with Loop(model=model, optimizer=optimizer, scaler=scaler, callbacks=[watch]) as run:
            for _ in run.epochs(1):
                for number in run.batches(range(40)):
                    optimizer.zero_grad()
                    loss = model(rows((6, 4), number)).square().mean()
                    if bad(number):
                        loss = SpoiltBackward.apply(loss, math.inf)
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
        return watch.found, run.step

    assert run_with(lambda number: number % 3 == 0) == (None, 26)
    found, steps = run_with(lambda number: number >= 5)
    assert (found.batch, steps) == (5, 5)


def test_a_fault_in_one_batch_of_an_accumulation_is_told_with_its_step():
    torch.manual_seed(0)
    model, watch = mlp(), WhereIsNaN()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    original = model[2].forward
    with Loop(model=model, optimizer=optimizer, callbacks=[watch]) as run:
        for _ in run.epochs(1):
            for number in run.batches(range(4)):
                model[2].forward = (lambda x: SpoiltBackward.apply(original(x), math.nan)) if number == 0 else original
                model(rows((6, 4), number)).square().mean().backward()
                if number % 2:
                    optimizer.step()
                    optimizer.zero_grad()
    assert (watch.found.layer, watch.found.direction, watch.found.batch) == ("2", "backward", 0)


def test_a_sound_training_finds_nothing_and_changes_no_bit():
    torch.manual_seed(0)
    ends = []
    for callbacks in ([], [WhereIsNaN()]):
        torch.manual_seed(0)
        model = resnet()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        with Loop(model=model, optimizer=optimizer, callbacks=callbacks) as run:
            for _ in run.epochs(2):
                for number in run.batches(range(3)):
                    optimizer.zero_grad()
                    model(rows((4, 3, 8, 8), number)).square().mean().backward()
                    optimizer.step()
        ends.append(model.state_dict())
        assert not callbacks or callbacks[0].found is None
        assert run.past[-1].failures == {}
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_same_object_serves_a_second_training():
    watch = WhereIsNaN()
    assert train("mlp", lambda model: spoil_output(model[0]), watch=watch)[0].layer == "0"
    assert train("mlp", lambda model: None, watch=watch)[0] is None


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match='then must be "warn" or "stop", not \'raise\''):
        WhereIsNaN(then="raise")


numbers = st.sampled_from([0.0, 1.0, 65504.0, math.nan, math.inf])


@given(st.lists(numbers, min_size=1, max_size=12))
def test_the_first_in_a_chain_is_the_one_a_search_finds(largest):
    names = [str(index) for index in range(len(largest))]
    values = [Value(name, [following]) for name, following in zip(names, [*names[1:], "end"], strict=True)]
    bad = [index for index, number in enumerate(largest) if not math.isfinite(number)]
    found = forward_fault(values, largest, frozenset([*names, "end"]))
    assert (found.layer if found else None) == (names[bad[0]] if bad else None)
    order = list(reversed(range(len(largest))))
    found = backward_fault(values, order, [largest[index] for index in order], frozenset([*names, "end"]))
    assert (found.layer if found else None) == ([*names, "end"][bad[-1] + 1] if bad else None)


@pytest.mark.parametrize(
    ("task", "layer", "spoil", "direction"),
    [
        ("", "model.1.conv", spoil_output, "forward"),
        ("", "model.2.cv2.conv", spoil_gradient, "backward"),
        ("-seg", "model.2.cv1.bn", spoil_output, "forward"),
    ],
)
def test_yolo(yolo, quick, task, layer, spoil, direction):
    model, watch = yolo(task), WhereIsNaN(then="stop")
    run = attach(model, watch)
    run.add_callback("on_train_start", lambda run: spoil(run.model.get_submodule(layer)))
    model.train(**quick(epochs=1, val=False, save=False))
    assert (watch.found.layer, watch.found.direction, watch.found.batch) == (layer, direction, 0)


def test_yolo_nan_in_the_data(yolo, quick):
    model, watch = yolo(), WhereIsNaN()
    run = attach(model, watch)

    def plant(run):
        original = run.trainer.preprocess_batch

        def preprocess_batch(batch):
            batch = original(batch)
            batch["img"][0, 0, 0, 0] = math.nan
            return batch

        run.trainer.preprocess_batch = preprocess_batch

    run.add_callback("on_train_start", plant)
    model.train(**quick(epochs=1, val=False, save=False))
    assert (watch.found.layer, watch.found.direction) == ("", "data")
