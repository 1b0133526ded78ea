"""`epochal watch`: a run in a terminal of any width, or line by line, until it ends; its state is the status."""

import io
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest
from rich.cells import cell_len
from rich.console import Console

from epochal.commands.watch import look, moments, watch
from epochal.commands.watch_view import Live
from epochal.runs.process import this_process
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun


def change(runs, query, *arguments):
    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        connection.execute(query, arguments)


def revive(runs):
    process = this_process()
    change(runs, "UPDATE sessions SET ended = NULL, state = 'running', pid = ?, host = ?, process = ?",
           process["pid"], process["host"], process["started"])  # fmt: skip


def piped(folder, pause=lambda seconds: None):
    text = io.StringIO()
    status = watch(folder, Console(file=text, force_terminal=False), pause)
    return text.getvalue().splitlines(), status


@pytest.mark.parametrize(("state", "status"), [
    ("finished", 0), ("stopped", 0), ("failed", 1), ("interrupted", 130), ("preempted", 143)
])  # fmt: skip
def test_the_status_tells_how_the_run_ended(runs, state, status):
    change(runs, "UPDATE sessions SET state = ?, stop_reason = 'enough', error = 'ValueError: no'", state)
    lines, found = piped(runs / "digits")
    assert found == status
    assert f"state={state} epoch=4/4 step=100" in lines[0]
    assert lines[1:] == ["run=digits why=enough", "run=digits why=ValueError: no"]


def test_a_metric_of_any_name_is_told(runs):
    change(runs, "UPDATE series SET name = 'val/score' WHERE name = 'val/loss'")
    assert " val/score=" in piped(runs / "digits")[0][0]


def test_a_crashed_run_has_a_status_of_its_own(runs):
    change(runs, "UPDATE sessions SET ended = NULL, state = 'running', process = 'dead'")
    assert piped(runs / "digits")[1] == 3


def test_each_change_of_a_run_that_trains_is_a_line(runs):
    revive(runs)
    events = (
        "INSERT INTO events (attempt, kind, step, epoch, time, by, text, about) VALUES (1, ?, 5, 0, 1.0, 'me', ?, '{}')"
    )
    steps = [
        lambda: None,
        lambda: change(runs, events, "rate", "halved\x1b[31m\nreally"),
        lambda: change(runs, "UPDATE newest SET epoch = 4, step = 125, time = time + 1"),
        lambda: change(runs, "UPDATE sessions SET state = 'paused'"),
        lambda: change(runs, "UPDATE sessions SET ended = 1.0, state = 'finished'"),
    ]
    lines, status = piped(runs / "digits", lambda seconds: steps.pop(0)())
    assert status == 0
    told = ["state=running epoch=4/4", "event=rate step=5 by=me text=halved [31m really", "state=running epoch=5/4",
            "state=paused", "state=finished"]  # fmt: skip
    assert len(lines) == len(told)
    assert all(line.startswith("run=digits ") and part in line for line, part in zip(lines, told, strict=True))
    assert "val/loss=0.125" in lines[0]


def test_a_training_is_followed_to_its_end(tmp_path):
    torch = pytest.importorskip("torch")
    from epochal import Loop

    def train():
        with Loop(model=torch.nn.Linear(1, 1), dir=tmp_path, name="short") as run:
            for epoch in run.epochs(2):
                for _ in run.batches(range(3)):
                    run.log({"train/loss": 1.0 / (epoch + 1)})
            run.stop("enough")

    thread = threading.Thread(target=train)
    thread.start()
    lines, status = piped(tmp_path / "short", lambda seconds: thread.join(0.05))  # its folder is not there yet
    thread.join()
    assert status == 0
    assert "state=finished epoch=2/2 step=6 train/loss=0.5" in lines[-1] or "state=stopped" in lines[-2]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(runs, width):
    change(runs, "UPDATE series SET name = 'metrics/a very long name of a metric/mAP50-95(B)' WHERE name = 'val/loss'")
    change(runs, "INSERT INTO events (attempt, kind, step, epoch, time, by, text, about)"
                 " VALUES (1, 'stop', 5, 0, 1.0, 'EarlyStopping', ?, '{}')", "why " * 100)  # fmt: skip
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    view = Live(console, "digits")
    seen = look(StoredRun(runs / "digits"), 0)
    view.events = seen.events
    lines = view.lines(seen)
    assert max(cell_len(line.plain) for line in lines) <= width
    assert lines[0].plain.startswith("digits  finished")
    assert len(lines) >= 7
    if width >= 80:
        assert any("best" in line.plain and "█" in line.plain for line in lines)


def test_a_terminal_obeys_nothing_that_a_run_says(runs):
    change(runs, "UPDATE series SET name = ? WHERE name = 'val/loss'", "\x1b]0;owned\x07loss")
    text = io.StringIO()
    assert watch(runs / "digits", Console(file=text, force_terminal=True, width=80), lambda seconds: None) == 0
    assert "\x1b]0" not in text.getvalue()
    assert "\x07" not in text.getvalue()
    assert "loss" in text.getvalue()
    assert "\x1b]0" not in "".join(piped(runs / "digits")[0])


def test_who_waits_for_a_run_is_told_so(runs):
    text = io.StringIO()
    aside = (runs / "digits").rename(runs / "aside")

    def begin(seconds):
        if not (runs / "digits").exists():
            aside.rename(runs / "digits")

    assert watch(runs / "digits", Console(file=text, force_terminal=True, width=200), begin) == 0
    assert text.getvalue().startswith("Nothing is written there yet")


def test_a_run_whose_store_is_not_there_yet_is_waited_for(runs):
    (runs / "digits").rename(runs / "later")
    waited = []

    def pause(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            shutil.copytree(runs / "later", runs / "digits")

    assert [seen.head.state for seen in moments(StoredRun(runs / "digits"), pause)] == ["finished"]
    assert len(waited) == 3


def test_a_run_that_is_deleted_meanwhile_is_said_so(runs):
    revive(runs)
    with pytest.raises(StoreError, match="was deleted"):
        piped(runs / "digits", lambda seconds: shutil.rmtree(runs / "digits", ignore_errors=True))


def test_a_broken_run_is_said_so(runs):
    (runs / "digits" / "run.db").write_text("this is no database" * 100)
    with pytest.raises(StoreError):
        piped(runs / "digits")


def test_the_command_finds_a_run_by_its_name(runs):
    ended = subprocess.run([sys.executable, "-m", "epochal", "watch", "digits"], cwd=runs.parent, text=True,
                           capture_output=True, check=False, timeout=60)  # fmt: skip
    assert ended.returncode == 0
    assert ended.stdout.startswith("run=digits state=finished epoch=4/4 step=100 ")
    assert ended.stdout.count("\n") == 1
