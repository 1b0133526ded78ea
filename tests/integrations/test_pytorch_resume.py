"""A plain loop goes on where it was interrupted, in the middle of an epoch too, and ends as if nothing had been."""

import pytest
import torch

from epochal import Callback, Checkpoint, Loop
from epochal.core.errors import CheckpointError
from tests.faults.loops import EPOCHS, LOOPS, differences, train

SLOW = {  # most make workers for every resume
    "NoisyWorkers", "PersistentWorkers", "OwnWorkers", "StatefulWorkers", "DataWithGenerator", "Stateful",
}  # fmt: skip

RARE = {
    "StepFirst", "Sparse", "GeneratorPerEpoch", "Replaced", "Forgetting", "Streaming", "Breaking", "WithoutOptimizer",
    "StatefulWorkers", "EverythingOwn", "DataWithGenerator",
}  # fmt: skip


class SaveEach(Callback):
    """Saves after every batch and every epoch."""

    def on_train_batch_end(self, run):
        run.save("each")

    on_fit_epoch_end = on_train_batch_end


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in RARE else kind for kind in LOOPS]
)
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


@pytest.mark.parametrize("at", [(1, 1), (1, 4), (2, 0)])
def test_gradients_that_wait_survive_the_zero_grad_that_a_script_begins_with(at, tmp_path):
    def accumulate(stop_at=None, *, resume=False):
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        data = torch.arange(15.0).reshape(5, 3) / 15
        with Loop(
            model=net, optimizer=optimizer, callbacks=[Checkpoint()], dir=tmp_path, name=str(at), resume=resume
        ) as run:
            optimizer.zero_grad()
            for epoch in run.epochs(3):
                if epoch == 1:
                    optimizer.zero_grad()
                for x in run.batches(data):
                    net(x).square().sum().backward()
                    if run.batch == 3:
                        optimizer.step()
                        optimizer.zero_grad()
                    if (epoch, run.batch) == stop_at:
                        run.stop("cut")
        return net.weight

    whole = accumulate()
    accumulate(at)
    assert torch.equal(accumulate(resume=True), whole)


def test_each_line_of_what_differs_is_indented_and_a_list_needs_no_other_loader(tmp_path, caplog):
    def once(wide, *, stop=False):
        net = torch.nn.Linear(2, wide)
        with Loop(model=net, callbacks=[Checkpoint()], dir=tmp_path, name="x", resume=not stop) as run:
            for _ in run.epochs(1):
                for _ in run.batches([1, 2, 3]):
                    if stop:
                        run.stop("cut")

    once(1, stop=True)
    with pytest.raises(CheckpointError, match=r"\n  weight: .*\n  bias: "):
        once(2)
    with caplog.at_level("INFO", "epochal"):
        once(1)
    assert "batch 1 of 3 of list(batches=3), come to by its indices." in caplog.text
