"""A YOLO training that was killed and goes on ends as if nothing had happened: bit for bit."""

import pytest

from epochal import Checkpoint, EarlyStopping, attach
from epochal.core.errors import CapabilityError, CheckpointError


class Crash(Exception):
    """The end of a process, as far as a test can have it inside its own."""


def crash_at(run, epoch, batch):
    @run.on("on_train_batch_start")
    def crash(run):
        if (run.epoch, run.batch) == (epoch, batch):
            raise Crash


def watch_end(run, found):
    @run.on("on_train_end")
    def keep(run):
        copies = {
            "live": {k: v.clone() for k, v in run.trainer.model.state_dict().items()},
            "ema": {k: v.clone() for k, v in run.trainer.ema.ema.state_dict().items()},
        }
        found.update(copies, updates=run.trainer.ema.updates, optimizer=run.trainer.optimizer.state_dict())


def train(make, options, *, crash=None, resume=False, task="", callbacks=None):
    """Train, and return what there is at the end; ``crash``: the epoch and the batch that it does not outlive."""
    found, model = {}, make(task)
    policies = callbacks() if callbacks else [Checkpoint(), EarlyStopping("val/loss", patience=50)]
    run = attach(model, *policies, resume=resume)
    watch_end(run, found)
    if crash is not None:
        crash_at(run, *crash)
        with pytest.raises(Crash):
            model.train(**options)
        return run
    model.train(**options)
    found |= {
        "history": [dict(row) for row in run.history],
        "step": run.step,
        "best": run.best_fitness,
        "states": run.roster.states(),
        "best.pt": model.model.state_dict(),
        "results": [row.split(",")[2:] for row in (run.trainer.save_dir / "results.csv").read_text().splitlines()],
    }
    return found


def assert_same(one, other, path=""):
    import torch

    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{index}")
    else:
        assert one == other, f"{path}: {one} {other}"


def killed_and_whole(make, quick, crash, *, task="", **changes):
    """Train once without and once with a crash; return what both have at the end."""
    whole = train(make, quick(**changes, name="whole"), task=task)
    options = quick(**changes, name="killed")
    train(make, options, crash=crash, task=task)
    return train(make, options, resume=True, task=task), whole


def test_a_crash_leaves_no_trace(yolo, quick):
    resumed, whole = killed_and_whole(
        yolo, quick, (2, 1), epochs=4, optimizer="AdamW", mosaic=1.0, close_mosaic=1, warmup_epochs=1, batch=6, nbs=15
    )
    assert_same(resumed, whole)
