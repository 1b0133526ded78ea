"""EMA equals PyTorch's own AveragedModel bit for bit; validation sees it, training does not."""

import pytest

import epochal
from epochal import EMA, Callback, Checkpoint, Every, GradientAccumulation, Loop, attach
from epochal.core.errors import ArgumentError, CapabilityError

torch = pytest.importorskip("torch")
swa = torch.optim.swa_utils


def parts(seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(6, 1)
    )
    return net, torch.optim.AdamW(net.parameters(), lr=0.05)


def data(epoch, batches=5):
    generator = torch.Generator().manual_seed(epoch)
    return [(torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)) for _ in range(batches)]


def step(net, optimizer, x, y):
    loss = torch.nn.functional.mse_loss(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def evaluate(net):
    net.eval()
    with torch.no_grad():
        loss = torch.nn.functional.mse_loss(net(torch.linspace(-1, 1, 24).view(8, 3)), torch.zeros(8, 1)).item()
    net.train()
    return loss


def train(net, optimizer, *callbacks, epochs=3, between=evaluate, **options):
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, **options) as run:
        for epoch in run.epochs(epochs):
            for x, y in run.batches(data(epoch)):
                step(net, optimizer, x, y)
            with run.validation():
                run.log({"val/loss": between(net)})
    return run


def by_torch(net, optimizer, epochs=3, decay_of=lambda n: 0.9, **options):
    """Torch's own loop: the live model, the average, and the average's loss after every epoch."""
    average, losses = swa.AveragedModel(net, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), **options), []
    for epoch in range(epochs):
        for x, y in data(epoch):
            step(net, optimizer, x, y)
            average.multi_avg_fn = swa.get_ema_multi_avg_fn(decay_of(int(average.n_averaged)))
            average.update_parameters(net)
        losses.append(evaluate(average.module))
    return average, losses


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("buffers", [False, True])
def test_equals_torchs_average_bit_for_bit_and_is_what_validation_sees(buffers):
    (net, optimizer), (twin, twins) = parts(), parts()
    ema = EMA(0.9, use_buffers=buffers, keep=False)
    torch.manual_seed(1)
    run = train(net, optimizer, ema)
    torch.manual_seed(1)
    average, losses = by_torch(twin, twins, use_buffers=buffers)
    assert same(ema.module, average.module)
    assert same(net, twin)
    assert [row["val/loss"] for row in run.history] == losses
    assert ema.updates == int(average.n_averaged) == 15


def test_a_warmed_up_decay_is_the_lesser_of_both():
    (net, optimizer), (twin, twins) = parts(), parts()
    ema = EMA(0.3, warmup=True)
    torch.manual_seed(1)
    train(net, optimizer, ema)
    torch.manual_seed(1)
    average, _ = by_torch(twin, twins, decay_of=lambda n: min(0.3, (1 + n) / (10 + n)))
    assert same(ema.module, average.module)


@pytest.mark.parametrize("keep", [True, False])
def test_the_model_keeps_the_average_at_the_end_or_the_weights(keep):
    (net, optimizer), (twin, twins) = parts(), parts()
    addresses = [one.data_ptr() for one in net.state_dict().values()]
    ema = EMA(0.9, keep=keep)
    torch.manual_seed(1)
    train(net, optimizer, ema)
    torch.manual_seed(1)
    average, _ = by_torch(twin, twins)
    assert same(net, average.module if keep else twin)
    assert same(ema.module, average.module)
    assert [one.data_ptr() for one in net.state_dict().values()] == addresses


def test_without_swap_validation_sees_the_weights():
    (net, optimizer), (twin, twins) = parts(), parts()
    torch.manual_seed(1)
    run = train(net, optimizer, EMA(0.9, swap=False))
    torch.manual_seed(1)
    for epoch in range(3):
        for x, y in data(epoch):
            step(twin, twins, x, y)
        assert run.history[epoch]["val/loss"] == evaluate(twin)


def test_a_validation_that_raises_leaves_the_weights_bit_for_bit():
    def broken(net):
        raise ZeroDivisionError

    (net, optimizer), (twin, twins) = parts(), parts()
    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError):
        train(net, optimizer, EMA(0.9), between=broken)
    torch.manual_seed(1)
    for x, y in data(0):
        step(twin, twins, x, y)
    assert same(net, twin)

    net, optimizer = parts()
    torch.manual_seed(1)
    with Loop(model=net, optimizer=optimizer, callbacks=[EMA(0.9)]) as run:  # the user catches it and goes on
        for epoch in run.epochs(1):
            for x, y in run.batches(data(epoch)):
                step(net, optimizer, x, y)
            try:
                with run.validation():
                    assert not same(net, twin)
                    broken(net)
            except ZeroDivisionError:
                assert same(net, twin)


def test_a_validation_in_the_middle_of_an_epoch_and_one_before_the_first_step():
    (net, optimizer), (twin, twins) = parts(), parts()
    with Loop(model=net, optimizer=optimizer, callbacks=[EMA(0.9, keep=False)]) as run:
        with run.validation():
            assert same(net, twin)
        torch.manual_seed(1)
        for epoch in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(data(epoch))):
                step(net, optimizer, x, y)
                if number == 2:
                    with run.validation():
                        evaluate(net)
    torch.manual_seed(1)
    for x, y in data(0):
        step(twin, twins, x, y)
    assert same(net, twin)


def test_resumed_it_is_bit_for_bit_the_same_and_checkpoints_hold_both(tmp_path):
    def run_to(epochs, folder, resume=False):
        (net, optimizer), ema = parts(), EMA(0.9, warmup=True)
        torch.manual_seed(1)
        run = train(
            net, optimizer, ema, Checkpoint(when=Every(epochs=1)), epochs=epochs, dir=tmp_path / folder, name="run",
            resume=resume,
        )  # fmt: skip
        return net, ema, run

    whole, ema, _ = run_to(4, "whole")
    run_to(2, "parts")
    rest, resumed, run = run_to(4, "parts", resume=True)
    assert same(whole, rest)
    assert same(ema.module, resumed.module)
    saved = epochal.checkpoint(run, "last")
    live, average = parts(3)[0], parts(3)[0]
    saved.load_into(live)
    average.load_state_dict(saved.load("callbacks")["EMA(0.9)"]["weights"])
    assert same(average, whole)
    assert not same(live, whole)


def test_only_real_steps_of_the_first_optimizer_count():
    net, optimizer = parts()
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    ema = EMA(0.9)

    class Skip(Callback):
        def before_step(self, run, optimizer):
            if run.step == 1 and run.batch == 3:
                run.skip_step()

    with Loop(model=net, optimizer=[optimizer, other], callbacks=[ema, GradientAccumulation(2), Skip()]) as run:
        for epoch in run.epochs(1):
            for x, y in run.batches(data(epoch, 6)):
                step(net, optimizer, x, y)
                other.step()
    assert (run.step, ema.updates) == (2, 2)


@pytest.mark.parametrize("wrapper", [lambda net: torch.compile(net, backend="eager"), torch.nn.DataParallel])
def test_wrapped_models_are_averaged_inside(wrapper):
    (net, optimizer), (twin, twins) = parts(), parts()
    ema = EMA(0.9)
    with Loop(model=wrapper(net), optimizer=optimizer, callbacks=[ema]) as run:
        for epoch in run.epochs(1):
            torch.manual_seed(1)
            for x, y in run.batches(data(epoch)):
                step(net, optimizer, x, y)
    torch.manual_seed(1)
    average, _ = by_torch(twin, twins, epochs=1)
    assert same(net, average.module)


def test_a_training_that_fails_keeps_the_weights():
    (net, optimizer), (twin, twins) = parts(), parts()

    class Fail(Callback):
        def on_train_epoch_end(self, run):
            raise ZeroDivisionError

    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError):
        train(net, optimizer, EMA(0.9), Fail())
    torch.manual_seed(1)
    for x, y in data(0):
        step(twin, twins, x, y)
    assert same(net, twin)


def test_what_cannot_work_is_said(yolo):
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ArgumentError, match="EMA: decay"):
            EMA(decay)
    assert repr(EMA(0.99)) == EMA(0.99).name == "EMA(0.99)"
    model = yolo()
    with pytest.raises(CapabilityError, match=r"EMA\(0.99\) cannot be used here.*model\.trainer\.ema"):
        attach(model, EMA(0.99))
    assert "train" not in vars(model)
