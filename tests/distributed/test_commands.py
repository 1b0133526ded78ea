"""A command that the first of two processes is given is obeyed by both, at the same step."""

import json
import subprocess

import pytest

from epochal.runs.stored import StoredRun
from tests import preloaded

pytest.importorskip("torch")

SCRIPT = """
import json, sys, time
from typing import Annotated
import torch
import torch.distributed as dist
from epochal import Between, Loop
from epochal.core.requests import Command
from epochal.runs.asking import ask
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun

def begun(folder):
    try:
        return bool(StoredRun(folder).sessions)
    except StoreError:
        return False

rank, place = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
net = torch.nn.Linear(1, 1)
rates, answers, own = [], [], []
with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), dir=place, name=f"rank{rank}") as run:
    @run.command("own")
    def obey(run, n: Annotated[int, Between(0, 9)]):
        own.append((n, run.step))

    for epoch in run.epochs(9):
        if epoch == 0 and rank == 0:
            told = run.engine.answer
            run.engine.answer = lambda *row: (answers.append(row), told(*row))
        for batch in run.batches([0, 1, 2]):
            if (rank, epoch, batch) == (0, 1, 1):
                for number, (name, given) in enumerate(
                    [("set_lr", {"value": 0.0123456789}), ("own", {"n": 3}), ("pause", {}), ("validate", {})]
                ):
                    run.engine.requests.add_command(Command(str(number), name, given, "ann"))
            if (rank, epoch, batch) == (0, 2, 0):  # through the file, as the page asks
                while not begun(run.dir):
                    time.sleep(0.01)
                ask(StoredRun(run.dir), "stop", {}, by="ann", id="4")
                while not run.engine.requests.commands:
                    time.sleep(0.01)
            run.optimizer.step()
            run.log({"train/loss": 1.0})
        rates.append(run.lr["pg0"])
print(json.dumps([rates, own, run.epoch, run.step, run.stop_reason, [one[:2] for one in answers]]), flush=True)
"""


def test_all_ranks_obey_what_the_first_is_told_at_the_end_of_the_same_epoch(tmp_path):
    ranks = [preloaded.start(["-c", SCRIPT, str(rank), str(tmp_path)], stdout=subprocess.PIPE) for rank in range(2)]
    first, second = (json.loads(one.communicate(timeout=250)[0].splitlines()[-1]) for one in ranks)
    assert first[:5] == second[:5]
    assert first[0] == [0.1, 0.1, 0.0123456789]
    assert first[1] == [[3, 6]]
    assert first[2:5] == [2, 9, "ann: asked for by a command"]
    assert first[5] == [
        ["0", "taken"], ["1", "taken"], ["2", "taken"], ["3", "taken"],
        ["0", "applied"], ["1", "applied"], ["2", "refused"], ["3", "refused"], ["4", "taken"], ["4", "applied"],
    ]  # fmt: skip
    (told,) = StoredRun(tmp_path / "rank0").commands()
    assert [told[name] for name in ("id", "state", "step", "epoch")] == ["4", "applied", 9, 2]
