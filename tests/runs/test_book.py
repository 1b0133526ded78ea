"""Whatever is written, fails, is taken back, thinned or deleted: what is read is what was logged."""

import math
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epochal.runs import book, tail
from epochal.runs.book import Row
from epochal.runs.schema import StoreError
from epochal.runs.store_file import StoreFile
from epochal.runs.stored import StoredRun
from epochal.runs.writer import StoreWriter

NAMES = ("a", "b", "a\ud800")  # the last cannot be written as UTF-8
SHOWN = {"a\ud800": "a\\ud800"}


def session():
    return {
        "started": 0.0, "pid": 1, "host": "nowhere", "process": "never",
        "about": "{}", "callbacks": "[]", "commands": "[]",
    }  # fmt: skip


def writer_in(folder):
    def place():
        folder.mkdir(exist_ok=True)
        return folder / "run.db"

    return StoreWriter(place, session, None)


def same(one, other):
    return one == other or (one != one and other != other)


class Recording(RuleBasedStateMachine):
    """A run's file beside plain lists."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.run = StoredRun(self.place / "run")
        self.written, self.waiting = [], []  # (attempt, name, step, value, epoch), in the file and not yet
        self.begun, self.to_begin = [], []  # (attempt, from_step, from_epoch, whether it begins with that epoch)
        self.ended, self.to_end = set(), set()  # (epoch, last_step)
        self.step = self.attempt = self.epoch = self.epoch_began = 0
        self.time = 0.0
        self.writer = None

    @initialize()
    def begin(self):
        self.writer = writer_in(self.run.path)
        self.start_attempt(0, 0)

    def start_attempt(self, step, epoch):
        self.writer.begin_attempt(step, epoch)
        self.attempt = max([one[0] for one in self.begun + self.to_begin], default=0) + 1
        whole = step == 0 or (epoch - 1, step) in self.ended | self.to_end
        self.to_begin.append((self.attempt, step, epoch, whole))
        self.step, self.epoch, self.epoch_began = step, epoch, step

    @rule(name=st.sampled_from(NAMES), values=st.lists(st.floats(width=32), min_size=1, max_size=25))
    def log(self, name, values):
        for value in values:
            self.step += 1
            self.time += 0.5
            self.note(name, value)

    def note(self, name, value):
        self.writer.put("batch", {name: value}, self.step, self.epoch, self.time)
        self.waiting.append((self.attempt, name, self.step, value, self.epoch))

    @rule(name=st.sampled_from(NAMES), value=st.floats(width=32))
    def log_without_a_step(self, name, value):
        """As in the batches of an accumulation, and in a trainer whose epochs share a step."""
        self.note(name, value)

    @rule()
    def end_epoch(self):
        row = {"attempt": self.writer.attempt, "epoch": self.epoch, "first_step": self.epoch_began,
               "last_step": self.step, "started": 0.0, "ended": 1.0}  # fmt: skip
        self.writer.entries.append(Row("epochs", row, replaces=True))
        self.to_end.add((self.epoch, self.step))
        self.epoch, self.epoch_began = self.epoch + 1, self.step

    @rule()
    def flush(self):
        assert self.writer.flush()
        self.is_written()

    def is_written(self):
        if self.writer.file.connection is None:
            return
        self.written, self.waiting = self.written + self.waiting, []
        self.begun, self.to_begin = self.begun + self.to_begin, []
        self.ended, self.to_end = self.ended | self.to_end, set()

    @precondition(lambda self: self.writer.file.connection is not None)
    @rule()
    def fail(self):
        """The disk is full: SQLite itself says so."""
        connection = self.writer.file.connection
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        if self.writer.flush():
            self.is_written()
        if self.writer.file.connection is not None:
            connection.execute("PRAGMA max_page_count = 1000000")

    @rule(back=st.integers(0, 40))
    def roll_back(self, back):
        """Go back into the epoch, as to a save inside it."""
        self.start_attempt(max(self.step - back, self.epoch_began), self.epoch)

    @precondition(lambda self: self.ended | self.to_end)
    @rule(which=st.integers(0, 10**6))
    def roll_back_to_an_epoch(self, which):
        known = sorted(self.ended | self.to_end)
        epoch, step = known[which % len(known)]
        self.start_attempt(step, epoch + 1)

    @precondition(lambda self: self.begun)
    @rule()
    def crash(self):
        """Everything that waits is gone with the process; another one goes on."""
        self.writer.file.shut()
        self.waiting, self.to_begin, self.to_end = [], [], set()
        self.writer = writer_in(self.run.path)
        if self.ended:
            epoch, step = max(self.ended)
            self.start_attempt(step, epoch + 1)
        else:
            self.start_attempt(0, 0)

    @precondition(lambda self: self.writer.file.connection is not None)
    @rule()
    def delete(self):
        shutil.rmtree(self.run.path)
        self.flush()
        self.writer.next_beat = 0.0
        assert self.writer.flush()

    @precondition(lambda self: self.begun)
    @rule(most=st.integers(1, 50))
    def look(self, most):
        """Read everything, and compare."""
        for name in {one[1] for one in self.written}:
            shown = SHOWN.get(name, name)
            for number, *_ in self.begun:
                self.compare(self.run.points(shown, attempt=number), self.of(name, number))
            left = self.left(name)
            self.compare(self.run.points(shown), left)
            self.compare_newest(shown, left)
            self.compare_ranges(shown, left, most)

    def left(self, name):
        """Return what counts of a name: play the attempts one after the other, each taking back what it repeats."""
        kept = []
        for number, begin, epoch, whole in self.begun:
            if whole:
                kept = [one for one in kept if (one[2], one[4]) < (begin, epoch)]
            else:
                kept = [one for one in kept if one[2] <= begin]
            own = [one for one in self.written if one[:2] == (number, name)]
            if not whole and any(one[2] == begin for one in own):  # measured again, where it began
                kept = [one for one in kept if one[2] < begin]
            kept += own
        return [(step, value) for _, _, step, value, _ in kept]

    def of(self, name, number):
        return [(step, value) for attempt, one, step, value, _ in self.written if (attempt, one) == (number, name)]

    def compare(self, points, wanted):
        assert list(points.steps) == [step for step, _ in wanted]
        assert all(map(same, points.values, [value for _, value in wanted]))

    def compare_newest(self, name, wanted):
        newest = self.run.newest().get(name)
        finite = [value for _, value in wanted if math.isfinite(value)]
        if not wanted:
            assert newest is None
            return
        assert (newest["step"], newest["count"]) == (wanted[-1][0], len(wanted))
        assert newest["low"] == min(finite, default=None)
        assert newest["high"] == max(finite, default=None)
        assert not finite or (newest["high_step"], newest["high"]) in wanted

    def compare_ranges(self, name, wanted, most):
        found = self.run.ranges(name, most=most)
        assert len(found) <= most
        finite = [value for _, value in wanted if math.isfinite(value)]
        if len(wanted) > most:
            lows, highs = [one.low for one in found], [one.high for one in found]
            assert same(min((low for low in lows if low == low), default=math.nan), min(finite, default=math.nan))
            assert same(max((high for high in highs if high == high), default=math.nan), max(finite, default=math.nan))
        else:
            assert [one.step for one in found] == [step for step, _ in wanted]
        assert [one.step for one in found] == sorted(one.step for one in found)

    @invariant()
    def nothing_is_lost(self):
        assert self.writer is None or self.writer.lost == {}

    def teardown(self):
        if self.writer is not None:
            self.flush()
            if self.begun:
                self.look(17)
            self.writer.file.shut()
        shutil.rmtree(self.place)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Chunks are sealed and joined often."""
    monkeypatch.setattr(tail, "SEALED", 32)
    monkeypatch.setattr(tail, "ROWS", 3)


Recording.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestRecording = Recording.TestCase


def test_more_than_memory_may_hold_is_thinned_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "MOST_POINTS", 1000)
    writer = writer_in(tmp_path / "no" / "such" / "folder")  # it cannot be made
    writer.begin_attempt(0, 0)
    for step in range(20_000):
        value = math.nan if step == 777 else 1e9 if step == 5_555 else -1e9 if step == 11_111 else step % 10
        writer.put("batch", {"a": value}, step, 0, step / 2)
        if step % 500 == 0:
            assert not writer.flush()
            assert sum(one.lacking for one in writer.book.all_tails()) <= 1000
    (tmp_path / "no" / "such").mkdir(parents=True)
    assert writer.flush()
    writer.file.shut()
    points = StoredRun(tmp_path / "no" / "such" / "folder").points("a")
    finite = [value for value in points.values if math.isfinite(value)]
    assert (min(finite), max(finite)) == (-1e9, 1e9)
    assert points.steps[list(map(math.isnan, points.values)).index(True)] == 777
    assert writer.lost["points"] + len(points) == 20_000
    with sqlite3.connect(tmp_path / "no" / "such" / "folder" / "run.db") as connection:
        assert connection.execute("SELECT sum(count) FROM losses").fetchone() == (writer.lost["points"],)


def test_rows_of_other_tables_are_bounded_but_no_attempt_is_left_out(monkeypatch):
    monkeypatch.setattr(book, "MOST_ROWS", 5)
    full = book.Book()
    for number in range(3):
        full.begin_attempt(step=number, epoch=0, time=0.0)
        full.add(book.Row("events", {"attempt": 0, "kind": "stop", "text": ""}))
    assert [row.table for row in full.rows].count("attempts") == 3
    assert full.lost == {"stop": 1}


def recorded(folder, *moments):
    """Write what happened: ("go", step, epoch), ("log", step, epoch, value) or ("end", epoch, step); return the run."""
    writer = writer_in(folder)
    for kind, *told in moments:
        if kind == "go":
            writer.begin_attempt(*told)
        elif kind == "log":
            step, epoch, value = told
            writer.put("point", {"a": value}, step, epoch, 0.0)
        else:
            epoch, step = told
            row = {"attempt": writer.attempt, "epoch": epoch, "first_step": 0, "last_step": step}
            writer.entries.append(Row("epochs", {**row, "started": 0.0, "ended": 0.0}))
    assert writer.flush()
    writer.file.shut()
    return StoredRun(folder)


@pytest.mark.parametrize(
    ("moments", "wanted"),
    [
        pytest.param(  # an accumulating trainer: batches share a step, also over the end of an epoch
            [("go", 0, 0), ("log", 0, 0, 1.0), ("log", 1, 0, 2.0), ("end", 0, 1), ("log", 1, 1, -3.0), ("log", 2, 1, -4.0),
             ("go", 1, 1), ("log", 1, 1, 3.0), ("log", 2, 1, 4.0)],
            [(0, 1.0), (1, 2.0), (1, 3.0), (2, 4.0)], id="batches share a step",
        ),
        pytest.param(  # a trainer without steps: each epoch's value is at step 0
            [("go", 0, 0), ("log", 0, 0, 1.0), ("end", 0, 0), ("log", 0, 1, 2.0), ("end", 1, 0), ("log", 0, 2, -3.0),
             ("go", 0, 2), ("log", 0, 2, 3.0), ("end", 2, 0)],
            [(0, 1.0), (0, 2.0), (0, 3.0)], id="epochs share a step",
        ),
        pytest.param(  # a validation inside an epoch, behind the save that the training goes on from
            [("go", 0, 0), ("log", 5, 0, 1.0), ("log", 6, 0, -2.0), ("go", 6, 0), ("log", 6, 0, 2.0), ("log", 7, 0, 3.0)],
            [(5, 1.0), (6, 2.0), (7, 3.0)], id="measured again",
        ),
        pytest.param(
            [("go", 0, 0), ("log", 5, 0, 1.0), ("log", 6, 0, 2.0), ("go", 6, 0), ("log", 7, 0, 3.0)],
            [(5, 1.0), (6, 2.0), (7, 3.0)], id="not measured again",
        ),
    ],
)  # fmt: skip
def test_no_step_is_doubled_or_lost_where_an_attempt_begins(moments, wanted, tmp_path):
    run = recorded(tmp_path / "run", *moments)
    assert list(zip(run.points("a").steps, run.points("a").values, strict=True)) == wanted
    assert [(one.step, one.low) for one in run.ranges("a")] == wanted
    values = [value for _, value in wanted]
    newest = run.newest()["a"]
    assert (newest["count"], newest["low"], newest["high"]) == (len(wanted), min(values), max(values))


def test_who_reads_sees_a_whole_store_or_none_from_its_first_moment_on(tmp_path):
    """A reader that looks all the time never finds a file without tables or without the session that began it."""
    stop, found = threading.Event(), {"none": 0, "whole": 0}
    errors: list[Exception] = []
    current = [tmp_path / "0"]

    def look():
        while not stop.is_set():
            run = StoredRun(current[0])
            try:
                assert len(run.sessions) == 1
                found["whole"] += 1
            except StoreError as error:
                found["none"] += 1
                if "there is no run store" not in str(error):
                    errors.append(error)
            except AssertionError as error:
                errors.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(12):
        current[0] = tmp_path / str(number)
        recorded(current[0], ("go", 0, 0), ("log", 1, 0, 1.0))
    stop.set()
    reader.join()
    assert errors == []
    assert found["none"]
    assert found["whole"]
    assert not [path.name for path in tmp_path.rglob(".tmp*")]


def test_a_log_that_was_left_without_its_store_spoils_no_new_one(tmp_path):
    recorded(tmp_path / "a", ("go", 0, 0), *[("log", step, 0, -1.0) for step in range(500)])
    writer = writer_in(tmp_path / "b")
    writer.begin_attempt(0, 0)
    writer.put("point", {"b": 2.0}, 1, 0, 0.0)
    assert writer.flush()
    assert (tmp_path / "b" / "run.db-wal").stat().st_size
    shutil.copyfile(tmp_path / "b" / "run.db-wal", tmp_path / "kept")
    writer.file.shut()
    (tmp_path / "b" / "run.db").unlink()
    shutil.copyfile(tmp_path / "kept", tmp_path / "b" / "run.db-wal")  # as kill -9 and a deleted run.db leave it
    run = recorded(tmp_path / "b", ("go", 0, 0), ("log", 1, 0, 1.0))
    assert (run.metrics(), list(run.points("a").values), len(run.sessions)) == (["a"], [1.0], 1)


def test_two_processes_make_one_store(tmp_path):
    """Both begin at the same moment: one file has the sessions of both."""
    began = threading.Barrier(8)
    failed: list[BaseException] = []

    def begin():
        try:
            began.wait()
            file = StoreFile(lambda: tmp_path / "run.db", session, lambda: None)
            while True:
                try:
                    file.opened()
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error):
                        raise
            file.connection.close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(StoredRun(tmp_path).sessions) == 8


def test_two_trainings_in_one_file_hinder_neither_each_other_nor_themselves(tmp_path):
    """As where a run on a network's disk is resumed on two machines: each goes on, and goes back."""
    first, second = writer_in(tmp_path / "run"), writer_in(tmp_path / "run")
    for round_ in range(3):
        for writer, name in ((first, "a"), (second, "b")):
            writer.begin_attempt(round_, round_)
            writer.put("point", {name: float(round_)}, round_ + 1, round_, 0.0)
            assert writer.flush()
            writer.next_flush = 0.0
    first.file.shut()
    second.file.shut()
    run = StoredRun(tmp_path / "run")
    assert [one["session"] for one in run.attempts] == [1, 2] * 3
    for name, attempts in (("a", (1, 3, 5)), ("b", (2, 4, 6))):
        assert [list(run.points(name, attempt=one).values) for one in attempts] == [[0.0], [1.0], [2.0]]
