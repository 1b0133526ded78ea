"""Which process trains a run: no second one goes on with it while the first one lives."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from epochal.core.errors import CheckpointError
from epochal.runs.folder import MARK, RunFolder
from epochal.runs.process import refuse_if_trained, started, this_process, trained_by
from epochal.runs.resume import find_resume_point

TRAINING = """
import sys
from epochal import Checkpoint, Loop

class Model:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

with Loop(model=Model(), callbacks=[Checkpoint()], dir=sys.argv[1], name="a", resume=True) as run:
    for epoch in run.epochs(int(sys.argv[2])):
        if epoch == int(sys.argv[2]) - 1:
            run.engine.saver.flush()
            print("trains", flush=True)
            sys.stdin.readline()
print("over", flush=True)
sys.stdin.readline()
"""
knows_starts = pytest.mark.skipif(started(os.getpid()) is None, reason="this system does not tell when a process began")


@contextmanager
def training(directory, epochs):
    """A process that trains `a` until it is given a line, and then lives on until it is given another."""
    command = [sys.executable, "-c", TRAINING, str(directory), str(epochs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "trains\n"
            yield process
        finally:
            process.kill()


def checkpoints(run):
    """The files of a run, but for its store: who trains writes that all the time."""
    return sorted(path for path in run.rglob("*") if not path.name.startswith("run.db"))


@knows_starts
def test_a_run_that_is_being_trained_is_not_gone_on_with(tmp_path):
    run = tmp_path / "a"
    for epochs in (2, 4):  # begun, and gone on with
        with training(tmp_path, epochs) as process:
            said = f"{run} is being trained at this moment, by process {process.pid}."
            before = checkpoints(run)
            for resume in (True, run, max((run / "checkpoints").glob("epoch-*"))):
                with pytest.raises(CheckpointError, match=said):
                    find_resume_point(tmp_path, "a", resume)
            command = [sys.executable, "-m", "epochal", "resume", str(run), "--yes"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, said in done.stderr) == (2, True)
            assert checkpoints(run) == before
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert find_resume_point(tmp_path, "a", True).folder.path == run


@knows_starts
def test_a_training_that_is_over_is_free_while_its_process_lives(tmp_path):
    with training(tmp_path, 2) as process:
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "over\n"
        assert find_resume_point(tmp_path, "a", True).folder.path == tmp_path / "a"


@knows_starts
def test_a_killed_process_that_nobody_has_waited_for_is_dead(tmp_path):
    with training(tmp_path, 2) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert trained_by(tmp_path / "a" / MARK) is None


@pytest.mark.parametrize(
    "change", [{"started": "another boot 1"}, {"started": None}, {"host": "elsewhere"}, {"pid": "7"}, {"pid": 2**30}]
)
def test_another_process_of_the_same_number_is_not_taken_for_it(tmp_path, change):
    mark = RunFolder(tmp_path, "a").make() / MARK
    parent = {"pid": os.getppid(), "started": started(os.getppid())}
    mark.write_text(json.dumps(this_process() | parent | change))
    assert trained_by(mark) is None


@knows_starts
def test_ranks_of_one_training_do_not_hinder_each_other(tmp_path, monkeypatch):
    mark = RunFolder(tmp_path, "a").make() / MARK
    mark.write_text(json.dumps(this_process() | {"pid": os.getppid(), "started": started(os.getppid())}))
    with pytest.raises(CheckpointError):
        refuse_if_trained(mark)
    monkeypatch.setenv("RANK", "1")
    refuse_if_trained(mark)


def test_a_process_goes_on_with_its_own_runs(tmp_path):
    refuse_if_trained(RunFolder(tmp_path, "a").make() / MARK)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_mark_that_tells_nothing_hinders_nobody(tmp_path, text):
    folder = RunFolder(tmp_path, "a")
    mark = folder.make() / MARK
    mark.write_text(text)
    folder.leave()
    assert (trained_by(mark), mark.read_text()) == (None, text)
