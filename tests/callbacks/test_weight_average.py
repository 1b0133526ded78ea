"""WeightAverage equals the loop of PyTorch's own documentation bit for bit: AveragedModel, SWALR, update_bn."""

import pytest

from epochal import Callback, Checkpoint, Every, LearningRate, Loop, ReduceLROnPlateau, WeightAverage, attach
from epochal.callbacks.schedules import Cosine
from epochal.core.errors import ArgumentError, CapabilityError

torch = pytest.importorskip("torch")
swa, schedulers = torch.optim.swa_utils, torch.optim.lr_scheduler


def parts(norm=True, seed=0):
    torch.manual_seed(seed)
    layers = [
        torch.nn.Linear(3, 6),
        *([torch.nn.BatchNorm1d(6)] if norm else []),
        torch.nn.Tanh(),
        torch.nn.Linear(6, 1),
    ]
    net = torch.nn.Sequential(*layers)
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1:].parameters(), "lr": 0.02}]
    return net, torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def data(epoch, batches=4):
    generator = torch.Generator().manual_seed(epoch)
    return [(torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)) for _ in range(batches)]


def step(net, optimizer, x, y):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(net(x), y).backward()
    optimizer.step()


def train(net, optimizer, *callbacks, epochs=8, scheduler=None, first=0, **options):
    with Loop(model=net, optimizer=optimizer, scheduler=scheduler, callbacks=callbacks, **options) as run:
        for epoch in run.epochs(epochs):
            for x, y in run.batches(data(epoch)):
                step(net, optimizer, x, y)
            with run.validation():
                run.log({"val/loss": 1.0})
            if scheduler is not None:
                scheduler.step()
    return run


def by_torch(net, optimizer, start, epochs=8, every=1, scheduler=None, loader=None, **options):
    average = swa.AveragedModel(net)
    swalr = swa.SWALR(optimizer, **options) if options else None
    for epoch in range(epochs):
        for x, y in data(epoch):
            step(net, optimizer, x, y)
        if epoch >= start and (epoch - start) % every == 0:
            average.update_parameters(net)
        if epoch >= start and swalr is not None:
            swalr.step()
        elif scheduler is not None:
            scheduler.step()
    if loader is not None:
        swa.update_bn(loader, average)
    return average


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("with_scheduler", [False, True])
@pytest.mark.parametrize(
    ("options", "swalr"),
    [
        ({"lr": 0.05}, {"swa_lr": 0.05}),
        ({"lr": [0.05, 0.01], "anneal_epochs": 2}, {"swa_lr": [0.05, 0.01], "anneal_epochs": 2}),
        (
            {"lr": 0.3, "anneal_epochs": 3, "anneal_strategy": "linear"},
            {"swa_lr": 0.3, "anneal_epochs": 3, "anneal_strategy": "linear"},
        ),
        ({"lr": 0.07, "anneal_epochs": 1}, {"swa_lr": 0.07, "anneal_epochs": 1}),
        ({}, {}),
    ],
)
def test_equals_torchs_loop_bit_for_bit(options, swalr, with_scheduler):
    (net, optimizer), (twin, twins) = parts(), parts()
    made = [schedulers.ExponentialLR(one, 0.8) if with_scheduler else None for one in (optimizer, twins)]
    loader = data(99)
    callback = WeightAverage(start=3, loader=loader, **options)
    train(net, optimizer, callback, scheduler=made[0])
    average = by_torch(twin, twins, 3, scheduler=made[1], loader=loader, **swalr)
    assert same(net, average.module)
    assert same(callback.module, average.module)
    assert callback.updates == int(average.n_averaged) == 5


def test_without_batchnorm_no_data_is_needed_and_every_counts(caplog):
    (net, optimizer), (twin, twins) = parts(norm=False), parts(norm=False)
    callback = WeightAverage(start=2, every=2, lr=0.05)
    train(net, optimizer, callback)
    average = by_torch(twin, twins, 2, every=2, swa_lr=0.05)
    assert same(net, average.module)
    assert callback.updates == 3
    assert caplog.messages == []
    train(*parts(), WeightAverage(2))
    assert "WeightAverage(2): the model has BatchNorm" in caplog.messages[0]


def test_a_share_of_the_training_is_the_epoch_it_stands_for():
    callback = WeightAverage(0.75)
    train(*parts(norm=False), callback)
    assert (callback.first, callback.updates) == (6, 2)
    net, optimizer = parts()
    with (
        pytest.raises(ArgumentError, match="the number of epochs is not known; give an epoch"),
        Loop(model=net, optimizer=optimizer, callbacks=[WeightAverage()]),
    ):
        pass


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def optimizer_step(self, run):
        if run.batch == 0:
            self.seen.append(run.optimizer.param_groups[0]["lr"])


def swalr_rates(start, first, target, epochs, anneal_epochs):
    """The closed form of its documentation: half a cosine from the rate of epoch start."""
    from math import cos, pi

    for epoch in range(epochs):
        done = min(max(epoch - start, 0) / anneal_epochs, 1)
        share = (1 - cos(pi * done)) / 2
        yield first(epoch) if epoch <= start else target * share + first(start) * (1 - share)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("every", ["epoch", "step"])
def test_its_rates_hold_against_a_schedule_of_ours_in_either_order(order, every):
    from math import cos, pi

    rates = Rates()
    both = [LearningRate(Cosine(), every=every), WeightAverage(start=2, lr=0.05, anneal_epochs=3)][::order]
    train(*parts(norm=False), rates, *both)
    expected = swalr_rates(2, lambda epoch: 0.1 * (1 + cos(pi * epoch / 8)) / 2, 0.05, 8, 3)
    assert rates.seen == pytest.approx(list(expected))


def test_factors_go_on_multiplying_its_rates():
    rates = Rates()
    callbacks = [
        WeightAverage(start=2, lr=0.05, anneal_epochs=2),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=4),
    ]
    train(*parts(norm=False), rates, *callbacks)
    plain = list(swalr_rates(2, lambda _: 0.1, 0.05, 8, 2))
    assert rates.seen == pytest.approx([*plain[:5], *(0.5 * rate for rate in plain[5:])])


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_resumed_it_is_bit_for_bit_the_same(after, tmp_path):
    def run_to(epochs, folder, resume=False):
        net, optimizer = parts()
        scheduler = schedulers.ExponentialLR(optimizer, 0.8)
        callback = WeightAverage(start=3, lr=0.05, anneal_epochs=3, loader=data(99))
        saving = Checkpoint(when=Every(epochs=1))
        options = {"dir": tmp_path / folder, "name": "run", "resume": resume}
        train(net, optimizer, callback, saving, scheduler=scheduler, epochs=epochs, **options)
        return net, callback

    whole, callback = run_to(8, "whole")
    run_to(after, "parts")
    rest, resumed = run_to(8, "parts", resume=True)
    assert same(whole, rest)
    assert resumed.updates == callback.updates


def test_a_training_that_ends_before_says_so_and_keeps_its_weights(caplog):
    (net, optimizer), (twin, twins) = parts(norm=False), parts(norm=False)
    run = train(net, optimizer, WeightAverage(9))
    train(twin, twins)
    assert same(net, twin)
    assert run.past[-1].notes == (
        "WeightAverage(9): no epoch from 9 on was finished; the model keeps its last weights",
    )


def test_an_epoch_that_was_cut_short_does_not_count():
    class Stop(Callback):
        def on_train_batch_end(self, run):
            if (run.epoch, run.batch) == (4, 1):
                run.stop("enough")

    callback = WeightAverage(start=3)
    train(*parts(norm=False), callback, Stop())
    assert callback.updates == 1


def test_what_cannot_work_is_said(yolo):
    for options, message in [
        ({"start": -1}, "start must be a whole number"),
        ({"start": 1.5}, "share of the training below 1"),
        ({"every": 0}, "every must be"),
        ({"lr": -0.1}, "lr must be"),
        ({"anneal_epochs": -1}, "anneal_epochs must be"),
        ({"anneal_strategy": "cosine"}, 'anneal_strategy must be "cos" or "linear"'),
    ]:
        with pytest.raises(ArgumentError, match=f"WeightAverage: .*{message}"):
            WeightAverage(**options)
    assert repr(WeightAverage(5, lr=0.1)) == "WeightAverage(5, lr=0.1)"
    with pytest.raises(CapabilityError, match=r"WeightAverage\(5\) cannot be used here.*model\.trainer\.ema"):
        attach(yolo(), WeightAverage(5))
