"""A run's file while it is written: opened when there is something to write, and made again when it is gone."""

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import Any

from epochal.checkpointing.commit import temporary_name
from epochal.runs.book import clean
from epochal.runs.commands import expire_old
from epochal.runs.network import network_filesystem
from epochal.runs.schema import BESIDE, FILE, StoreError, open_to_write
from epochal.runs.summary import seal

logger = logging.getLogger("epochal")
SESSION = ("started", "beat", "state", "pid", "host", "process", "about", "callbacks", "commands")


class NotYet(OSError):
    """Another process has not made the run's folder yet."""


class StoreFile:
    """Holds the connection of the one who writes; all of it happens on the writer's thread.

    ``place`` makes the run's folder and returns the file; ``session`` returns this process' row; ``lost`` is called
    when a new file had to be begun that lacks what was in the one before.
    """

    def __init__(
        self, place: Callable[[], Path], session: Callable[[], dict[str, Any]], lost: Callable[[], None]
    ) -> None:
        self.place, self.session, self.lost = place, session, lost
        self.path: Path | None = None
        self.connection: sqlite3.Connection | None = None
        self.inode: tuple[int, int] | None = None
        self.is_far = False  # on another machine's disk, where each look at it is a message
        self.number = 0  # of this session

    def opened(self) -> sqlite3.Connection:
        """Return the open file; sqlite3.Error or OSError where it cannot be opened now."""
        if self.connection is not None and self.path is not None and identity(self.path) != self.inode:
            self.make_again(self.connection)
        if self.connection is not None:
            return self.connection
        path = self.place()
        row = self.session()  # which takes a while; nobody waits for the file meanwhile

        def begin(connection: sqlite3.Connection) -> None:
            self.begin(connection, row)

        try:
            connection = open_to_write(path, begin)
        except (sqlite3.DatabaseError, StoreError) as error:
            if not is_unusable(error):
                raise
            self.set_aside(path, error)
            connection = open_to_write(path, begin)
        self.hold(connection, path)
        return connection

    def hold(self, connection: sqlite3.Connection, path: Path) -> None:
        """Keep an open file."""
        self.connection, self.path, self.inode = connection, path, identity(path)
        self.is_far = network_filesystem(path.parent) is not None

    def begin(self, connection: sqlite3.Connection, given: Mapping[str, Any]) -> None:
        """Begin a session in the file."""
        connection.execute("BEGIN IMMEDIATE")
        expire_old(connection, "the training it was meant for is over")
        row = clean({"beat": time(), "state": "running", **given})
        names, places = ", ".join(SESSION), ", ".join(f":{name}" for name in SESSION)
        made = connection.execute(f"INSERT INTO sessions ({names}) VALUES ({places})", row)
        self.number = int(made.lastrowid or 0)
        connection.execute("COMMIT")

    def make_again(self, old: sqlite3.Connection) -> None:
        """Write a file that was deleted while it was open once more: until it is closed all of it can be read."""
        path = self.place()
        temporary = path.with_name(temporary_name(path.name))
        fresh = sqlite3.connect(temporary, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            old.backup(fresh)
            fresh.close()
            os.replace(temporary, path)  # who reads sees all of it, or none
        except BaseException as error:
            if not is_unusable(error):
                raise
            logger.warning("the run store %s was deleted while it was written; what was in it is lost.", path)
            self.shut()
            self.lost()
            return
        finally:
            fresh.close()
            temporary.unlink(missing_ok=True)
        self.shut()
        self.hold(open_to_write(path), path)
        logger.warning("the run store %s was deleted while it was written; it is there again, with all of it.", path)

    def set_aside(self, path: Path, error: BaseException) -> None:
        """Give a file that cannot be used another name, for those who want to look into it."""
        self.shut()
        number = 1
        while (aside := path.with_name(f"{path.stem}.unusable-{number}{path.suffix}")).exists():
            number += 1
        for end in BESIDE:
            if (part := path.with_name(path.name + end)).exists():
                part.rename(aside.with_name(aside.name + end))
        logger.error("the run store %s cannot be used (%s): it is %s now, a new one is begun.", path, error, aside.name)
        self.lost()

    def unusable(self, error: BaseException) -> bool:
        """Set the file aside if it cannot be used any more, and say whether that was so."""
        if self.path is None or not is_unusable(error):
            return False
        self.set_aside(self.path, error)
        return True

    def shut(self) -> None:
        """Close the file; the log beside it is folded in, and nobody who reads it later needs one, unless one does."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        try:
            if self.path is not None and identity(self.path) == self.inode:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA busy_timeout=100")
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            logger.debug("the run store was not folded together: %s", error)
        connection.close()

    def finish(self) -> None:
        """Close the file for good, and write beside it what lists of runs need of it."""
        self.shut()
        path = self.path
        if path is not None and path.name == FILE and identity(path) == self.inode:
            seal(path)

    def leave_to_parent(self) -> None:
        """Never close it in a process that was forked: what it holds is the parent's."""
        if self.connection is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))
            self.connection = None


def is_unusable(error: BaseException) -> bool:
    """Say whether an error tells that a file is torn, or no run store of this version.

    >>> is_unusable(sqlite3.DatabaseError("file is not a database")), is_unusable(sqlite3.OperationalError("locked"))
    (True, False)
    """
    return isinstance(error, StoreError) or type(error) is sqlite3.DatabaseError


def identity(file: Path) -> tuple[int, int] | None:
    """Return what tells a file from another at the same place, None if there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
