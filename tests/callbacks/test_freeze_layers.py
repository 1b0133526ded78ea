"""Frozen layers stay bit for bit as they are, BatchNorm included; afterwards everything is as it was."""

import copy
import pickle

import pytest

from epochal import Callback, FreezeLayers, Loop, attach
from epochal.core.errors import ArgumentError

torch = pytest.importorskip("torch")


def parts(seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential()
    net.add_module("backbone", torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU()))
    net.add_module("neck", torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.2)))
    net.add_module("head", torch.nn.Linear(6, 1))
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def data(epoch, batches=3):
    generator = torch.Generator().manual_seed(epoch)
    return [(torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)) for _ in range(batches)]


class Seen(Callback):
    """Copies the weights and statistics at the start and the end of every epoch."""

    def __init__(self):
        self.states, self.flags = [], []

    def on_train_epoch_start(self, run):
        self.states.append({name: one.clone() for name, one in run.model.state_dict().items()})

    def on_train_batch_end(self, run):
        self.flags.append({name: one.requires_grad for name, one in run.model.named_parameters()})

    on_train_end = on_train_epoch_start

    def moved(self, epoch):
        """Return the first parts of the names of what changed in an epoch."""
        before, after = self.states[epoch : epoch + 2]
        return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def train(net, optimizer, *callbacks, epochs=5, zero=None, fail_in=None):
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks) as run:
        for epoch in run.epochs(epochs):
            net.train()
            for x, y in run.batches(data(epoch)):
                (zero or optimizer.zero_grad)()
                torch.nn.functional.mse_loss(net(x), y).backward()
                optimizer.step()
                if epoch == fail_in:
                    raise ZeroDivisionError
            net.eval()
            with run.validation(), torch.no_grad():
                run.log({"val/loss": net(data(99)[0][0]).mean()})
    return run


ALL = {"backbone", "neck", "head"}


@pytest.mark.parametrize("to_none", [True, False])
def test_frozen_weights_and_statistics_stay_bit_for_bit_and_train_again_afterwards(to_none):
    (net, optimizer), seen = parts(), Seen()
    net.train()
    freeze = FreezeLayers("backbone*", start=1, until=3)
    train(net, optimizer, freeze, seen, zero=lambda: optimizer.zero_grad(set_to_none=to_none))
    assert [seen.moved(epoch) for epoch in range(5)] == [ALL, {"neck", "head"}, {"neck", "head"}, ALL, ALL]
    for epoch in (0, 3):
        before, after = seen.states[epoch : epoch + 2]
        assert not torch.equal(before["backbone.1.running_mean"], after["backbone.1.running_mean"])


def test_equals_a_loop_that_freezes_by_hand():
    (net, optimizer), (twin, twins) = parts(), parts()
    torch.manual_seed(1)
    train(net, optimizer, FreezeLayers(["backbone", "neck.1"], until=2))
    torch.manual_seed(1)
    for epoch in range(5):
        twin.train()
        for module in (twin.backbone, twin.neck[1]):
            module.requires_grad_(epoch >= 2)
        if epoch < 2:
            twin.backbone[1].eval()
            twin.neck[1].eval()
        for x, y in data(epoch):
            twins.zero_grad()
            torch.nn.functional.mse_loss(twin(x), y).backward()
            twins.step()
        twin.eval()
    for name, one in net.state_dict().items():
        assert torch.equal(one, twin.state_dict()[name]), name


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("schedule", "frozen"),
    [
        ([("backbone", 0, 2), ("neck", 0, 3)], [{"backbone", "neck"}, {"backbone", "neck"}, {"neck"}, set(), set()]),
        ([("backbone", 0, 1), ("backbone", 3, None)], [{"backbone"}, set(), set(), {"backbone"}, {"backbone"}]),
        ([("backbone*", 0, 2), ("*o*", 1, 4)], [{"backbone"}, {"backbone"}, {"backbone"}, {"backbone"}, set()]),
    ],
)
@pytest.mark.parametrize("says_train", [True, False])
def test_several_make_a_schedule_in_any_order(schedule, frozen, order, says_train):
    (net, optimizer), seen = parts(), Seen()
    for one in (net, *net.modules()):
        one.train()
    if not says_train:  # a loop that never says train() or eval()
        net.train = net.eval = lambda *_: net
    callbacks = [FreezeLayers(which, start=start, until=until) for which, start, until in schedule]
    train(net, optimizer, *callbacks[::order], seen)
    assert [ALL - seen.moved(epoch) for epoch in range(5)] == frozen
    if not says_train:
        assert all(one.training for one in net.modules())


def leftovers(net):
    flags = {name: one.requires_grad for name, one in net.named_parameters()}
    return flags, [vars(one).keys() & {"train"} for one in net.modules() if "train" in vars(one)]


@pytest.mark.parametrize("fail_in", [None, 1])
def test_everything_is_as_it_was_also_after_an_error_and_what_the_user_froze_stays_frozen(fail_in):
    net, optimizer = parts()
    net.head.bias.requires_grad_(False)
    before = leftovers(net)
    if fail_in is None:
        train(net, optimizer, FreezeLayers(["backbone", "head"]))
    else:
        with pytest.raises(ZeroDivisionError):
            train(net, optimizer, FreezeLayers(["backbone", "head"]), fail_in=fail_in)
    assert leftovers(net) == before
    net.train()
    assert all(one.training for one in net.modules())


def test_a_copy_made_meanwhile_is_an_ordinary_model():
    copies = []

    class Copy(Callback):
        def on_train_batch_end(self, run):
            copies.extend([copy.deepcopy(run.model), pickle.loads(pickle.dumps(run.model))])

    train(*parts(), FreezeLayers("backbone"), Copy(), epochs=1)
    for copied in copies:
        assert not copied.backbone[1].training
        copied.train()
        assert copied.backbone[1].training


@pytest.mark.slow
def test_several_hundred_trainings_leave_nothing():
    net, optimizer = parts()
    before = [dict(vars(one)).keys() for one in net.modules()]
    freeze = FreezeLayers("*", until=1)
    net.extra = torch.nn.Linear(1, 1)  # what is left to train
    for _ in range(300):
        with Loop(model=net, optimizer=optimizer, callbacks=[FreezeLayers("backbone*"), FreezeLayers("neck")]) as run:
            for _ in run.epochs(1):
                pass
    assert [dict(vars(one)).keys() for one in net.modules() if one is not net.extra] == before
    assert freeze.frozen == []


def test_what_cannot_work_is_said():
    net, optimizer = parts()
    with pytest.raises(
        ArgumentError, match=r"FreezeLayers\(backbones\): no layer is named 'backbones'; nearest: backbone"
    ):
        train(net, optimizer, FreezeLayers("backbones"))
    with pytest.raises(ArgumentError, match="no parameter is left to train in epoch 0"):
        train(net, optimizer, FreezeLayers("*"))
    assert all(one.requires_grad for one in net.parameters())
    with pytest.raises(ArgumentError, match="until=2 must come after start=2"):
        FreezeLayers("a", start=2, until=2)
    with pytest.raises(ArgumentError, match="until must be a whole number of at least 1, not 0"):
        FreezeLayers("a", until=0)
    assert repr(FreezeLayers("a", start=1, until=3)) == "FreezeLayers('a', start=1, until=3)"


class Live(Callback):
    """Copies the live weights of a YOLO training."""

    def __init__(self):
        self.states, self.averages = [], []

    def on_train_epoch_start(self, run):
        self.states.append({name: one.clone() for name, one in run.model.state_dict().items()})
        self.averages.append({name: one.clone() for name, one in run.trainer.ema.ema.state_dict().items()})

    on_train_end = on_train_epoch_start


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_yolo(yolo, quick, task):
    model, live = yolo(task), Live()
    attach(model, FreezeLayers("model.[0-1]", until=2), live)
    model.train(**quick(epochs=3, batch=4, nbs=8, weight_decay=0.01, momentum=0.9))
    for epoch in range(3):
        before, after = live.states[epoch : epoch + 2]
        for place in range(2):
            same = {
                name: torch.equal(one, after[name])
                for name, one in before.items()
                if name.startswith(f"model.{place}.")
            }
            assert all(same.values()) if epoch < 2 else not any(same[name] for name in same if "running" in name), epoch
        assert not torch.equal(before["model.2.cv1.conv.weight"], after["model.2.cv1.conv.weight"])
    averages = live.averages[2]  # of two frozen epochs: Ultralytics' average follows to rounding
    for name, one in live.states[0].items():
        if name[:8] in {f"model.{place}." for place in range(2)}:
            assert torch.allclose(averages[name].float(), one.float(), rtol=1e-5, atol=1e-7), name
    frozen = [name for name, one in model.trainer.model.named_parameters() if not one.requires_grad]
    assert all(".dfl" in name for name in frozen)
    assert not [one for one in model.trainer.model.modules() if "train" in vars(one)]
