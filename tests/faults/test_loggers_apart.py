"""Loggers in a process of their own: the training is not touched, nothing is lost, nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from epochal import Callback
from epochal.loggers import courier
from epochal.loggers.cursor import all_cursors
from epochal.loggers.feed import Feed
from epochal.runs.stored import StoredRun
from tests.loggers.apart import Apart, Derived, read
from tests.loggers.test_base import Keep

torch = pytest.importorskip("torch")
from epochal import Loop  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


class Each(Callback):
    def __init__(self, fn):
        self.on_train_batch_end = fn


def train(*callbacks, epochs=3, batches=5):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, name="a") as run:
        run.log_params({"lr": 0.1})
        for epoch in run.epochs(epochs):
            for batch in run.batches(range(batches)):
                run.log({"train/loss": 1 / (run.step + 1), "train/acc": float(batch)})
            with run.validation():
                run.log({"val/loss": 1 / (epoch + 1)})
    return run


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return True
        return sys.platform == "linux"


def plain(rows):
    return [
        (kind, {name: value for name, value in values.items() if name != "seconds"}, epoch, batch is None, step)
        for kind, values, epoch, batch, step, _ in rows if kind not in ("params", "end")
    ]  # fmt: skip


def test_it_is_handed_what_a_live_logger_is_and_the_training_knows_what_it_knows():
    live, apart = Keep(), Apart("kept.jsonl", secret="hunter2")
    run = train(live, apart)
    *rows, end = read("kept.jsonl")
    assert plain(rows) == plain([[one.kind, one.values, *one.at, 0] for one in live.records])
    assert end == ["end", "completed", "hunter2", apart.opened]
    assert apart.opened != os.getpid()
    assert is_gone(apart.opened)
    assert run.past[-1].notes == ()
    assert b"hunter2" not in (run.dir / "run.db").read_bytes()
    assert not [one for one in threading.enumerate() if one.name.startswith("epochal ")]
    assert all_cursors(run.dir / "run.db")[0].by is None


def test_a_class_that_does_not_ask_for_a_process_gets_none():
    derived = Derived("kept.jsonl")
    train(derived)
    assert derived.opened == os.getpid()


def test_an_error_there_is_in_the_log_here_once_and_what_waits_is_named(caplog):
    run = train(Apart("kept.jsonl", "fails"))
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert "could not be written" in said
    assert "Traceback" in said
    assert "nobody listens" in said
    (note,) = run.past[-1].notes
    assert "points wait in the run's store; `epochal sync runs/a` will bring them" in note
    assert "ConnectionRefusedError: nobody listens" in note


def test_one_that_hangs_is_waited_for_within_the_limit_and_then_gone():
    apart, begun = Apart("kept.jsonl", "hangs", flush_limit=1.0), []

    def wait(run):
        until(lambda: apart.opened)
        begun[:] = [time.monotonic()]

    run = train(apart, Each(wait))
    assert time.monotonic() - begun[0] < 10
    assert is_gone(apart.opened)
    assert "points wait in the run's store" in run.past[-1].notes[0]
    assert StoredRun(run.dir).state == "finished"


def test_signals_are_the_trainings_and_a_process_that_dies_is_started_again(monkeypatch, caplog):
    monkeypatch.setattr(courier, "PAUSE", 0.02)
    apart, first = Apart("kept.jsonl"), []

    def hurt(run):
        if run.step == 3:
            until(lambda: apart.opened)
            first.append(apart.opened)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(first[0], number)
        if run.step == 8:
            until(lambda: read("kept.jsonl"))
            os.kill(first[0], signal.SIGKILL)
            until(lambda: apart.opened != first[0])

    train(apart, Each(hurt))
    *rows, end = read("kept.jsonl")
    assert end[:2] == ["end", "completed"]
    assert sorted({step for kind, _, _, batch, step, _ in rows if kind == "metrics" and batch is not None}) == [
        *range(15)
    ]
    assert caplog.text.count("it is started again") == 1


KILLED = """
import sys, time, torch
from epochal import Loop
from tests.loggers.apart import Apart
with Loop(model=torch.nn.Linear(1, 1), callbacks=[Apart("kept.jsonl")], dir="runs", name="a") as run:
    for epoch in run.epochs(10**6):
        for batch in run.batches(range(100)):
            run.log({"train/loss": float(run.step)})
            time.sleep(0.001)
        print(run.step, flush=True)
"""


def test_after_kill_9_it_delivers_the_rest_and_tells_the_truth_by_itself():
    training = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    until(lambda: training.stdout.readline() and len(read("kept.jsonl")) > 50)
    training.send_signal(signal.SIGKILL)
    training.wait()
    training.stdout.close()
    until(lambda: read("kept.jsonl")[-1][0] == "end")
    *rows, end = read("kept.jsonl")
    assert end[:2] == ["end", "crashed"]
    until(lambda: is_gone(end[3]))
    stored = list(StoredRun(Path("runs/a")).points("train/loss").steps)
    assert [step for kind, _, _, batch, step, _ in rows if batch is not None] == stored
    (cursor,) = all_cursors(Path("runs/a/run.db"))
    assert cursor.by is None
    assert Feed(Path("runs/a/run.db")).waiting(cursor) == 0
