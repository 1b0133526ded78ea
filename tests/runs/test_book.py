"""Whatever is written, fails, is taken back, thinned or deleted: what is read is what was logged."""

import math
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epochal.runs import book, tail
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
        self.written, self.waiting = [], []  # (attempt, name, step, value), in the file and not yet
        self.begun, self.to_begin = [], []  # (attempt, from_step)
        self.step = self.attempt = 0
        self.time = 0.0
        self.writer = None

    @initialize()
    def begin(self):
        self.writer = writer_in(self.run.path)
        self.start_attempt(0)

    def start_attempt(self, step):
        self.writer.begin_attempt(step, 0)
        self.attempt = max([number for number, _ in self.begun + self.to_begin], default=0) + 1
        self.to_begin.append((self.attempt, step))
        self.step = step

    @rule(name=st.sampled_from(NAMES), values=st.lists(st.floats(width=32), min_size=1, max_size=25))
    def log(self, name, values):
        for value in values:
            self.step += 1
            self.time += 0.5
            self.writer.entries.append(("batch", {name: value}, self.step, 0, self.time))
            self.waiting.append((self.attempt, name, self.step, value))

    @rule()
    def flush(self):
        assert self.writer.flush()
        self.is_written()

    def is_written(self):
        if self.writer.file.connection is None:
            return
        self.written, self.waiting = self.written + self.waiting, []
        self.begun, self.to_begin = self.begun + self.to_begin, []

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
        self.start_attempt(max(self.step - back, 0))

    @precondition(lambda self: self.begun)
    @rule()
    def crash(self):
        """Everything that waits is gone with the process; another one goes on."""
        self.writer.file.shut()
        self.waiting, self.to_begin = [], []
        self.writer = writer_in(self.run.path)
        self.start_attempt(max(self.step - 10, 0))

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
        ends = {}
        for number, begin in self.begun:
            ends = {one: min(end, begin) for one, end in ends.items()} | {number: math.inf}
        for name in {name for _, name, _, _ in self.written}:
            shown = SHOWN.get(name, name)
            for number, _ in self.begun:
                self.compare(self.run.points(shown, attempt=number), self.of(name, number))
            left = [
                (step, value) for attempt, one, step, value in self.written if one == name and step <= ends[attempt]
            ]
            self.compare(self.run.points(shown), left)
            self.compare_newest(shown, left)
            self.compare_ranges(shown, left, most)

    def of(self, name, number):
        return [(step, value) for attempt, one, step, value in self.written if (attempt, one) == (number, name)]

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
        assert not finite or dict(wanted)[newest["high_step"]] == newest["high"]

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
        writer.entries.append(("batch", {"a": value}, step, 0, step / 2))
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
