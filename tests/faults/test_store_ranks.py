"""Eight processes write eight files of one run while another one reads all of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import epochal.runs
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun

ROOT = Path(__file__).parents[2]
RANKS = 8
TRAINING = """
import sys, time
from tests.runs.light import light_run, train

rank, seconds = int(sys.argv[2]), float(sys.argv[3])
run, until = light_run(sys.argv[1], rank=rank), time.monotonic() + seconds

def body(run):
    if time.monotonic() > until:
        run.stop("that was long enough")

values = lambda step: {f"loss{number}": step + rank / 10 for number in range(5)}
train(run, 10**9, body=body, values=values, pause=0.01)
print(run.step, run.past[-1].notes)
"""


def watch(folder, processes):
    """Read whatever is there until all are done; return how often, and every error but that a file is not there yet."""
    reads, errors = 0, []
    while any(process.poll() is None for process in processes):
        for rank in range(RANKS):
            run = StoredRun(folder, rank=rank)
            try:
                for name in [name for name in run.metrics() if name.startswith("loss")]:
                    points = run.points(name)
                    assert list(points.steps) == list(range(1, len(points) + 1))
                    assert len(run.ranges(name, most=100)) <= 100
                    reads += 1
            except StoreError as error:
                if "there is no run store" not in str(error):
                    errors.append(error)
        time.sleep(0.1)
    return reads, errors


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_eight_ranks_and_a_reader_make_no_errors(seconds, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(tmp_path), str(rank), str(seconds)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    reads, errors = watch(tmp_path / "a", processes)
    said = [process.communicate(timeout=60) for process in processes]
    assert errors == []
    assert reads > 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for rank, (out, err) in enumerate(said):
        steps, _, notes = out.strip().partition(" ")
        assert (notes, err) == ("()", "")
        run = StoredRun(tmp_path / "a", rank=rank)
        assert run.state == "stopped"
        for number in range(5):
            points = run.points(f"loss{number}")
            assert list(points.steps) == list(range(1, int(steps) + 1))
            assert set(map(round, (10 * (value % 1) for value in points.values))) <= {rank, 10 * (rank == 0)}
    assert len(epochal.runs.open(tmp_path)) == 1
