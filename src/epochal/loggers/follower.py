"""A logger's thread where the run has a store: it reads what is durable there and delivers it, at its own pace."""

import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

from epochal.loggers.cursor import Cursor, TakenOver, load, save, standing
from epochal.loggers.feed import MOST, Feed
from epochal.loggers.worker import PATIENCE, TRIES, Limits, Outcome, Worker, Writer
from epochal.runs.process import this_process
from epochal.runs.schema import StoreError

logger = logging.getLogger("epochal")
WHILE_TRAINING = 5000  # points of one batch while a training runs beside: few, so that it has Python's lock soon again
SHORT = 2.0  # seconds that the end of a training waits for a destination that failed the last time
Opens = Callable[[Path, Mapping[str, Any]], Writer]


class Place(NamedTuple):
    """Which reader of the store this is, and the options that make its logger anew."""

    reader: str
    options: Mapping[str, Any]


class Follower(Worker):
    """Delivers what a run's store holds to one destination, in order, from where the last process has come.

    ``file`` returns the store's file, None as long as there is none. ``opens`` is given the file and what the writer
    told of itself the last time. A writer may have ``remember()``, which tells that, ``begins``: whether the
    destination has nothing of the run, so that everything is delivered again, and ``go_back(step)``: what comes next
    begins again behind this step. The cursor is kept after each batch that was accepted; what an error makes come twice
    is told apart by the destination, or taken back by its writer. Whoever claims the cursor later delivers alone.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        file: Callable[[], Path | None],
        opens: Opens,
        *,
        limits: Limits | None = None,
        passing: Callable[[Exception], bool] = lambda error: isinstance(error, OSError),
        most: int = WHILE_TRAINING,
    ) -> None:
        super().__init__(name, self.open_writer, limits=limits, passing=passing)
        self.place, self.file, self.opens, self.most = place, file, opens, most
        self.cursor: Cursor | None = None  # behind what was accepted
        self.next: Cursor | None = None  # behind what is in hand
        self.identity: tuple[int, int] | None = None  # of the file that the cursor belongs to
        self.points = self.accepted = 0  # in hand; delivered by this process
        self.back: int | None = None  # the step behind which what is in hand begins again
        self.drained = self.claimed = False
        self.claim = {**this_process(), "follower": uuid4().hex}
        self.spent = 0.0  # seconds of the last turn

    # -- on the training thread -------------------------------------------------------------------------------------

    def close(self, end_reason: str, *, limit: float) -> Outcome:
        """Deliver the rest and the end, within ``limit`` seconds; soon given up where the destination fails."""
        self.end_reason, self.closing, self.most = end_reason, True, MOST
        self.wake.set()
        thread, begun, hurry, told = self.thread, monotonic(), False, False
        until = begun + limit
        try:
            while thread is not None and thread.is_alive() and monotonic() < until:
                thread.join(0.05)
                if self.failures and not hurry:
                    hurry, until = True, min(until, monotonic() + SHORT)
                if not told and not hurry and monotonic() > begun + PATIENCE:
                    told = True
                    logger.warning("%s is still writing; the training's end waits at most %g s.", self.name, limit)
        finally:
            self.abandoned = True
        if thread is not None and thread.is_alive():
            self.leave()
        return Outcome(self.written, self.lost, 0, self.finished, self.error)

    def waiting(self) -> int:
        """Return how many points the destination lacks, 0 where nobody can tell."""
        file = self.file()
        try:
            return 0 if file is None else Feed(file).waiting(self.cursor or load(file, self.place.reader))
        except (sqlite3.Error, OSError, StoreError):
            return 0

    # -- on the follower's thread -----------------------------------------------------------------------------------

    def rest(self) -> float:
        """Go on at once at the end; while a training runs, rest as long as the last turn took."""
        if self.drained:
            return self.limits.pause
        return 0.0 if self.closing else min(self.spent, self.limits.pause)

    def is_drained(self) -> bool:
        """Say whether everything in the store was delivered."""
        return self.drained

    def loop(self) -> None:
        """Deliver until closed; then leave the cursor to whoever comes next."""
        super().loop()
        self.leave()

    def turn(self) -> bool:
        """Deliver what is new; return whether all is well."""
        begun = monotonic()
        try:
            self.follow()
        except Exception as error:
            self.failed(error)
            return False
        finally:
            self.spent = monotonic() - begun
        return True

    def follow(self) -> None:
        """Read one batch, unless one is in hand, and write it."""
        file = self.file()
        if file is None or not file.exists():  # nothing was logged yet
            self.drained = True
            return
        self.find_cursor(file)
        if self.is_taken_over(file):
            return
        if self.writer is None:
            self.writer = self.open()
        if not self.held:
            self.take()
        self.drained = not self.held and not self.points and self.next == self.cursor
        go_back: Callable[[int], None] | None = getattr(self.writer, "go_back", None)
        if self.back is not None and go_back is not None:
            go_back(self.back)
        if self.held:
            self.writer.write(self.held)
        if self.failures:
            logger.info("%s can be written again.", self.name)
            self.failures = 0
        if self.held or self.points or self.next != self.cursor:
            self.settle(written=True)

    def find_cursor(self, file: Path) -> None:
        """Take up the cursor of a file that is new to us; one that was made anew is delivered from its beginning."""
        found = file.stat()
        identity = found.st_dev, found.st_ino
        if identity == self.identity:
            return
        cursor = load(file, self.place.reader)
        told = cursor.told or (self.cursor.told if self.cursor is not None else {})
        self.cursor = replace(cursor, options=self.place.options, told=told, by=self.claim)
        self.identity, self.held, self.points, self.claimed = identity, [], 0, False
        self.keep(self.cursor)  # what `epochal sync` needs, should the destination never answer

    def is_taken_over(self, file: Path) -> bool:
        """Say whether another follower has the claim, so that this one leaves; one lost with its file is made anew."""
        assert self.cursor is not None
        if self.claimed:
            held = standing(file, self.cursor)
            if held == "lost":
                self.identity = None
                self.find_cursor(file)
            self.abandoned = self.abandoned or held == "taken"
        return self.abandoned

    def take(self) -> None:
        """Take the next batch from the store."""
        file, cursor = self.file(), self.cursor
        assert file is not None
        assert cursor is not None
        batch = Feed(file).read(cursor, most=self.most)
        self.held, self.points, self.next, self.back = batch

    def open_writer(self) -> Writer:
        """Open the destination, and remember it at once: what is made there is made once."""
        file, cursor = self.file(), self.cursor
        assert file is not None
        assert cursor is not None
        writer = self.opens(file, cursor.told)
        if getattr(writer, "begins", False):
            cursor, self.held, self.points = cursor.anew(), [], 0
        self.cursor = replace(cursor, told=told_by(writer, cursor.told))
        self.keep(self.cursor)
        return writer

    def settle(self, *, written: bool) -> None:
        """Be done with what is in hand, and keep the cursor behind it."""
        assert self.next is not None
        assert self.writer is not None
        self.cursor = replace(self.next, told=told_by(self.writer, self.next.told))
        self.accepted += self.points
        self.points, self.back = 0, None
        super().settle(written=written)
        self.keep(self.cursor)

    def leave(self) -> None:
        """Let others deliver from now on."""
        if self.cursor is not None:
            self.keep(replace(self.cursor, by=None))

    def keep(self, cursor: Cursor) -> None:
        """Write the cursor into the store; a disk that cannot take it now is asked again with the next one."""
        file = self.file()
        if self.abandoned:  # whoever comes next may be delivering already
            cursor = replace(cursor, by=None)
        try:
            if file is not None:
                save(file, cursor, claim=self.claim if self.claimed else None)
                self.claimed = True
        except TakenOver:
            self.abandoned = True
        except (sqlite3.Error, OSError, StoreError) as error:
            logger.debug("%s: how far it has come could not be kept: %s", self.name, error)

    def failed(self, error: Exception) -> None:
        """Report the first failure and open the destination anew; a record that it refuses for good is left out."""
        self.failures += 1
        self.report(error)
        writer, self.writer = self.writer, None
        if writer is None or self.failures < TRIES or self.passing(error) or not self.held:
            return
        before, count = self.held, len(self.held)
        if not self.write_apart(writer):
            self.held = before  # what was accepted meanwhile counts once
            return
        if count == 1 or len(self.held) < count:  # else it is not the records that are wrong
            self.writer = writer
            self.settle(written=False)

    def end(self, writer: Writer) -> None:
        """Tell the end, and remember of which session it was."""
        with suppress(sqlite3.Error, OSError, StoreError):
            file = self.file()
            if file is not None and self.is_taken_over(file):
                return
        super().end(writer)
        if self.finished and self.cursor is not None:
            self.cursor = replace(self.cursor, told=told_by(writer, self.cursor.told), ended=self.session())
            self.keep(self.cursor)

    def session(self) -> int:
        """Return the number of the newest session in the store."""
        from contextlib import closing

        from epochal.runs.schema import open_to_read

        file = self.file()
        try:
            with closing(open_to_read(file if file is not None else Path())) as connection:
                return int(connection.execute("SELECT coalesce(max(id), 0) FROM sessions").fetchone()[0])
        except (sqlite3.Error, OSError, StoreError):
            return 0


def told_by(writer: Writer, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a writer tells of itself."""
    remember: Callable[[], Mapping[str, Any]] | None = getattr(writer, "remember", None)
    return before if remember is None else remember()
