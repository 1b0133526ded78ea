"""A signal that one process of a training got ends all of them, at the same place."""

import signal
import subprocess
import tempfile

import pytest

from epochal.distributed.agree import highest
from tests import preloaded

SCRIPT = """
import os, signal, sys
import torch
import torch.distributed as dist
from epochal import Loop

rank, place = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
net = torch.nn.Linear(1, 1)
with Loop(model=net, dir=place, name=f"rank{rank}") as run:
    run.add_callback("teardown", lambda run: print(run.end_reason, run.epoch, run.step, flush=True))
    for epoch in run.epochs(5):
        for batch in run.batches([0, 1, 2]):
            if (rank, epoch, batch) == (1, 1, 1):
                os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


@pytest.mark.parametrize("name", ["SIGTERM"])
def test_one_gets_the_signal_and_all_leave_at_the_end_of_the_epoch(name):
    with tempfile.TemporaryDirectory() as place:
        ranks = [preloaded.start(["-c", SCRIPT, str(rank), place, name], stdout=subprocess.PIPE) for rank in range(2)]
        told = [one.communicate(timeout=200)[0] for one in ranks]
    assert [one.returncode for one in ranks] == [128 + signal.SIGTERM] * 2
    assert told == ["preempted 1 6\n"] * 2


def test_alone_a_number_is_the_highest():
    assert highest(15) == 15
