"""A training that a signal ends, resumed, is to the bit the one that nothing ended."""

import json
import os
import signal

import pytest
import torch

from epochal import Checkpoint, CSVLogger, Every, JSONLogger, Loop, Preempted, attach
from epochal.testing import RecordEvents, check_events

SIGNALS = {signal.SIGTERM: Preempted, signal.SIGUSR1: Preempted, signal.SIGINT: KeyboardInterrupt}


def train(place, *callbacks, resume=False, send=None, epochs=3):
    """Train a small network with dropout; ``send`` is a signal and where it comes: epoch, batch, validation or not."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    data = torch.utils.data.TensorDataset(torch.randn(40, 4, generator=torch.Generator().manual_seed(1)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)

    def maybe(*here):
        if send is not None and here == send[1:]:
            os.kill(os.getpid(), send[0])

    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=place, name="a", resume=resume) as run:
        for epoch in run.epochs(epochs):
            for number, (x,) in enumerate(run.batches(loader)):
                optimizer.zero_grad()
                loss = (net(x) - 1).square().mean()
                loss.backward()
                maybe(epoch, number, False)
                optimizer.step()
                run.log({"train/loss": loss})
            with run.validation():
                for number, _ in enumerate(run.batches(loader)):
                    maybe(epoch, number, True)
                run.log({"val/loss": float(epoch)})
    return net


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_middle_of_an_epoch_nothing_is_lost(tmp_path, number):
    whole = train(tmp_path / "whole")
    got, record = [], RecordEvents()
    record.on_exception = got.append
    with pytest.raises(SIGNALS[number]):
        train(tmp_path, Checkpoint(), CSVLogger(), JSONLogger(), record, send=(number, 1, 2, False))
    (run,) = got
    last = run.checkpoints.last.manifest
    assert (last.epoch, last.batch, last.step, last.resume_point) == (1, 2, 8, True)
    assert signal.Signals(number).name in last.reason
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["end_reason"] == ("interrupted" if number == signal.SIGINT else "preempted")
    rest = train(tmp_path, Checkpoint(), resume=True)
    assert same(whole.state_dict(), rest.state_dict())


@pytest.mark.parametrize("grace", ["25", "0"])
def test_in_a_validation_too(tmp_path, grace, monkeypatch):
    whole = train(tmp_path / "whole")
    record = RecordEvents()
    monkeypatch.setenv("EPOCHAL_GRACE", grace)
    with pytest.raises(Preempted):
        train(tmp_path, Checkpoint(when=Every(epochs=1)), record, send=(signal.SIGTERM, 1, 2, True))
    check_events(record.events)
    rest = train(tmp_path, resume=True)
    assert same(whole.state_dict(), rest.state_dict())


def test_yolo_goes_on_from_its_newest_point_and_keeps_nothing_more(yolo, quick):
    def finish(model, run):
        return run.checkpoints.last.load("live")

    whole = yolo()
    run = attach(whole, Checkpoint())
    whole.train(**quick(name="whole"))
    wanted = finish(whole, run)

    model, record = yolo(), RecordEvents()
    run = attach(model, Checkpoint(), record)
    run.add_callback("on_train_batch_start", lambda run: run.epoch == 1 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted):
        model.train(**quick(name="killed"))
    check_events(record.events)
    assert run.end_reason == "preempted"
    assert [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints] == [(0, True)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    again = yolo()
    run = attach(again, Checkpoint(), resume=run.dir)
    again.train(**quick(name="killed"))
    assert same(wanted, finish(again, run))
