"""Commands from another process: through the run's file to the training, and back with what became of them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Annotated

import pytest

from epochal import Loop
from epochal.cli import main
from epochal.commands.control import control
from epochal.core.declared import Between
from epochal.core.requests import Command
from epochal.runs.asking import Refused, answer, ask
from epochal.runs.commands import outcome, queue, take_queued
from epochal.runs.schema import StoreError, open_to_tell
from epochal.runs.stored import StoredRun

torch = pytest.importorskip("torch")
STEP = 0.002  # seconds


class Training:
    """A training in a loop of one's own, in the main thread; ``ask`` is called in another as soon as it has a file."""

    def __init__(self, folder, act, *, epochs=10_000, batches=10, callbacks=(), control=True, declare=None):
        self.folder, self.act, self.control = folder / "run", act, control
        self.epochs, self.batches, self.callbacks, self.declare = epochs, batches, callbacks, declare
        self.result = self.error = None

    def run(self):
        net = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        thread = threading.Thread(target=self.desk, daemon=True)
        loop = Loop(
            model=net, optimizer=optimizer, callbacks=self.callbacks, dir=self.folder.parent, name="run",
            control=self.control,
        )  # fmt: skip
        with loop as run:
            self.training = run
            if self.declare is not None:
                self.declare(run)
            for _ in run.epochs(self.epochs):
                for _ in run.batches([0] * self.batches):
                    optimizer.step()
                    run.log({"train/loss": 1.0})
                    time.sleep(STEP)
                    if not thread.ident:
                        thread.start()
                with run.validation():
                    run.log({"val/loss": 1.0})
        thread.join(20)
        if self.error is not None:
            raise self.error
        return run

    def desk(self):
        try:
            until(lambda: begun(self.folder))
            self.result = self.act(self)
        except BaseException as error:
            self.error = error
        finally:
            self.training.stop("the test is over")
            self.training.proceed()

    def say(self, name, wait=10.0, **arguments):
        return control(self.folder, name, arguments, wait=wait, as_json=True)


def until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def begun(folder):
    try:
        return bool(StoredRun(folder).sessions)
    except StoreError:  # not yet
        return False


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_each_command_reaches_the_training_and_its_answer_comes_back(tmp_path, capsys):
    def declare(run):
        @run.validator
        def evaluate(run):
            run.log({"val/loss": 0.5})

        @run.command("drop")
        def drop(run, p: Annotated[float, Between(0, 1)] = 0.5):
            return f"p is {p}"

    def act(training):
        status = [
            training.say("set_lr", value=0.5), training.say("scale_lr", factor=0.5), training.say("save"),
            training.say("validate"), training.say("drop", p=0.25), training.say("pause"),
        ]  # fmt: skip
        until(lambda: StoredRun(training.folder).state == "paused")
        step = training.training.step
        status += [training.say("set_lr", value=None), training.say("continue"), training.say("stop")]
        return status, step

    training = Training(tmp_path, act, declare=declare)
    run = training.run()
    told = rows(capsys)
    assert training.result[0] == [0] * 9
    assert [row["state"] for row in told] == ["applied"] * 9
    assert told[0]["answer"] == "the learning rate is 0.5 from the next step on"
    assert told[1]["answer"] == "the learning rate is 0.25 from the next step on"
    assert told[3]["answer"] == "val/loss 0.5"
    assert told[4]["answer"] == "p is 0.25"
    assert [row["step"] for row in told[5:8]] == [training.result[1]] * 3
    assert run.end_reason == "stopped"
    assert "(terminal)" in run.stop_reason
    assert [one.manifest.pinned for one in run.checkpoints].count(True) == 1
    stored = StoredRun(training.folder)
    assert [row["state"] for row in stored.commands()] == ["applied"] * 9
    kinds = [row["kind"] for row in stored.events() if "command" in row["about"]]
    assert kinds == ["rate", "rate", "save", "validation", "command", "command", "rate", "command", "stop"]
    assert stored.state == "stopped"


def test_what_cannot_be_is_refused_at_once_and_nothing_is_queued(tmp_path, capsys):
    def act(training):
        return [
            training.say("stopp"), training.say("scale_lr", factor=-1.0), training.say("validate"),
            training.say("set_lr", value=float("nan")), training.say("set_lr", value=1.0, group="none"),
        ]  # fmt: skip

    training = Training(tmp_path, act)
    training.run()
    assert training.result == [1] * 5
    told = [row["answer"] for row in rows(capsys)]
    assert told[0] == "there is no command 'stopp'; did you mean stop?"
    assert told[1] == "factor must be a number above 0, at most 1000, not -1.0"
    assert "@run.validator" in told[2]
    assert "not nan" in told[3]
    assert "there is no parameter group 'none'" in told[4]  # only the training knows those
    assert [row["name"] for row in StoredRun(training.folder).commands()] == ["set_lr"]


def test_one_that_was_started_with_control_false_takes_no_commands(tmp_path, capsys):
    training = Training(tmp_path, lambda training: training.say("stop"), control=False)
    training.run()
    assert training.result == 1
    assert "control=False" in rows(capsys)[0]["answer"]


def test_a_training_that_is_over_is_refused_with_how_it_ended(tmp_path, capsys):
    training = Training(tmp_path, lambda training: None)
    training.run()
    assert training.say("pause") == 1
    assert rows(capsys)[0]["answer"] == "run is not training now: it is stopped"


def test_a_stop_with_the_epoch_is_taken_and_applied_at_its_end(tmp_path, capsys):
    def act(training):
        first = training.say("stop", when="epoch", wait=0.2)
        row = rows_of(training)[0]
        if first == 3:
            assert row["state"] in ("taken", "applied")
        return answer(StoredRun(training.folder), row["id"], seconds=10)

    training = Training(tmp_path, act, batches=300)
    run = training.run()
    assert training.result["state"] == "applied"
    assert run.step % 300 == 0


def rows_of(training):
    return StoredRun(training.folder).commands()


def test_ten_commands_at_once_and_one_of_them_twice(tmp_path):
    def act(training):
        stored = StoredRun(training.folder)
        ids = [ask(stored, "scale_lr", {"factor": 0.5}, by="t") for _ in range(10)]
        ask(stored, "scale_lr", {"factor": 0.5}, by="t", id=ids[0])
        return [answer(stored, one, seconds=10)["state"] for one in ids]

    training = Training(tmp_path, act)
    run = training.run()
    assert training.result == ["applied"] * 10
    assert run.lr["pg0"] == pytest.approx(0.1 * 0.5**10)


def test_an_expired_command_is_void(tmp_path):
    def act(training):
        with closing(open_to_tell(training.folder / "run.db")) as connection:
            queue(connection, Command("old", "stop", {}, "t"), lifetime=-1.0)
            until(lambda: outcome(connection, "old")["state"] != "queued")
            return outcome(connection, "old")

    training = Training(tmp_path, act)
    run = training.run()
    assert training.result["state"] == "expired"
    assert "t: asked" not in run.stop_reason


def test_what_somebody_wrote_into_the_table_by_hand_does_no_harm(tmp_path):
    hostile = [
        ("1", "stop", "no json"), ("2", "stop", "[1]"), ("3", "set_lr", '{"value": NaN}'), ("4", "<script>", "{}"),
        ("5", "set_lr", '{"value": 1e999}'), ("6", "stop", "[" * 100_000), ("7", "stop", '{"when": {"a": 1}}'),
        ("8", "x" * 10_000, "{}"), ("9", "pause", None),
    ]  # fmt: skip

    def act(training):
        with closing(open_to_tell(training.folder / "run.db")) as connection:
            for one, name, given in hostile:
                connection.execute(
                    "INSERT INTO commands (id, name, arguments, by, asked, expires, state) VALUES (?, ?, ?, 't', 0, 1e12, 'queued')",
                    (one, name, given or "null"),
                )
            until(lambda: all(outcome(connection, one)["state"] == "refused" for one, *_ in hostile))
            return [outcome(connection, one)["answer"] for one, *_ in hostile]

    training = Training(tmp_path, act)
    run = training.run()
    assert run.stop_reason == "user: the test is over"
    assert max(map(len, training.result)) < 300


def test_a_file_that_somebody_holds_is_told_in_one_line(tmp_path, capsys):
    def own(run):
        run.command("long")(lambda run: time.sleep(0.5))

    def act(training):
        stored = StoredRun(training.folder)
        busy, one = ask(stored, "long", {}, by="t"), ask(stored, "save", {}, by="t")
        with closing(open_to_tell(stored.file)) as connection:
            until(lambda: outcome(connection, busy)["state"] == "taken")
            connection.execute("BEGIN IMMEDIATE")
            found = answer(stored, one, seconds=0.1)
            connection.execute("ROLLBACK")
        return found, training.say("save")

    training = Training(tmp_path, act, declare=own)
    training.run()
    found, after = training.result
    assert (found["name"], found["state"] in ("queued", "taken")) == ("save", True)
    assert (
        found["answer"] == f"{tmp_path / 'run' / 'run.db'}: database is locked; it may still be done, within a minute"
    )
    assert after == 0


def test_a_queue_that_cannot_be_read_stays_for_the_next_look(tmp_path):
    training = Training(tmp_path, lambda training: None)
    training.run()
    with closing(open_to_tell(training.folder / "run.db")) as connection:
        queue(connection, Command("1", "save", {}, "t"))
        assert take_queued(connection) == [Command("1", "save", {}, "t")]
        assert take_queued(connection) == []
        assert outcome(connection, "1")["state"] == "taken"
        assert outcome(connection, "nobody")["state"] == "expired"


CHILD = """
import sys, time, torch
from epochal import Loop
net = torch.nn.Linear(1, 1)
with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), dir=sys.argv[1], name="run") as run:
    for _ in run.epochs(100000):
        for _ in run.batches([0] * 10):
            run.optimizer.step()
            run.log({"train/loss": 1.0})
            time.sleep(0.002)
"""


def epochal(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "epochal", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def freeze(child, stored):
    """Stop a process where it does not hold the lock of its run's file."""
    with closing(open_to_tell(stored.file)) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
        while True:
            child.send_signal(signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                child.send_signal(signal.SIGCONT)
            else:
                connection.execute("ROLLBACK")
                return


def test_commands_that_nobody_takes_are_void_and_kill_9_in_a_pause_leaves_a_crashed_run(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)])
    folder = tmp_path / "run"
    try:
        until(lambda: begun(folder), 60)
        stored = StoredRun(folder)
        freeze(child, stored)
        row = answer(stored, ask(stored, "stop", {}, by="t"), seconds=0.3)
        assert (row["state"], row["answer"]) == ("expired", "the training did not take it within 0.3 s")
        child.send_signal(signal.SIGCONT)
        with closing(open_to_tell(stored.file)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused, match=r"run cannot be told now: .*run\.db: database is locked; try again"):
                ask(stored, "stop", {}, by="t")
        asked = epochal("pause", folder)  # it has not stopped
        assert (asked.returncode, asked.stdout.partition(" at ")[0]) == (0, "pause: applied")
        until(lambda: stored.state == "paused")
        freeze(child, stored)
        waiting = ask(stored, "continue", {}, by="t")
    finally:
        child.kill()
        child.wait()
    assert stored.state == "crashed"
    row = answer(stored, waiting, seconds=5)
    assert (row["state"], row["answer"]) == ("expired", "the training is crashed")
    with pytest.raises(Refused, match="it is crashed"):
        ask(stored, "continue", {}, by="t")
    again = epochal("continue", folder, "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["answer"] == "run is not training now: it is crashed"


def test_wrong_words_are_one_line_and_exit_status_2(tmp_path, monkeypatch, capsys):
    Training(tmp_path, lambda training: None).run()
    for words, said in (
        (["set-lr", str(tmp_path / "run"), "fast"], "a learning rate is a number, or schedule, not 'fast'"),
        (["do", str(tmp_path / "run"), "x", "p"], "'p': an argument is key=value"),
        (["pause", str(tmp_path / "nobody")], "there is no run"),
        (["save", str(tmp_path / "run"), "--wait", "-1"], "greater than or equal to 0"),
    ):
        monkeypatch.setattr(sys, "argv", ["epochal", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert said in capsys.readouterr().err


def test_a_number_below_zero_is_no_option(tmp_path, monkeypatch, capsys):
    Training(tmp_path, lambda training: None).run()
    monkeypatch.setattr(sys, "argv", ["epochal", "scale-lr", str(tmp_path / "run"), "-1"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "scale_lr: refused:" in capsys.readouterr().out
