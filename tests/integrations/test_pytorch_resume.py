"""A plain loop goes on where it was interrupted, in the middle of an epoch too, and ends as if nothing had been."""

import pytest

from epochal import Callback
from tests.faults.loops import EPOCHS, LOOPS, differences, train

SLOW = {"NoisyWorkers", "PersistentWorkers", "OwnWorkers", "StatefulWorkers"}  # workers are made for every resume


class SaveEach(Callback):
    """Saves after every batch and every epoch."""

    def on_train_batch_end(self, run):
        run.save("each")

    on_fit_epoch_end = on_train_batch_end


@pytest.mark.parametrize("kind", LOOPS)
def test_resumed_after_any_batch_the_rest_is_the_same_to_the_bit(kind, tmp_path):
    alone = train(kind, tmp_path / "alone")
    whole = train(kind, tmp_path, callbacks=[SaveEach()])
    assert whole.trace == alone.trace  # saving changes nothing
    points = list(whole.run.checkpoints)
    assert all(one.manifest.resume_point for one in points)
    assert len(points) >= 12
    for saved in points[:: -5 if kind in SLOW else -3]:
        again = train(kind, tmp_path, seed=7, resume=saved.path)
        where = f"from {saved.manifest.name}"
        assert again.trace == alone.trace[len(alone.trace) - len(again.trace) :], where
        assert len(batches(again)) == len(batches(alone)) - done(saved, alone), where
        assert differences(alone.script.state(), again.script.state()) == [], where
        assert again.run.history == alone.run.history, where
        assert len(again.run.history) == EPOCHS


def batches(trained):
    """Return the batches that a training saw the end of, as (epoch, batch)."""
    return [(one.epoch, one.batch) for one in trained.trace if one.event == "on_train_batch_end"]


def done(saved, trained):
    """Return how many batches of a training a checkpoint is after."""
    manifest = saved.manifest
    last = (manifest.epoch, 10**6 if manifest.batch is None else manifest.batch)
    return sum(one <= last for one in batches(trained))
