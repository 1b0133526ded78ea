"""`epochal resume`: the command that was typed, in its directory, once more; its exit status and signals are its own."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests import preloaded

SCRIPT = """
import os, sys
from epochal import Callback, Checkpoint, Loop

class Model:
    value = 0
    def state_dict(self): return {"value": self.value}
    def load_state_dict(self, state): self.value = state["value"]

class Die(Callback):
    def on_train_epoch_start(self, run):
        if run.epoch == 2 and not os.environ.get("EPOCHAL_RESUME"):
            run.engine.saver.flush()
            os.kill(os.getpid(), 9)

with Loop(model=Model(), callbacks=[Checkpoint(), Die()], dir="out", name="count") as run:
    for epoch in run.epochs(4):
        run.model.value += 10 ** epoch
print("value", run.model.value, sys.argv[1:], os.environ["EPOCHAL_RESUME"])
sys.exit(7)
"""
QUICK = "import os, sys, time; print(os.getcwd(), os.environ['EPOCHAL_RESUME'], flush=True); sys.exit(3)"


@pytest.fixture(scope="module")
def once_killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume") / "there"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    done = preloaded.run(["train.py", "a b"], cwd=folder, timeout=250)
    assert done.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def killed(once_killed, tmp_path):
    """The folder of a run that was killed after two of four epochs, started by `python train.py "a b"` in `there`."""
    run = shutil.copytree(once_killed, tmp_path / "there") / "out" / "count"
    record(run, directory=str(tmp_path / "there"))
    return run


def record(run, **changes):
    """Change what a run's mark says."""
    mark = run / "run.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), **changes}))


def test_it_shows_what_it_would_do_and_does_nothing_without_a_yes(killed, epochal):
    for answer in ("n\n", ""):
        done = epochal("resume", str(killed), answer=answer)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines[0] == "goes on from  epoch-0001-step-000000, after 2 epochs, 0 steps"
        assert lines[1] == f"in            {killed.parents[1]}"
        assert lines[2] == f"runs          EPOCHAL_RESUME={killed} {sys.executable} train.py 'a b'"
        assert "value" not in done.stdout


def test_the_training_goes_on_where_it_was_killed(killed, epochal):
    done = epochal("resume", str(killed), "--yes")
    assert f"value 1111 ['a b'] {killed}" in done.stdout, done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize(("arguments", "answer"), [(["--yes"], None), ([], "y\n")])
def test_the_exit_status_is_the_commands(killed, epochal, arguments, answer):
    record(killed, command=["-c", QUICK], python="/no/such/python")  # this one is taken then
    done = epochal("resume", str(killed), *arguments, answer=answer)
    assert done.stdout.endswith(f"{killed.parents[1]} {killed}\n")
    assert done.returncode == 3


def test_a_signal_reaches_the_training(killed):
    record(killed, command=["-c", QUICK.replace("sys.exit(3)", "time.sleep(60)")])
    command = [sys.executable, "-m", "epochal", "resume", str(killed), "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.endswith(f"{killed}\n") and "runs" not in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_a_newer_run_of_the_name_is_told(killed, epochal):
    newer = shutil.copytree(killed, killed.with_name("count-2"))
    record(newer, created="9999")
    assert f"{newer} is newer" in epochal("resume", str(killed), answer="n\n").stdout
    assert "is newer" not in epochal("resume", str(newer), answer="n\n").stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": None}, "no command is recorded"),
        ({"command": "train.py"}, "no command is recorded"),
        ({"processes": 4}, "this run had 4 processes"),
        ({"directory": "/no/such"}, "the directory /no/such that it was started in is gone"),
    ],
)
def test_where_it_cannot_it_says_what_to_do_by_hand(killed, epochal, change, said):
    record(killed, **change)
    done = epochal("resume", str(killed), "--yes")
    assert done.returncode == 2
    assert said in done.stderr
    assert f"EPOCHAL_RESUME={killed}" in done.stderr


def test_a_run_without_a_checkpoint_is_started_again_by_hand(killed, epochal):
    shutil.rmtree(killed / "checkpoints")
    done = epochal("resume", str(killed), "--yes")
    assert (done.returncode, "holds no checkpoint to go on from" in done.stderr) == (2, True)


def test_a_yolo_training_that_is_done_is_not_started_again(killed, epochal):
    (killed / "ended.json").write_text("{}")
    done = epochal("resume", str(killed), "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{killed} is done: all its epochs are trained" in done.stderr


def test_a_module_is_recorded_as_a_module(tmp_path):
    (tmp_path / "tool.py").write_text(
        "import json\nfrom pathlib import Path\nfrom epochal.runs.folder import RunFolder\n"
        "print((RunFolder('r', 'x').make() / 'run.json').read_text())"
    )
    command = [sys.executable, "-W", "ignore", "-m", "tool", "--lr", "1"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert told["command"] == ["-W", "ignore", "-m", "tool", "--lr", "1"]
    assert (told["directory"], told["python"], told["processes"]) == (os.getcwd(), sys.executable, 1)


def test_a_script_through_a_pipe_has_no_command(tmp_path):
    text = "from epochal.runs.command import recorded; print(recorded()['command'])"
    done = subprocess.run([sys.executable], input=text, capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout == "None\n"
