"""kill -9: what was logged until a moment before is there, and the run is known to have crashed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import epochal.runs
from epochal.runs.stored import StoredRun

ROOT = Path(__file__).parents[2]
TRAINING = """
import os, sys, time
from tests.runs.light import light_run, train

def told(run):
    os.write(1, f"{run.step} {time.time()}\\n".encode())

train(light_run(sys.argv[1]), 10**6, body=told, pause=0.002)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(folder)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("moment", [0.05, 0.13, 0.31, 0.57])
def test_at_most_a_third_of_a_second_is_lost(moment, tmp_path):
    with start(tmp_path) as process:
        wait_for((tmp_path / "a" / "run.db").exists)
        run = StoredRun(tmp_path / "a")
        wait_for(lambda: is_readable(run))
        assert run.state == "running"
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        killed = time.time()
        logged = [line.split() for line in process.stdout.read().splitlines() if line.count(" ") == 1]
    assert epochal.runs.open(tmp_path)["a"].state == "crashed"
    points = run.points("loss")
    assert list(points.steps) == list(range(1, len(points) + 1)) == list(points.values)
    late = [float(at) for step, at in logged if int(step) > len(points)]
    assert not late or killed - min(late) <= 0.3, f"{len(late)} points of {killed - min(late):.3f} s are lost"
    with sqlite3.connect(run.file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def is_readable(run):
    try:
        return bool(run.metrics())
    except epochal.core.errors.EpochalError:  # it is being made
        return False
