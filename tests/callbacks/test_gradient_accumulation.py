"""A loop that steps in every batch steps once per group, exactly as a loop written for that, and as one large batch."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import (
    Callback,
    Checkpoint,
    Every,
    GradientAccumulation,
    GradientClip,
    LearningRate,
    Loop,
    attach,
)
from epochal.callbacks.schedules import Cosine
from epochal.core.errors import ArgumentError, CapabilityError

torch = pytest.importorskip("torch")
SIZE = 3  # samples per batch


def parts(seed=0, make=None, **options):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    make = make or torch.optim.SGD
    return net, make(net.parameters(), lr=0.1, **({"momentum": 0.9} if make is torch.optim.SGD else {}), **options)


def data(batches, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(SIZE, 2, generator=generator), torch.randn(SIZE, 1, generator=generator)) for _ in range(batches)
    ]


def loss_of(net, x, y):
    return torch.nn.functional.mse_loss(net(x), y)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def close(one, other):
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def ours(net, optimizer, loaders, callbacks, order="zero first", known=True, zero=None, scaler=None, unscale=False):
    """The user's loop, which knows nothing of accumulation."""
    zero = zero or (lambda: optimizer.zero_grad())  # asked of the optimizer in every batch, as a loop does
    with Loop(model=net, optimizer=optimizer, scaler=scaler, callbacks=callbacks) as run:
        for epoch in run.epochs(len(loaders)):
            loader = loaders[epoch]
            for x, y in run.batches(loader if known else iter(loader)):
                if order == "zero first":
                    zero()
                loss = loss_of(net, x, y)
                if scaler is None:
                    loss.backward()
                    optimizer.step()
                else:
                    scaler.scale(loss).backward()
                    if unscale:
                        scaler.unscale_(optimizer)
                    scaler.step(optimizer)
                    scaler.update()
                if order == "step first":
                    zero()
    return run


def by_hand(net, optimizer, loaders, size_of, known=True):
    """The same training by a loop written for accumulation."""
    held = steps = 0
    for epoch, loader in enumerate(loaders):
        for number, (x, y) in enumerate(loader, start=1):
            loss_of(net, x, y).backward()
            held += 1
            if held >= size_of(epoch) or (known and number == len(loader)):
                for parameter in net.parameters():
                    parameter.grad.div_(held)
                optimizer.step()
                optimizer.zero_grad()
                held, steps = 0, steps + 1
    return steps


schedules = st.one_of(st.integers(1, 6), st.dictionaries(st.integers(0, 4), st.integers(1, 6), min_size=1, max_size=3))


def size_of(schedule):
    def size(epoch):
        if isinstance(schedule, int):
            return schedule
        past = [first for first in schedule if first <= epoch]
        return schedule[max(past)] if past else 1

    return size


@settings(max_examples=60, deadline=None)
@given(
    schedule=schedules,
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    order=st.sampled_from(["zero first", "step first"]),
    known=st.booleans(),
    to_none=st.booleans(),
    whole=st.booleans(),
)
def test_any_schedule_trains_bit_for_bit_as_a_loop_written_for_it(schedule, batches, order, known, to_none, whole):
    loaders = [data(number, seed) for seed, number in enumerate(batches)]
    (net, optimizer), (twin, twins) = parts(), parts()

    def zero():
        (net if whole else optimizer).zero_grad(set_to_none=to_none)

    run = ours(net, optimizer, loaders, [GradientAccumulation(schedule)], order, known, zero)
    assert run.step == by_hand(twin, twins, loaders, size_of(schedule), known)
    assert same(net, twin)
    assert not ({"step", "zero_grad"} & vars(optimizer).keys()), vars(optimizer)
    assert "zero_grad" not in vars(net)


@settings(max_examples=25, deadline=None)
@given(number=st.integers(1, 6), batches=st.integers(1, 9))
def test_equals_large_batches_to_rounding(number, batches):
    loader = data(batches)
    (net, optimizer), (twin, twins) = parts(), parts()
    ours(net, optimizer, [loader, loader], [GradientAccumulation(number)])
    for _ in range(2):
        for first in range(0, batches, number):
            group = loader[first : first + number]
            twins.zero_grad()
            loss_of(twin, torch.cat([x for x, _ in group]), torch.cat([y for _, y in group])).backward()
            twins.step()
    assert close(net, twin)


@pytest.mark.parametrize("order", ["clip first", "clip last"])
def test_what_clips_sees_the_mean_of_the_group_wherever_it_stands(order):
    loader = data(8)
    (net, optimizer), (twin, twins) = parts(), parts()
    callbacks = [GradientClip(0.05), GradientAccumulation(4)]
    ours(net, optimizer, [loader], callbacks if order == "clip first" else callbacks[::-1])
    for first in (0, 4):
        for x, y in loader[first : first + 4]:
            loss_of(twin, x, y).backward()
        for parameter in twin.parameters():
            parameter.grad.div_(4)
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.05)
        twins.step()
        twins.zero_grad()
    assert same(net, twin)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("order", ["zero first", "step first"])
def test_with_amp_the_scaler_waits_too(order, fused, caplog):
    loader = data(7)
    make = torch.optim.AdamW if fused else torch.optim.SGD
    (net, optimizer), (twin, twins) = (parts(make=make, fused=fused) for _ in range(2))
    scaler, hand = (torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2) for _ in range(2))
    run = ours(
        net, optimizer, [loader] * 3, [GradientAccumulation(3)], order, scaler=scaler, unscale=order == "step first"
    )
    for _ in range(3):
        for number, (x, y) in enumerate(loader, start=1):
            hand.scale(loss_of(twin, x, y)).backward()
            if number % 3 == 0 or number == 7:
                hand.unscale_(twins)
                for parameter in twin.parameters():
                    parameter.grad.div_(3 if number < 7 else 1)
                hand.step(twins)
                hand.update()
                twins.zero_grad()
    assert close(net, twin) if fused else same(net, twin)
    assert (run.step, scaler.get_scale()) == (9, hand.get_scale())
    hints = [one for one in caplog.messages if "scaler.unscale_" in one]
    assert len(hints) == (order == "step first")
    assert not ({"step", "unscale_", "update"} & vars(scaler).keys())


def test_a_group_that_amp_leaves_out_is_dropped_and_the_next_begins_clean():
    loader = data(9)
    loader[4][1].fill_(float("inf"))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    (net, optimizer), (twin, twins) = parts(), parts()
    run = ours(net, optimizer, [loader], [GradientAccumulation(3)], scaler=scaler)
    by_hand(twin, twins, [loader[:3] + loader[6:]], lambda _: 3)
    assert run.step == 2
    assert close(net, twin)
    assert scaler.get_scale() == 128


def test_a_stop_waits_for_the_end_of_the_group_also_of_the_first_and_after_a_change():
    for schedule, epoch, batch, expected in [
        (4, 0, 0, 4),
        (4, 0, 3, 4),
        ({0: 2, 1: 4}, 1, 1, 4),
        ({0: 4, 1: 2}, 1, 0, 2),
    ]:
        seen = []

        class Ask(Callback):
            def on_train_batch_end(self, run):
                seen.append((run.epoch, run.batch))  # noqa: B023
                if (run.epoch, run.batch) == (epoch, batch):  # noqa: B023
                    run.stop("enough")

        net, optimizer = parts()
        ours(net, optimizer, [data(8)] * 3, [Ask(), GradientAccumulation(schedule)])
        assert seen[-1] == (epoch, expected - 1)


def test_the_rates_of_a_schedule_per_step_are_those_of_the_real_steps():
    seen = []

    class Rates(Callback):
        def optimizer_step(self, run):
            seen.append(run.optimizer.param_groups[0]["lr"])

    net, optimizer = parts()
    ours(net, optimizer, [data(10)] * 2, [GradientAccumulation(4), LearningRate(Cosine(), every="step"), Rates()])
    twin = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, expected = torch.optim.lr_scheduler.CosineAnnealingLR(twin, 6), []  # 3 steps an epoch, 2 epochs
    for _ in range(6):
        expected.append(twin.param_groups[0]["lr"])
        twin.step()
        scheduler.step()
    assert seen == pytest.approx(expected)


def test_a_scheduler_of_the_loop_goes_on_in_every_batch_without_a_warning():
    net, optimizer = parts()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Loop(model=net, optimizer=optimizer, scheduler=scheduler, callbacks=[GradientAccumulation(4)]) as run:
            for _ in run.epochs(1):
                for x, y in run.batches(data(4)):
                    optimizer.zero_grad()
                    loss_of(net, x, y).backward()
                    optimizer.step()
                    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**4)
    assert optimizer.step.__name__ == "step"
    assert optimizer.step._wrapped_by_lr_sched


def test_gradients_that_wait_at_the_end_are_told_and_stay():
    net, optimizer = parts()
    run = ours(net, optimizer, [data(6)], [GradientAccumulation(4)], known=False)
    assert run.step == 1
    assert run.past[-1].notes == ("GradientAccumulation(4): the gradients of the last 2 batches made no step",)
    twin, twins = parts()
    by_hand(twin, twins, [data(6)[:4]], lambda _: 4)
    assert same(net, twin)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("known", [True, False])
def test_resumed_between_epochs_it_goes_on_bit_for_bit_also_where_gradients_wait(known, tmp_path):
    def train(epochs, resume=False, folder="a"):
        net, optimizer = parts()
        callbacks = [GradientAccumulation({0: 4, 2: 3}), Checkpoint(when=Every(epochs=1))]
        with Loop(
            model=net, optimizer=optimizer, callbacks=callbacks, dir=tmp_path / folder, name="run", resume=resume
        ) as run:
            for epoch in run.epochs(epochs):
                loader = data(6, epoch)
                for x, y in run.batches(loader if known else iter(loader)):
                    optimizer.zero_grad()
                    loss_of(net, x, y).backward()
                    optimizer.step()
        return net, run.step

    whole, steps = train(4)
    for epochs in (1, 2, 3):
        train(epochs, folder=f"b{epochs}")
        rest, resumed = train(4, resume=True, folder=f"b{epochs}")
        assert resumed == steps
        assert same(whole, rest)


def test_everything_is_given_back_after_an_error():
    net, optimizer = parts()
    scaler = torch.amp.GradScaler("cpu")
    before = optimizer.step = optimizer.step

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ours(net, optimizer, [data(4)], [GradientAccumulation(4)], "step first", zero=fail, scaler=scaler)
    assert optimizer.step is before
    assert "zero_grad" not in vars(net)
    assert "zero_grad" not in vars(optimizer)
    assert not ({"step", "update", "unscale_"} & vars(scaler).keys())


def test_two_losses_on_two_optimizers_are_exact_or_an_error():
    def train(detached, callbacks=(), number=4):
        torch.manual_seed(0)
        one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        first, second = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (one, two))
        with Loop(model=torch.nn.ModuleList([one, two]), optimizer=[first, second], callbacks=callbacks) as run:
            for _ in run.epochs(1):
                for x, y in run.batches(data(number)):
                    first.zero_grad()
                    one(x).square().mean().backward()
                    first.step()
                    second.zero_grad()
                    between = one(x)  # as a GAN's second loss, through the first network
                    loss_of(two, between.detach() if detached else between, y).backward()
                    second.step()
        return run

    run = train(True, [GradientAccumulation(2)])
    assert run.step == 2
    with pytest.raises(CapabilityError, match=r"after the optimizer's last step\(\), from another loss"):
        train(False, [GradientAccumulation(2)])
    assert train(False, [GradientAccumulation(1)]).step == 4


def test_gradients_dropped_by_hand_are_an_error():
    net, optimizer = parts()

    def drop():
        for parameter in net.parameters():
            parameter.grad = None

    with pytest.raises(CapabilityError, match=r"dropped by hand.*optimizer.zero_grad"):
        ours(net, optimizer, [data(4)], [GradientAccumulation(2)], zero=drop)


def test_a_batch_left_out_before_its_backward_counts_for_nothing():
    loader = data(6)
    (net, optimizer), (twin, twins) = parts(), parts()
    with Loop(model=net, optimizer=optimizer, callbacks=[GradientAccumulation(2)]) as run:
        for _ in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(loader)):
                optimizer.zero_grad()
                if number in (1, 2):
                    continue
                loss_of(net, x, y).backward()
                optimizer.step()
    by_hand(twin, twins, [[loader[0], *loader[3:]]], lambda _: 2)
    assert same(net, twin)


def test_what_cannot_be_accumulated_is_said():
    net, optimizer = parts()

    def train(*callbacks, **given):
        with Loop(model=net, callbacks=callbacks, **given) as run:
            for _ in run.epochs(1):
                for x, y in run.batches(data(2)):
                    optimizer.step(lambda: loss_of(net, x, y))  # noqa: B023

    with pytest.raises(CapabilityError, match=r"step\(closure\)"):
        train(GradientAccumulation(2), optimizer=optimizer)
    train(GradientAccumulation(1), optimizer=optimizer)
    with pytest.raises(CapabilityError, match="no optimizer to hold back"):
        train(GradientAccumulation(2))
    with pytest.raises(ArgumentError, match="another callback plans"):
        train(GradientAccumulation(2), GradientAccumulation(3, name="other"), optimizer=optimizer)
    for wrong, message in [
        (0, "must be a whole number of at least 1, not 0"),
        ({}, "the schedule is empty"),
        ({-1: 2}, "keys are epochs"),
        ({0: 2.5}, "not 2.5"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            GradientAccumulation(wrong)
    assert [repr(GradientAccumulation(one)) for one in (4, {0: 4, 9: 1})] == [
        "GradientAccumulation(4)", "GradientAccumulation({0: 4, 9: 1})",
    ]  # fmt: skip


def test_yolo_accumulates_itself_and_the_message_names_its_option(yolo):
    model = yolo()
    with pytest.raises(CapabilityError, match=r"GradientAccumulation\(4\) cannot be used here.*nbs"):
        attach(model, GradientAccumulation(4))
    assert "train" not in vars(model)
