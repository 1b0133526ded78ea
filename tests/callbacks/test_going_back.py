"""LossSpike(then="rollback"): the run ends as one that never had the bad batches, however it was killed on the way."""

import copy
import pickle

import pytest
import torch

from epochal import EMA, Callback, Checkpoint, LearningRate, Loop, LossSpike, attach
from epochal.callbacks.schedules import Cosine
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.core.run import Run
from epochal.testing import RecordEvents, check_events, simulate

BATCHES = 24
INF = float("inf")


def data(bad=(), value=1e4, batches=BATCHES):
    generator = torch.Generator().manual_seed(0)
    made = [[torch.randn(4, 2, generator=generator), torch.randn(4, 1, generator=generator)] for _ in range(batches)]
    for place in bad:
        made[place][1] += value
    return made


def without(*left_out, epoch=1):
    """Return what is to be trained on: everything, but a stretch of one epoch."""
    return lambda now: [one for place, one in enumerate(data()) if now != epoch or place not in left_out]


def train(loader_of, *callbacks, epochs=3, **options):
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, **options) as run:
        for epoch in run.epochs(epochs):
            for x, y in run.batches(loader_of(epoch)):
                loss = torch.nn.functional.mse_loss(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log({"train/loss": loss})
            with run.validation():
                run.log({"val/loss": 1.0})
    return run, net


def poisoned(*bad, value=1e4, epoch=1):
    return lambda now: data(bad if now == epoch else (), value)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def spike(**options):
    return LossSpike(window=10, factor=50.0, then="rollback", **options)


@pytest.mark.parametrize("value", [1e4, float("nan"), INF])
@pytest.mark.parametrize("every", [500, 4])
def test_the_weights_are_those_of_a_run_that_never_had_the_batches(value, every):
    record = RecordEvents()
    run, net = train(poisoned(13, value=value), spike(every=every), record)
    _, twin = train(without(12, 13))
    assert same(net, twin)
    assert run.step == 3 * BATCHES - 2
    assert len(run.history) == 3
    check_events(record.events, declared=["on_loss_spike"])
    assert record.events.count("on_train_epoch_abort") == 1
    assert run.past[-1].notes == ("LossSpike: 1 spike of train/loss, 1 times back before one",)


def test_a_stretch_of_bad_batches_is_left_out_step_by_step_or_at_once():
    _, twin = train(without(*range(9, 15)))
    run, net = train(poisoned(11, 12), spike(skip_before=2, skip_after=3))
    assert same(net, twin)
    assert run.engine.rollbacks.counts == {"LossSpike": 1}
    _, twin = train(without(10, 11, 12))
    run, net = train(poisoned(11, 12), spike())
    assert same(net, twin)
    assert run.engine.rollbacks.counts == {"LossSpike": 2}


def test_the_rate_is_scaled_for_good():
    run, _ = train(poisoned(11, 12), spike(lr_factor=0.5))
    assert run.engine.rates.factor_of_all == 0.25


def test_nan_in_the_first_epoch_has_a_point_too_where_a_trainer_goes_on_from_batches():
    _, net = train(poisoned(6, value=float("nan"), epoch=0), spike())
    _, twin = train(without(5, 6, epoch=0))
    assert same(net, twin)


def test_weights_that_a_step_spoilt_before_the_loss_showed_it_are_not_gone_back_to():
    class SpoilStep(Callback):
        """The step of batch 12 makes the weights NaN, which the loss of batch 13 shows first."""

        times = 0

        def before_step(self, run, optimizer):
            if (run.epoch, run.batch) == (1, 12) and not self.times:
                self.times += 1
                for parameter in run.model.parameters():
                    parameter.grad.fill_(float("nan"))

    run, net = train(lambda epoch: data(), SpoilStep(), spike(every=1))
    assert run.engine.rollbacks.skipped == {1: [(12, 13)]}
    assert all(bool(one.isfinite().all()) for one in net.parameters())
    _, twin = train(without(12, 13))
    assert same(net, twin)


def test_after_so_many_times_the_training_stops():
    run, _ = train(poisoned(*range(11, 20)), spike(at_most=2))
    assert run.engine.rollbacks.counts == {"LossSpike": 2}
    assert run.end_reason == "stopped"
    assert run.stop_reason.startswith("LossSpike: train/loss")
    assert run.stop_reason.endswith("after 2 rollbacks")


def test_killed_afterwards_and_resumed_it_leaves_out_the_same(tmp_path):
    class Stops(Callback):
        def on_train_batch_end(self, run):
            if run.epoch == 1 and run.batch == 18:
                raise ZeroDivisionError

    place = {"dir": tmp_path, "name": "a"}
    policies = Checkpoint(), spike(every=6)
    with pytest.raises(ZeroDivisionError):
        train(poisoned(13), *policies, Stops(), **place)
    run, net = train(poisoned(13), Checkpoint(), spike(every=6), resume=True, **place)
    _, twin = train(without(12, 13))
    assert same(net, twin)
    assert run.engine.rollbacks.counts == {"LossSpike": 1}


def test_a_second_training_begins_with_nothing_gone_back():
    one = spike()
    for _ in range(2):
        run, _ = train(poisoned(13), one)
        assert run.engine.rollbacks.counts == {"LossSpike": 1}


def test_without_any_framework():
    losses = [{"train/loss": x} for x in (1.0, 1.1, 0.9, 1.0, 1.1, 50.0, 1.0)]
    result = simulate([LossSpike(window=8, then="rollback", lr_factor=0.5)], losses, batches=2)
    assert result.epochs_run == 7
    assert result.lrs == [0.1] * 5 + [0.05] * 2
    assert "train/loss" not in result.run.history[5]
    assert result.events.count("on_train_epoch_abort") == 1
    check_events(result.events)


def test_it_is_refused_where_a_trainer_cannot_go_back():
    run = Run(host="some trainer", provides=frozenset({"save"}))
    with pytest.raises(CapabilityError, match="rollback"):
        run.add(spike())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_back_by_itself(how):
    run, _ = train(poisoned(13), how(spike()))
    assert run.engine.rollbacks.counts == {"LossSpike": 1}


@pytest.mark.parametrize(
    "options", [{"at_most": 0}, {"lr_factor": 0}, {"skip_before": -1}, {"skip_after": 1.5}, {"every": 0}]
)
def test_what_cannot_work_is_said(options):
    with pytest.raises(ArgumentError, match=f"LossSpike: {next(iter(options))}"):
        spike(**options)


def test_yolo_goes_back_to_the_start_of_its_epoch(yolo, quick):
    model, record, bad = yolo(), RecordEvents(), []
    run = attach(model, LossSpike(window=4, then="rollback"), record)

    @run.on("on_train_batch_start")
    def spoil(run):
        files = sorted(run.data["im_file"])
        if (run.epoch, run.batch) == (1, 2) and not bad:
            bad.append(files)
        run.trainer.model.args.box = 7.5e4 if files in bad else 7.5

    model.train(**quick(epochs=3, batch=4, nbs=4))
    assert run.engine.rollbacks.skipped == {1: [(1, 2)]}
    assert record.events.count("on_train_epoch_abort") == 1
    check_events(record.events, declared=["on_loss_spike"])
    assert len(run.history) == 3


def test_what_other_callbacks_have_learnt_goes_back_too():
    def others():
        return LearningRate(Cosine(), every="step", length=3 * BATCHES), EMA(0.9)

    run, net = train(poisoned(13), spike(every=4), *others())
    _, twin = train(without(12, 13), *others())
    assert same(net, twin)
    assert run.past[-1].end_reason == "completed"
