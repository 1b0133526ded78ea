"""The disk fails a training: it goes on, says so, and loses nothing that was committed."""

import contextlib
import logging
import shutil
import subprocess

import pytest
import torch
from torch import nn

from epochal import Callback, Checkpoint, Every, Loop
from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import CheckpointError

EPOCHS = 5
WEIGHTS = 60_000  # floats, 240 kB


class Harm(Callback):
    """Does something to the disk at the end of an epoch, and remembers what the run said of it."""

    def __init__(self, epoch, deed):
        self.epoch, self.deed = epoch, deed
        self.errors = []

    def on_train_epoch_end(self, run):
        if run.epoch == self.epoch:
            run.engine.saver.flush()  # what the writer does at that moment is another test's
            self.deed()

    def on_checkpoint_error(self, run):
        self.errors.append((run.epoch, run.engine.checkpoint_error))


def delete(folder, aside):
    """Delete a folder at once, though the run writes into it at this moment."""
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def train(directory, harm, *, epochs=EPOCHS, keep_last=1, resume=False):
    torch.manual_seed(0)
    net = nn.Linear(WEIGHTS, 1, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    callbacks = [Checkpoint(Every(epochs=1), keep_last=keep_last, keep_best=0, name="Checkpoint"), harm]
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=directory, name="run", resume=resume) as run:
        for _ in run.epochs(epochs):
            for x in run.batches([torch.ones(1, WEIGHTS)]):
                optimizer.zero_grad()
                net(x).mean().backward()
                optimizer.step()
    return run


def epochs_of(where):
    return [one.manifest.epoch for one in CheckpointStore(where / "run" / "checkpoints").checkpoints]


def nothing():
    return Harm(-1, lambda: None)


def test_a_full_disk_costs_no_step_and_is_said_at_each_try(small_disk, caplog):
    ballast = small_disk / "ballast"

    def fill():
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass

    harm = Harm(2, fill)
    run = train(small_disk, harm)
    assert (run.step, run.end_reason) == (EPOCHS, "completed")
    assert [type(error) for _, error in harm.errors] == [CheckpointError] * len(harm.errors)
    assert 1 <= len(harm.errors) <= 3  # a save that finds the writer busy is the same try
    assert "No space left on device" in caplog.text
    assert epochs_of(small_disk) == [1]
    assert CheckpointStore(small_disk / "run" / "checkpoints").newest_resume_point().verify()
    ballast.unlink()
    assert train(small_disk, nothing(), resume=True).step == EPOCHS
    assert epochs_of(small_disk) == [EPOCHS - 1]


def test_surplus_checkpoints_make_room_on_a_full_disk(small_disk, caplog):
    harm = nothing()
    with caplog.at_level(logging.WARNING, logger="epochal"):
        run = train(small_disk, harm, epochs=8, keep_last=6)  # there is room for three
    assert (run.step, harm.errors) == (8, [])
    kept = epochs_of(small_disk)
    assert kept == list(range(8 - len(kept), 8))
    assert 2 <= len(kept) < 6
    assert "epoch-0000-step-000001, which only keep_last= kept, is dropped" in caplog.text
    assert all(one.verify() for one in CheckpointStore(small_disk / "run" / "checkpoints").checkpoints)


def test_what_somebody_asked_to_keep_makes_no_room(small_disk):
    store = CheckpointStore(small_disk)
    store.keep("all", Keep(last=None))
    store.keep("best", Keep(last=0, best=1))
    ask = {0: {"pinned": True}, 1: {"asked_by": ["best"], "fitness": 9.0}, 2: {"asked_by": ["all"]}}
    for number, about in ask.items():
        store.save({"model": {"w": torch.full((WEIGHTS,), float(number))}}, epoch=number, step=number, **about)
    with pytest.raises(CheckpointError, match="No space left"):
        store.save({"model": {"w": torch.rand(4 * WEIGHTS)}}, epoch=9, step=9, asked_by=["all"])
    assert [one.manifest.epoch for one in store.checkpoints] == [0, 1, 2]


def test_no_more_is_dropped_than_is_needed(small_disk):
    store = CheckpointStore(small_disk)
    store.keep("c", Keep(last=30))
    for number in range(20):  # 40 kB each
        store.save({"model": {"w": torch.rand(10_000)}}, epoch=number, step=number, asked_by=["c"])
    store.save({"model": {"w": torch.rand(70_000)}}, epoch=20, step=20, asked_by=["c"])
    assert len(store.checkpoints) >= 12
    assert store.checkpoints.last.manifest.epoch == 20


def test_a_disk_that_becomes_read_only_costs_no_step(small_disk, caplog):
    harm = Harm(2, lambda: subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True))
    run = train(small_disk, harm)
    assert (run.step, run.end_reason) == (EPOCHS, "completed")
    assert harm.errors
    assert "make the folder writable, or save elsewhere (dir=)" in caplog.text
    assert checkpoint(small_disk / "run", "last").manifest.epoch == 1
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


@pytest.mark.parametrize("what", ["run", "run/checkpoints"])
def test_a_directory_that_is_deleted_during_the_training_is_made_again(what, tmp_path, caplog):
    harm = Harm(2, lambda: delete(tmp_path / what, tmp_path / "aside"))
    run = train(tmp_path, harm, keep_last=3)
    assert (run.step, run.end_reason, harm.errors) == (EPOCHS, "completed", [])
    assert epochs_of(tmp_path) == [2, 3, 4]
    assert [one.manifest.epoch for one in run.checkpoints] == [2, 3, 4]
    assert "is gone: somebody deleted it" in caplog.text
    assert (tmp_path / "run" / "run.json").exists()


def test_a_file_in_the_way_of_the_directory_is_said(tmp_path, caplog):
    def block():
        delete(tmp_path / "run", tmp_path / "aside")
        (tmp_path / "run").touch()

    harm = Harm(2, block)
    run = train(tmp_path, harm)
    assert (run.step, run.end_reason) == (EPOCHS, "completed")
    assert harm.errors
    assert str(tmp_path / "run") in caplog.text


FILES = ["model.safetensors", "rng.safetensors", "state.json", "manifest.json", "COMMIT"]


@pytest.mark.parametrize("place", [0, 8, 0.1, 0.5, 0.9, -1])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_met_by_the_checkpoint_before(name, place, tmp_path, caplog):
    train(tmp_path, nothing(), epochs=3, keep_last=2)
    newest = checkpoint(tmp_path / "run", "last").path
    data = bytearray((newest / name).read_bytes())
    data[place if isinstance(place, int) else int(place * len(data))] ^= 1 << 4
    (newest / name).write_bytes(data)
    run = train(tmp_path, nothing(), keep_last=2, resume=True)
    assert f"{newest} is damaged, the one before it is taken" in caplog.text
    assert name in caplog.text
    assert (run.step, len(run.history)) == (EPOCHS, EPOCHS)
    assert newest.with_name(f".bad-{newest.name}").is_dir()
    assert all(one.verify() for one in run.checkpoints)
