"""The thread that writes a run's file: it never raises into the training and never makes it wait."""

import logging
import os
import sqlite3
import threading
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from itertools import chain, groupby
from math import nan
from operator import itemgetter
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple
from weakref import WeakSet

from epochal.core.metrics import FLOATS
from epochal.core.requests import Command
from epochal.core.tensors import are_plain, read
from epochal.runs.book import MOST_BYTES, MOST_ROWS, Block, Book, Row, clean, whole
from epochal.runs.commands import expire_old, take_queued
from epochal.runs.console import KEPT, Console
from epochal.runs.schema import StoreError
from epochal.runs.store_file import NotYet, StoreFile

logger = logging.getLogger("epochal")
LOOK = 0.05  # seconds between looks for commands
FAR = 1.0  # seconds between them on a network's file system
FLUSH = 0.2  # seconds between writes
BEAT = 1.0  # seconds between signs of life
LONGEST = 15.0  # seconds between tries while writing fails
PATIENCE = 5.0  # seconds for which somebody else may lock the file before it is told
START = 60.0  # seconds between the starts of the processes of one training
CROWD = 20_000  # entries that wait before the training thread takes some over itself
SOON = 2.0  # seconds for which the end of a training tries again to write where the disk refuses
SOME = 256  # of them at a time
FIRST = 64  # values of many that tell of which kind they are
writers: "WeakSet[StoreWriter]" = WeakSet()  # of this process


Values = tuple[str, tuple[str, ...], tuple[Any, ...], int, int, float]  # scope, names, values, step, epoch, time


class Attempt(NamedTuple):
    """Another attempt begins behind a step."""

    step: int
    epoch: int
    time: float


class Answer(NamedTuple):
    """What became of a command: "applied" or "refused", where, and why."""

    id: str
    state: str
    step: int
    epoch: int
    text: str
    time: float


class Medium(NamedTuple):
    """An image, a histogram or a text that is yet to be made a row, and the bytes that wait for that."""

    kind: str
    make: Callable[[], Row]
    size: int


Entry = Values | Attempt | Answer | Row


class StoreWriter:
    """Takes entries from the training thread, ``entries.append(entry)``, and writes them to a run's file.

    ``place`` makes the run's folder and returns the file; it is called when there is something to write, and again
    when the file was deleted. ``session`` returns this process' row. ``hand`` is given each command.
    """

    def __init__(
        self, place: Callable[[], Path], session: Callable[[], dict[str, Any]], hand: Callable[[Command], None] | None
    ) -> None:
        self.entries: deque[Entry] = deque()
        self.media: deque[Medium] = deque()
        self.put_bytes = self.taken_bytes = self.refused = 0
        self.attempt = -1  # the one that entries which come now belong to
        self.book = Book()
        self.file = StoreFile(place, session, self.book.forget_file)
        self.hand = hand
        self.console: Console | None = None
        self.answers: list[Answer] = []
        self.seen = -1  # the file's version at the last look
        self.closing = threading.Event()
        self.deadline = 0.0  # of the monotonic clock, once it closes
        self.final: dict[str, Any] | None = None
        self.finished = self.inherited = False
        self.error: BaseException | None = None
        self.told = False
        self.failing_since: float | None = None
        self.failures = 0
        self.next_flush = self.next_beat = self.next_look = 0.0
        self.state = "running"
        self.told_state = ""
        self.offered: str | None = None  # commands, where they are others than when the session began
        self.told_lost: dict[str, int] = {}
        self.thread = threading.Thread(target=self.work, name="epochal run store", daemon=True)

    # -- on the training thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; a daemon, so that a disk that hangs cannot keep the process alive."""
        watch_forks()
        writers.add(self)
        self.thread.start()

    def begin_attempt(self, step: int, epoch: int) -> None:
        """Begin another attempt behind a step."""
        self.attempt += 1
        self.entries.append(Attempt(step, epoch, time()))

    def put_medium(self, kind: str, make: Callable[[], Row], size: int) -> None:
        """Have something large made a row, unless too much waits already."""
        if self.put_bytes - self.taken_bytes + size > MOST_BYTES or self.inherited:
            self.refused += 1
            return
        self.put_bytes += size
        self.media.append(Medium(kind, make, size))

    def put(self, scope: str, values: Mapping[str, Any], step: int, epoch: int, time: float) -> None:
        """Take numbers or tensors by their names."""
        self.entries.append((scope, tuple(values), tuple(values.values()), step, epoch, time))

    def crowded(self) -> None:
        """Take over some of what waits, because the thread hangs in a write; without a wait for it or the disk."""
        if self.book.lock.acquire(blocking=False):
            try:
                self.absorb(SOME)
            finally:
                self.book.lock.release()

    def close(self, final: Mapping[str, Any], *, limit: float) -> bool:
        """Write what waits and how the session ended, within so many seconds; say whether that was enough."""
        if self.inherited:
            return True
        self.final, self.deadline = dict(final), monotonic() + limit
        self.closing.set()
        self.thread.join(limit)
        writers.discard(self)
        return self.finished

    @property
    def lost(self) -> dict[str, int]:
        """What is not in the file and will not be, by kind."""
        return {**self.book.lost, **({"images, histograms or texts": self.refused} if self.refused else {})}

    def leave_to_parent(self) -> None:
        """In a process that was forked: what is logged here goes nowhere, and the file is the parent's."""
        self.inherited = True
        self.entries, self.media = deque(maxlen=0), deque(maxlen=0)
        self.file.leave_to_parent()

    # -- on the writer's thread -------------------------------------------------------------------------------------

    def work(self) -> None:
        """Flush, look and beat until closed; then write the rest, as long as there is time for it."""
        while not self.closing.wait(LOOK):
            self.tick()
        wait, soon = threading.Event(), monotonic() + SOON
        while not self.flush(last=True) and monotonic() < (self.deadline if self.is_locked() else soon):
            wait.wait(FLUSH)
        self.finished = self.book.empty and not self.answers and not self.entries
        self.file.finish()

    def tick(self) -> None:
        """Do what is due."""
        try:
            self.look()
        except Exception as error:
            if self.file.connection is not None and self.file.connection.in_transaction:
                self.file.connection.execute("ROLLBACK")
            self.failed(error)
        if monotonic() >= self.next_flush:
            self.flush()

    def flush(self, *, last: bool = False) -> bool:
        """Write what the file lacks, in one transaction; say whether the file has everything."""
        self.next_flush = monotonic() + FLUSH
        try:
            self.absorb()
            self.make_media()
            connection = self.file.connection
            beats = connection is not None and (monotonic() >= self.next_beat or self.state != self.told_state or last)
            if self.book.empty and not self.answers and not beats:
                return True
            if connection is None and not self.book.has_news:
                return True
            self.write(last=last)
        except Exception as error:  # nothing here may end the thread
            self.failed(error)
            return False
        if self.failures and self.told:
            logger.warning("the run store %s is written again; all that waited is in it.", self.file.path)
        self.failures, self.failing_since = 0, None
        return True

    def absorb(self, most: int | None = None) -> None:
        """Take entries over into the book."""
        with self.book.lock:
            values: list[Values] = []  # that came one behind the other
            for _ in range(len(self.entries) if most is None else min(most, len(self.entries))):
                entry = self.entries.popleft()
                if type(entry) is tuple:
                    values.append(entry)
                    continue
                self.take_values(values)
                values.clear()
                self.take(entry)
            self.take_values(values)
            self.book.thin()

    def take_values(self, entries: list[Values]) -> None:
        """Take values, tensors read in one go; those of moments that logged the same in one go, too."""
        numbers, begin = self.read(list(chain.from_iterable(map(itemgetter(2), entries)))), 0
        for (scope, names), group in groupby(entries, key=itemgetter(0, 1)):
            moments = list(group)
            end = begin + len(names) * len(moments)
            _, _, _, steps, epochs, times = map(list, zip(*moments, strict=True))
            self.book.take_block(Block(scope, names, steps, epochs, times, numbers[begin:end]))
            begin = end

    def read(self, values: list[Any]) -> "array[float]":
        """Return values as floats, NaN for one that cannot be read."""
        try:
            # The first of them tell whether tensors come at all, which would make a sum of as many kernels.
            plain = FLOATS.issuperset(map(type, values[:FIRST])) and are_plain(values)
            return array("d", values if plain else read(values))
        except Exception as error:
            self.error = error
            return array("d", [self.read_one(value) for value in values])

    def read_one(self, value: Any) -> float:
        """Return a value as a float, NaN where that cannot be."""
        try:
            return read([value])[0]
        except Exception:
            self.book.lose("points", 1)
            return nan

    def take(self, entry: Entry) -> None:
        """Take one entry that is no values."""
        book = self.book
        if isinstance(entry, Attempt):
            book.begin_attempt(step=entry.step, epoch=entry.epoch, time=entry.time)
        elif isinstance(entry, Answer):
            self.answers.append(entry)
        elif isinstance(entry, Row):
            book.add(entry)

    def make_media(self) -> None:
        """Make rows of images, histograms and texts; what cannot be made one is lost and told, not raised."""
        while self.media:
            medium = self.media.popleft()
            self.taken_bytes += medium.size
            try:
                self.book.add(medium.make())
            except Exception as error:
                self.book.lose(medium.kind, 1)
                logger.error("the run store could not take the %s: %s", medium.kind, error, exc_info=error)
        if self.console is not None:
            for row in self.console.take(last=self.closing.is_set()):
                if len(self.book.rows) < MOST_ROWS // 2:
                    self.book.add(row)
                else:
                    self.book.lose("lines of the console", 1)

    def write(self, *, last: bool) -> None:
        """Write the book, the answers and a sign of life."""
        connection = self.file.opened()
        part, answers = self.book.part(), list(self.answers)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self.book.write(connection, part, session=self.file.number)
            self.answer(connection, answers)
            offered = self.offered
            told = self.beat(connection, offered, last=last)
            connection.execute("COMMIT")
        except BaseException as error:
            self.book.failed(part)
            if not self.file.unusable(error) and connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.book.done(part)
        self.told_lost |= told
        self.next_beat, self.told_state = monotonic() + BEAT, self.state
        self.offered = None if self.offered is offered else self.offered
        del self.answers[: len(answers)]

    def answer(self, connection: sqlite3.Connection, answers: list[Answer]) -> None:
        """Write what became of commands."""
        for one in answers:
            connection.execute(
                "UPDATE commands SET state = ?, step = ?, epoch = ?, answered = ?, answer = ? WHERE id = ?",
                (one.state, one.step, one.epoch, one.time, whole(one.text), one.id),
            )

    def beat(self, connection: sqlite3.Connection, offered: str | None, *, last: bool) -> dict[str, int]:
        """Write a sign of life, and in the end how it ended; return what is told to be lost by now."""
        values: dict[str, Any] = {"beat": time(), "state": self.state}
        if offered is not None:
            values["commands"] = offered
        if last and self.final is not None:
            values |= {"ended": time(), **self.final}
            expire_old(connection, "the training was over before")
        columns = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(f"UPDATE sessions SET {columns} WHERE id = :id", {**clean(values), "id": self.file.number})
        if self.console is not None:
            connection.execute("DELETE FROM console WHERE id <= (SELECT max(id) FROM console) - ?", (KEPT,))
        lost = dict(self.lost)
        for what, count in lost.items():
            if (new := count - self.told_lost.get(what, 0)) > 0:
                why = f"{type(self.error).__name__}: {self.error}" if self.error else "more than the disk could take"
                connection.execute(
                    "INSERT INTO losses (session, time, what, count, why) VALUES (?, ?, ?, ?, ?)",
                    (self.file.number, time(), what, new, whole(why)),
                )
        return lost

    def look(self) -> None:
        """See whether somebody else wrote into the file, and if so whether there are commands."""
        connection = self.file.connection
        if connection is None or self.hand is None or monotonic() < self.next_look:
            return
        self.next_look = monotonic() + FAR if self.file.is_far else 0.0
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self.seen:
            return
        for command in take_queued(connection):
            self.hand(command)
        self.seen = version

    def is_locked(self) -> bool:
        """Say whether what failed last did so because somebody else has the file."""
        return isinstance(self.error, sqlite3.OperationalError) and "locked" in str(self.error)

    def failed(self, error: Exception) -> None:
        """Wait longer and longer before the next try; tell the first failure, of a lock by others once it lasts."""
        now = monotonic()
        self.failures += 1
        self.failing_since = now if self.failing_since is None else self.failing_since
        self.error = error
        late = isinstance(error, NotYet)
        self.next_flush = now + (FLUSH if late else min(FLUSH * 2 ** min(self.failures, 10), LONGEST))
        patience = START if late else PATIENCE if self.is_locked() else 0.0
        if self.told or now - self.failing_since < patience:
            return
        self.told = True
        what = "could not be written: the training goes on, what it logs waits in memory and is tried again"
        expected = isinstance(error, (sqlite3.Error, OSError, StoreError))
        where = f" {self.file.path}" if self.file.path else ""
        logger.error("the run store%s %s (%s).", where, what, error, exc_info=None if expected else error)


def watch_forks() -> None:
    """Have forked processes leave the files to their parent; asked for once, with the first training."""
    global watching_forks
    if not watching_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=leave_to_parents)
    watching_forks = True


watching_forks = False


def leave_to_parents() -> None:
    """In a process that was forked: leave every file to the parent."""
    for writer in list(writers):
        writer.leave_to_parent()
    writers.clear()
