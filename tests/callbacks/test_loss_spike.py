"""LossSpike tells every spike once, with its numbers, and leaves out exactly the steps it should."""

import copy
import pickle

import pytest

from epochal import Callback, GradientAccumulation, Loop, LossSpike, Spike, Stop, attach
from epochal.core.errors import ArgumentError, AttachError, MetricNotFound
from epochal.testing import simulate

torch = pytest.importorskip("torch")
NAN = float("nan")


def curve(*losses):
    return [{"train/loss": loss} for loss in losses]


CALM = (1.0, 1.1, 0.9, 1.0, 1.05, 0.95)


class Heard(Callback):
    def __init__(self):
        self.epochs = []

    def on_loss_spike(self, run):
        self.epochs.append(run.epoch)


def test_every_spike_is_told_once_with_its_numbers(caplog):
    heard, spike = Heard(), LossSpike(window=8)
    losses = curve(*CALM, 50.0, 60.0, 1.0, NAN, NAN, 1.0, 40.0)
    result = simulate([spike, heard], losses)
    assert heard.epochs == [6, 9, 12]
    assert len(caplog.messages) == 3
    limit = 1 + 8 * 1.4826 * 0.05  # median 1, median absolute deviation 0.05
    assert caplog.messages[0] == (
        f"LossSpike: train/loss 50 is far above its recent values (median 1, limit {limit:.6g}), near step 7, epoch 6."
    )
    assert caplog.messages[1].startswith("LossSpike: train/loss is nan")
    assert result.stop_reason is None
    assert [row["train/loss_spikes"] for row in result.run.history][-4:] == [2, 2, 2, 3]
    assert result.run.past[-1].notes == ("LossSpike: 3 spikes of train/loss",)


def test_it_is_a_condition_too():
    result = simulate([Stop(when=Spike("train/loss", window=8))], curve(*CALM, 50.0, 1.0))
    assert result.epochs_run == 7
    assert "is far above its recent values" in result.stop_reason


def test_functions_hear_of_it_without_a_declaration():
    net, heard = torch.nn.Linear(1, 1), []
    loop = Loop(model=net, callbacks=[LossSpike(window=4)])
    loop.run.add_callback("on_loss_spike", lambda run: heard.append(run.batch))
    with loop as run:
        for _ in run.epochs(1):
            for loss in run.batches([*CALM, 9.0, 1.0]):
                run.log({"train/loss": loss})
    assert heard == [6]


def data(batches, bad=()):
    generator = torch.Generator().manual_seed(0)
    made = [[torch.randn(4, 2, generator=generator), torch.randn(4, 1, generator=generator)] for _ in range(batches)]
    for place in bad:
        made[place][1] += 1e4
    return made


def parts():
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    return net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)


def train(net, optimizer, loader, *callbacks, late=False, scaler=None, epochs=1, **options):
    with Loop(model=net, optimizer=optimizer, scaler=scaler, callbacks=callbacks, **options) as run:
        for _ in run.epochs(epochs):
            for x, y in run.batches(loader):
                loss = torch.nn.functional.mse_loss(net(x), y)
                optimizer.zero_grad()
                (scaler.scale(loss) if scaler else loss).backward()
                if not late:
                    run.log({"train/loss": loss})
                if scaler:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
                if late:
                    run.log({"train/loss": loss})
    return run


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_skipping_trains_bit_for_bit_as_without_those_batches():
    bad = (9, 10, 14)
    (net, optimizer), (twin, twins) = parts(), parts()
    spike = LossSpike(window=10, then="skip")
    run = train(net, optimizer, data(20, bad), spike)
    train(twin, twins, [one for place, one in enumerate(data(20)) if place not in bad])
    assert same(net, twin)
    assert run.step == 17
    assert (spike.skipped, spike.spike.state.spikes) == (3, 2)
    assert run.past[-1].notes == ("LossSpike: 2 spikes of train/loss, 3 steps left out",)


def test_warning_changes_no_weight():
    (net, optimizer), (twin, twins) = parts(), parts()
    for late in (False, True):
        train(net, optimizer, data(20, (9,)), LossSpike(window=10), late=late)
        train(twin, twins, data(20, (9,)))
    assert same(net, twin)


def test_a_group_with_one_spike_in_it_is_left_out_as_a_whole_and_the_next_is_not():
    (net, optimizer), (twin, twins) = parts(), parts()
    spike = LossSpike(window=8, then="skip")
    run = train(net, optimizer, data(24, (13,)), spike, GradientAccumulation(3))
    rest = [one for place, one in enumerate(data(24)) if place not in (12, 13, 14)]
    train(twin, twins, rest, GradientAccumulation(3))
    assert same(net, twin)
    assert (run.step, spike.skipped) == (7, 1)


def test_a_step_that_amp_leaves_out_taints_no_other():
    (net, optimizer), (twin, twins) = parts(), parts()
    scaler, other = (torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in range(2))
    bad, rest = data(16), data(16)
    bad[12][1].fill_(float("inf"))
    del rest[12]
    run = train(net, optimizer, bad, LossSpike(window=8, then="skip"), scaler=scaler)
    train(twin, twins, rest, scaler=other)
    assert run.step == 15
    assert all(torch.allclose(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_loss_that_is_not_there_before_its_step_is_an_error_with_the_cure():
    for epochs, late in ((1, True), (2, True)):
        with pytest.raises(
            AttachError, match=r"before its step.*write run\.log\(\{\"train/loss\": loss\}\) before optimizer"
        ):
            train(*parts(), data(3), LossSpike(then="skip"), late=late, epochs=epochs)
    with pytest.raises(MetricNotFound, match="train/los"):
        train(*parts(), data(3), LossSpike("train/los"))


def test_resumed_it_goes_on_as_if_nothing_had_happened(tmp_path):
    from epochal import Checkpoint, Every

    def run_to(epochs, folder, resume=False):
        net, optimizer = parts()
        spike = LossSpike(window=30, then="skip")
        saving = Checkpoint(when=Every(epochs=1))
        options = {"dir": tmp_path / folder, "name": "run", "resume": resume, "epochs": epochs}
        train(net, optimizer, data(20, (19,)), spike, saving, **options)
        return net, spike

    (whole, spike), _ = run_to(3, "whole"), run_to(1, "parts")
    rest, resumed = run_to(3, "parts", resume=True)
    assert same(whole, rest)
    assert resumed.state_dict() == spike.state_dict()
    assert spike.skipped == 3


@pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_skips_by_itself(how):
    spike = LossSpike(window=10, then="skip")
    copied = how(spike)
    run = train(*parts(), data(20, (9,)), copied)
    assert (copied.skipped, spike.skipped, run.step) == (1, 0, 19)


def test_what_cannot_work_is_said():
    with pytest.raises(ArgumentError, match='then must be "warn", "skip" or "rollback", not \'stop\''):
        LossSpike(then="stop")
    with pytest.raises(ArgumentError, match="LossSpike: window"):
        LossSpike(window=0)
    assert repr(LossSpike("train/loss", then="skip")) == "LossSpike('train/loss', then='skip')"


@pytest.mark.parametrize("then", ["warn", "skip"])
def test_yolo(yolo, quick, then, monkeypatch):
    model, steps, seen = yolo(), [], []
    spike = LossSpike(window=4, then=then)
    run = attach(model, spike)

    @run.on("on_train_batch_start")
    def spoil(run):
        if run.epoch == 1 and run.batch == 1:
            run.trainer.model.args.box *= 1e4
        elif run.epoch == 2 and run.batch == 0:
            run.trainer.model.args.box /= 1e4

    run.add_callback("optimizer_step", lambda run: steps.append((run.epoch, run.batch)))
    run.add_callback("on_loss_spike", lambda run: seen.append((run.epoch, run.batch)))
    model.train(**quick(epochs=3, batch=4, nbs=4))
    assert seen == [(1, 1)]
    assert ((1, 1) in steps) == (then == "warn")
