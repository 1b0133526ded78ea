"""Disks that are full, hang or refuse, files that are deleted, locked or torn: no training ends or waits for them."""

import contextlib
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import epochal.runs
from epochal.runs import book, writer
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun
from tests.runs.light import light_run, train

ROOT = Path(__file__).parents[2]


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def is_written(run):
    """Let everything that was logged be in the file."""
    recorder = run.recorder.writer
    until(lambda: not recorder.entries and recorder.book.empty and recorder.file.connection is not None)


def fill(path):
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def noise(step):
    return {f"loss{number}": math.sin(step * number) for number in range(20)}


def test_a_disk_that_is_full_for_a_while_costs_nothing(small_disk, caplog):
    filler = small_disk / "filler"

    def body(run):
        if run.step == 200:
            is_written(run)
            fill(filler)
        if run.step == 600:
            until(lambda: run.recorder.writer.failures)
            filler.unlink()

    run = light_run(small_disk)
    train(run, 700, body=body, values=noise)
    stored = StoredRun(small_disk / "a")
    assert stored.state == "finished"
    assert list(stored.points("loss1").values) == [math.sin(step) for step in range(1, 701)]
    assert stored.table("losses") == []
    assert run.past[-1].notes == ()
    assert caplog.text.count("could not be written") == caplog.text.count("is written again") == 1


FULL = """
import resource, sys
from epochal.runs import book
from tests.faults.test_store_disk import noise
from tests.runs.light import light_run, train

book.MOST_POINTS = 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
run = light_run(sys.argv[1])
spent = train(run, 3000, values=noise, pause=0.0002)
print("STEPS", run.step, run.end_reason)
print("NOTES", run.past[-1].notes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_disk_that_stays_full_keeps_what_it_could_take_and_the_loss_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "STEPS 3000 completed" in done.stdout
    assert done.stderr.count("could not be written") == 1
    assert "points were left out" in done.stdout
    assert "what waited was not written" in done.stdout
    points = StoredRun(tmp_path / "a").points("loss1")
    assert len(points) > 10
    assert list(points.values) == [math.sin(step) for step in points.steps]


def test_a_folder_that_is_deleted_is_there_again_with_everything(tmp_path, caplog):
    def body(run):
        if run.step in (50, 150):
            is_written(run)
            shutil.rmtree(tmp_path / "a")

    train(light_run(tmp_path), 200, body=body)
    stored = epochal.runs.open(tmp_path)["a"]
    assert stored.state == "finished"
    assert list(stored.points("loss").values) == list(range(1, 201))
    assert stored.newest()["loss"]["count"] == 200
    assert "is there again, with all of it" in caplog.text
    assert (tmp_path / "a" / "run.json").exists()


def test_a_file_that_somebody_locks_for_long_holds_nobody_up(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 1e9)
    times = {}
    other = None

    def body(run):
        nonlocal other
        if run.step == 50:
            is_written(run)
            other = sqlite3.connect(tmp_path / "a" / "run.db", isolation_level=None, check_same_thread=False)
            other.execute("BEGIN EXCLUSIVE")
            times["locked"] = time.perf_counter()
        if run.step == 500:
            times["went on"] = time.perf_counter()
            threading.Timer(1.5, other.close).start()  # when the training is over

    run = light_run(tmp_path)
    train(run, 500, body=body)
    assert times["went on"] - times["locked"] < 1.0
    stored = StoredRun(tmp_path / "a")
    assert (stored.state, list(stored.points("loss").values)) == ("finished", list(range(1, 501)))
    assert run.past[-1].notes == ()
    assert "could not be written" not in caplog.text


@pytest.mark.parametrize("how", ["not a database", "torn inside", "another version"])
def test_a_file_that_cannot_be_used_is_set_aside(how, tmp_path, caplog):
    train(light_run(tmp_path), 3000, values=noise)
    file = tmp_path / "a" / "run.db"
    if how == "another version":
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA user_version = 99")
        wanted = "tables of version 99.*update epochal"
    else:
        data = bytearray(file.read_bytes())
        data[100 : len(data) if how == "torn inside" else 4000] = (
            os.urandom(len(data[100:])) if how == "torn inside" else b"x" * 3900
        )
        file.write_bytes(b"no database at all" + data if how == "not a database" else data)
        wanted = "cannot be read"
    with pytest.raises(StoreError, match=wanted):
        StoredRun(tmp_path / "a").metrics()
    run = light_run(tmp_path, fresh=False)
    train(run, 100)
    stored = StoredRun(tmp_path / "a")
    assert (stored.state, list(stored.points("loss").values)) == ("finished", list(range(1, 101)))
    assert [path.name for path in (tmp_path / "a").glob("*unusable*")] == ["run.unusable-1.db"]
    assert "cannot be used" in caplog.text


def test_a_folder_in_which_nothing_can_be_written_is_told_once(tmp_path, caplog):
    (tmp_path / "runs").write_text("a file stands where the folder should be")
    run = light_run(tmp_path / "runs")
    train(run, 100)
    assert run.end_reason == "completed"
    assert "what waited was not written; the last error was CheckpointError" in run.past[-1].notes[0]
    assert caplog.text.count("could not be written") == 1


def test_a_disk_that_hangs_neither_stops_the_training_nor_fills_the_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(book, "MOST_POINTS", 5_000)
    monkeypatch.setattr(writer, "CROWD", 500)
    monkeypatch.setattr("epochal.runs.recorder.CROWD", 500)
    monkeypatch.setattr("epochal.runs.recorder.LIMIT", 0.2)
    freed, most = threading.Event(), 0
    place = writer.StoreFile.opened

    def hang(self):
        freed.wait()
        return place(self)

    monkeypatch.setattr(writer.StoreFile, "opened", hang)

    def body(run):
        nonlocal most
        recorder = run.recorder.writer
        most = max(most, len(recorder.entries))
        assert sum(tail.lacking for tail in recorder.book.all_tails()) <= 16_000  # and what came meanwhile

    run = light_run(tmp_path)
    train(run, 5_000, body=body, values=noise)
    assert run.end_reason == "completed"
    assert most <= 2_000  # it is taken over as soon as nobody else is at it
    assert "were left out; what waited was not written within 0.2 s" in run.past[-1].notes[0]
    freed.set()
