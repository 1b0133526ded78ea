"""Loops of Hugging Face Accelerate under ``Loop``: wrapped optimizers, true steps, exact resume."""

import os
import runpy
import signal

import pytest

from epochal import Callback, Loop
from epochal.integrations.torch_optimizer import inner_optimizer
from tests.faults.forks import ended, forked
from tools.house import ROOT

pytest.importorskip("accelerate")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """A child that is forked has none of its parent's other threads, and would wait for them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(ROOT / "examples" / "accelerate_loop.py"))["main"]


class KilledAt(Callback):
    """Ends the process as kill -9 does, behind a batch."""

    def __init__(self, epoch, batch):
        self.when = epoch, batch

    def on_train_batch_start(self, run):
        if (run.epoch, run.batch) == self.when:
            run.engine.saver.flush()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("epoch", "batch"), [(1, 5), (2, 0)])  # inside a group of accumulated batches; an epoch's end
def test_the_example_counts_true_steps_and_goes_on_exactly(main, epoch, batch, tmp_path, monkeypatch):
    import torch

    whole, run = main(3)
    assert (run.step, len(run.history)) == (15, 3)  # 10 batches an epoch, two to a step
    assert all(row["train/loss"] > 0 for row in run.history)

    (tmp_path / "killed").mkdir()
    monkeypatch.chdir(tmp_path / "killed")
    assert ended(forked(lambda: main(3, callbacks=[KilledAt(epoch, batch)]))) == -signal.SIGKILL
    resumed, again = main(3, resume=True)
    assert again.resumed_from is not None
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert [dict(row) for row in again.history] == [dict(row) for row in run.history]


def test_rates_and_gradients_reach_the_optimizer_that_steps(tmp_path):
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator()
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=1.0))
    with Loop(model=net, optimizer=optimizer, dir=tmp_path) as run:
        for _ in run.epochs(1):
            for x in run.batches([torch.ones(1)] * 2):
                run.set_lr(0.25)
                accelerator.backward(-net(x).sum())
                optimizer.step()
                optimizer.zero_grad()
    assert run.optimizer is inner_optimizer(optimizer) is optimizer.optimizer
    assert (run.step, net.weight.item()) == (2, 0.5)
    assert optimizer.param_groups[0]["lr"] == 1.0
