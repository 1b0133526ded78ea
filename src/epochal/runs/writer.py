"""The thread that writes a run's file: it never raises into the training and never makes it wait."""

import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple

from epochal.core.tensors import read
from epochal.runs.book import Book, Row
from epochal.runs.commands import Command, expire_old, take_queued
from epochal.runs.schema import StoreError, open_to_write

logger = logging.getLogger("epochal")
LOOK = 0.05  # seconds between looks for commands
FLUSH = 0.2  # seconds between writes
BEAT = 1.0  # seconds between signs of life
LONGEST = 15.0  # seconds between tries while writing fails
CROWD = 20_000  # entries that wait before the training thread takes them over itself
SESSION = ("started", "beat", "state", "pid", "host", "process", "about", "callbacks", "commands")


class Values(NamedTuple):
    """Values of one moment; numbers or tensors, which are read on the writer's thread."""

    scope: str
    values: Mapping[str, Any]
    step: int
    epoch: int
    time: float


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


Entry = Values | Attempt | Answer | Row | Callable[[], Row | None]


class StoreWriter:
    """Takes entries from the training thread, ``entries.append(entry)``, and writes them to a run's file.

    ``place`` makes the run's folder and returns the file; it is called when there is something to write, and again
    when the file was deleted. ``session`` returns this process' row. ``hand`` is given each command.
    """

    def __init__(
        self, place: Callable[[], Path], session: Callable[[], dict[str, Any]], hand: Callable[[Command], None] | None
    ) -> None:
        self.place, self.session, self.hand = place, session, hand
        self.entries: deque[Entry] = deque()
        self.book = Book()
        self.file: Path | None = None
        self.inode: tuple[int, int] | None = None
        self.connection: sqlite3.Connection | None = None
        self.session_id = self.first_attempt = 0
        self.answers: list[Answer] = []
        self.seen = -1  # the file's version at the last look
        self.closing = threading.Event()
        self.final: dict[str, Any] | None = None
        self.finished = False
        self.error: BaseException | None = None
        self.failures = 0
        self.next_flush = self.next_beat = 0.0
        self.state = "running"
        self.told_state = ""
        self.told_lost: dict[str, int] = {}
        self.thread = threading.Thread(target=self.work, name="epochal run store", daemon=True)

    # -- on the training thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; a daemon, so that a disk that hangs cannot keep the process alive."""
        self.thread.start()

    def crowded(self) -> None:
        """Take over what waits, because the thread hangs in a write; bounded, and without a wait for the disk."""
        self.absorb()

    def close(self, final: Mapping[str, Any], *, limit: float) -> bool:
        """Write what waits and how the session ended, within so many seconds; say whether that was enough."""
        self.final = dict(final)
        self.closing.set()
        self.thread.join(limit)
        return self.finished

    # -- on the writer's thread -------------------------------------------------------------------------------------

    def work(self) -> None:
        """Flush, look and beat until closed."""
        while not self.closing.wait(LOOK):
            self.tick()
        for attempt in range(3):
            if self.flush(last=True):
                break
            self.closing.clear()
            self.closing.wait(FLUSH * (attempt + 1))
        self.shut()

    def tick(self) -> None:
        """Do what is due."""
        try:
            now = monotonic()
            self.look()
            if now >= self.next_flush:
                self.flush()
        except Exception as error:  # nothing here may end the thread
            self.failed(error)

    def absorb(self) -> None:
        """Take the entries over into the book."""
        with self.book.lock:
            taken: list[Entry] = []
            while self.entries:
                taken.append(self.entries.popleft())
            numbers = iter(read([one for entry in taken if isinstance(entry, Values) for one in entry.values.values()]))
            for entry in taken:
                self.take(entry, numbers)
            self.book.thin()

    def take(self, entry: Entry, numbers: Any) -> None:
        """Take one entry; what cannot be made into a row is lost and told, not raised."""
        book = self.book
        if isinstance(entry, Values):
            values = {name: next(numbers) for name in entry.values}
            book.take_values(entry.scope, values, step=entry.step, epoch=entry.epoch, time=entry.time)
        elif isinstance(entry, Attempt):
            book.begin_attempt(step=entry.step, epoch=entry.epoch, time=entry.time)
        elif isinstance(entry, Answer):
            self.answers.append(entry)
        elif isinstance(entry, Row):
            book.add(entry)
        else:
            try:
                row = entry()
            except Exception as error:
                book.lose("media", 1)
                self.report(error, "something logged could not be stored")
                return
            if row is not None:
                book.add(row)

    def flush(self, *, last: bool = False) -> bool:
        """Write what the file lacks, in one transaction; say whether the file has everything."""
        self.next_flush = monotonic() + FLUSH
        self.absorb()
        beats = self.connection is not None and (monotonic() >= self.next_beat or self.state != self.told_state)
        if self.book.empty and not self.answers and not beats and not (last and self.connection is not None):
            return True
        if self.connection is None and not self.book.tails and not any(r.table != "attempts" for r in self.book.rows):
            return True  # nothing was logged yet
        try:
            self.write(last=last)
        except (sqlite3.Error, OSError, StoreError) as error:
            self.failed(error)
            return False
        if self.failures:
            logger.warning("the run store %s is written again; all that waited is in it.", self.file)
        self.failures = 0
        return True

    def write(self, *, last: bool) -> None:
        """Write the book, the answers and a sign of life."""
        connection = self.opened()
        part, answers = self.book.part(), list(self.answers)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self.book.write(connection, part, session=self.session_id, attempt=self.first_attempt)
            self.answer(connection, answers)
            self.beat(connection, last=last)
            connection.execute("COMMIT")
        except BaseException:
            self.book.failed(part)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.book.done(part)
        del self.answers[: len(answers)]

    def answer(self, connection: sqlite3.Connection, answers: list[Answer]) -> None:
        """Write what became of commands."""
        for one in answers:
            connection.execute(
                "UPDATE commands SET state = ?, step = ?, epoch = ?, answered = ?, answer = ? WHERE id = ?",
                (one.state, one.step, one.epoch, one.time, one.text, one.id),
            )

    def beat(self, connection: sqlite3.Connection, *, last: bool) -> None:
        """Write a sign of life, what was lost, and in the end how it ended."""
        self.next_beat, self.told_state = monotonic() + BEAT, self.state
        values: dict[str, Any] = {"beat": time(), "state": self.state}
        if last and self.final is not None:
            values |= {"ended": time(), **self.final}
        columns = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(f"UPDATE sessions SET {columns} WHERE id = :id", {**values, "id": self.session_id})
        for what, count in self.book.lost.items():
            if (new := count - self.told_lost.get(what, 0)) > 0:
                why = f"{type(self.error).__name__}: {self.error}" if self.error else "more than the disk could take"
                connection.execute(
                    "INSERT INTO losses (session, time, what, count, why) VALUES (?, ?, ?, ?, ?)",
                    (self.session_id, time(), what, new, why),
                )
                self.told_lost[what] = count

    def opened(self) -> sqlite3.Connection:
        """Return the open file; one that was deleted is made anew, with all that is still here."""
        if self.connection is not None and self.file is not None and identity(self.file) != self.inode:
            logger.warning("the run store %s was deleted while it was written; a new one is made.", self.file)
            self.shut()
            self.book.forget_file()
        if self.connection is None:
            file = self.place()
            connection = open_to_write(file)
            try:
                self.begin(connection)
            except BaseException:
                connection.close()
                raise
            self.connection, self.file, self.inode = connection, file, identity(file)
        return self.connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a session in the file."""
        connection.execute("BEGIN IMMEDIATE")
        expire_old(connection, "the training it was meant for is over")
        row = {**self.session(), "beat": time(), "state": self.state}
        names = ", ".join(SESSION)
        places = ", ".join(f":{name}" for name in SESSION)
        made = connection.execute(f"INSERT INTO sessions ({names}) VALUES ({places})", row)
        self.session_id = int(made.lastrowid or 0)
        self.first_attempt = int(connection.execute("SELECT coalesce(max(id), 0) FROM attempts").fetchone()[0]) + 1
        connection.execute("COMMIT")

    def look(self) -> None:
        """See whether somebody else wrote into the file, and if so whether there are commands."""
        connection = self.connection
        if connection is None or self.hand is None:
            return
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self.seen:
            return
        self.seen = version
        for command in take_queued(connection):
            self.hand(command)

    def failed(self, error: BaseException) -> None:
        """Wait longer and longer before the next try."""
        self.failures += 1
        self.next_flush = monotonic() + min(FLUSH * 2**self.failures, LONGEST)
        self.report(error, f"the run store {self.file or ''} could not be written: the training goes on, what it logs")

    def report(self, error: BaseException, what: str) -> None:
        """Say the first failure with its traceback."""
        if self.error is None:
            logger.error("%s waits in memory and is tried again.", what, exc_info=error)
        self.error = error

    def shut(self) -> None:
        """Close the file; the log beside it is folded in."""
        connection, self.connection = self.connection, None
        self.finished = self.book.empty and not self.answers and self.closing.is_set()
        if connection is None:
            return
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        except sqlite3.Error as error:
            logger.debug("the run store was not folded together: %s", error)


def identity(file: Path) -> tuple[int, int] | None:
    """Return what tells a file from another at the same place, None if there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
