"""The tables of a run's file, and how the file is opened."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from epochal.core.errors import EpochalError
from epochal.runs.network import network_filesystem

FILE = "run.db"
VERSION = 1
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
-- A process that trained the run. ended is NULL while it does; beat is its last sign of life; seconds since 1970.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, beat REAL NOT NULL, ended REAL, state TEXT NOT NULL,
    stop_reason TEXT, error TEXT, pid INTEGER NOT NULL, host TEXT NOT NULL, process TEXT,
    about TEXT NOT NULL, callbacks TEXT NOT NULL DEFAULT '[]', commands TEXT NOT NULL DEFAULT '[]',
    summary TEXT);
-- A stretch of steps without going back: a resumed training or a rollback begins another one behind from_step.
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, started REAL NOT NULL, from_step INTEGER NOT NULL,
    from_epoch INTEGER NOT NULL);
CREATE TABLE epochs (
    attempt INTEGER NOT NULL, epoch INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL,
    started REAL NOT NULL, ended REAL NOT NULL, PRIMARY KEY (attempt, epoch)) WITHOUT ROWID;
-- scope: batch, point (a validation's, or of no batch), epoch (means and rates), final, layers.
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, UNIQUE (name, scope));
-- first: the number of the chunk's first point in its series and attempt; ranges: level 1 and 2 of a sealed chunk.
CREATE TABLE chunks (
    series INTEGER NOT NULL, attempt INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, first_time REAL NOT NULL, last_time REAL NOT NULL,
    low REAL, high REAL, last REAL, sealed INTEGER NOT NULL, points BLOB NOT NULL, ranges1 BLOB, ranges2 BLOB,
    PRIMARY KEY (series, attempt, first));
-- The newest, least and greatest value of each series, so that a list of runs reads no chunks.
CREATE TABLE newest (
    series INTEGER PRIMARY KEY, step INTEGER NOT NULL, epoch INTEGER NOT NULL, time REAL NOT NULL, value REAL,
    low REAL, low_step INTEGER, high REAL, high_step INTEGER, count INTEGER NOT NULL);
CREATE TABLE params (name TEXT PRIMARY KEY, value TEXT NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE media (
    id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL,
    epoch INTEGER NOT NULL, time REAL NOT NULL, about TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX media_of ON media (kind, name, step);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, kind TEXT NOT NULL, step INTEGER NOT NULL,
    epoch INTEGER NOT NULL, time REAL NOT NULL, by TEXT NOT NULL, text TEXT NOT NULL, about TEXT NOT NULL);
CREATE TABLE console (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, time REAL NOT NULL, text TEXT NOT NULL);
CREATE TABLE commands (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, arguments TEXT NOT NULL, by TEXT NOT NULL, asked REAL NOT NULL,
    expires REAL NOT NULL, state TEXT NOT NULL, step INTEGER, epoch INTEGER, answered REAL, answer TEXT);
CREATE INDEX commands_waiting ON commands (state) WHERE state IN ('queued', 'taken');
CREATE TABLE notes (id INTEGER PRIMARY KEY, time REAL NOT NULL, by TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE tags (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE cursors (reader TEXT PRIMARY KEY, place TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE losses (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, time REAL NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL,
    why TEXT NOT NULL);
"""
TABLES = f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={VERSION};COMMIT;"
BESIDE = ("", "-wal", "-shm", "-journal")  # a file and what SQLite keeps beside it
NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # for a log's index, in a folder that cannot be written


class StoreError(EpochalError):
    """A run's file cannot be opened or read."""


def file_of(folder: Path, rank: int = 0) -> Path:
    """Return where a rank keeps its file.

    >>> file_of(Path("runs/digits"), 1).as_posix()
    'runs/digits/run-1.db'
    """
    return folder / (FILE if rank == 0 else f"run-{rank}.db")


def nothing(_: sqlite3.Connection) -> None:
    """Put nothing into a new file but its tables."""


def open_to_write(file: Path, begin: Callable[[sqlite3.Connection], None] = nothing) -> sqlite3.Connection:
    """Open or make a run's file for the process that trains it; sqlite3.Error or OSError where that cannot be, now.

    ``begin`` writes what the file is to hold from then on; a new one has it from the moment at which it is there.

    On a network's file system, where processes cannot share the memory that a write-ahead log needs, it is written
    with a rollback journal instead: readers and the writer wait for each other, and nothing is lost.
    """
    is_new = not any(os.path.lexists(f"{file}{ending}") for ending in BESIDE) and make(file, begin)
    connection = sqlite3.connect(file, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        network = network_filesystem(file.parent)
        connection.execute(f"PRAGMA journal_mode={'TRUNCATE' if network else 'WAL'}")
        connection.execute(f"PRAGMA synchronous={'FULL' if network else 'NORMAL'}")
        if version(connection) == 0:  # somebody's empty file, or what was left of one beside an old log
            connection.executescript(TABLES)
        check(connection, file)
        if not is_new:
            begin(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def make(file: Path, begin: Callable[[sqlite3.Connection], None]) -> bool:
    """Make a file that is either there wholly or not at all; False if another process made it first."""
    from epochal.checkpointing.commit import temporary_name

    temporary = file.with_name(temporary_name(file.name))
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.executescript(TABLES)
            begin(connection)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            os.rename(temporary, file)
        return True
    finally:
        for ending in BESIDE:
            Path(f"{temporary}{ending}").unlink(missing_ok=True)


def open_to_read(file: Path) -> sqlite3.Connection:
    """Open a run's file for reading; StoreError where there is none, or it is not one of ours."""
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    uri = file.absolute().as_uri()
    try:
        connection = sqlite3.connect(
            f"{uri}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        try:
            check(connection, file)
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in NO_PLACE:
                raise
            connection = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None, check_same_thread=False)
            check(connection, file)
    except sqlite3.Error as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    return connection


def open_to_tell(file: Path) -> sqlite3.Connection:
    """Open a run's file for short writes beside its training: commands, notes, cursors; StoreError as for reading."""
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        check(connection, file)
    except sqlite3.Error as error:
        raise StoreError(f"{file} cannot be written: {error}") from error
    return connection


def version(connection: sqlite3.Connection) -> int:
    """Return the version of a file's tables, 0 if it has none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check(connection: sqlite3.Connection, file: Path) -> None:
    """Raise StoreError unless the tables are of our version."""
    found = version(connection)
    if found != VERSION:
        cure = "update epochal to read it" if found > VERSION else "it is no run store, or was never finished"
        raise StoreError(f"{file} has tables of version {found}, known is {VERSION}: {cure}")


def as_json(value: Any) -> str:
    """Return a value as JSON; what JSON does not know becomes its text.

    >>> as_json({"lr": 0.1, "path": Path("a")}), as_json({1j: 2})
    ('{"lr": 0.1, "path": "a"}', '"{1j: 2}"')
    """
    try:
        return json.dumps(value, default=text_of, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, or a value that holds itself
        return json.dumps(text_of(value), ensure_ascii=False)


def text_of(value: Any, say: Callable[[Any], str] = str) -> str:
    """Return a value's text, whatever its class makes of that."""
    try:
        return say(value)
    except Exception as error:
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"


def rows(connection: sqlite3.Connection, query: str, *arguments: Any) -> list[dict[str, Any]]:
    """Return what a query finds, each row by column names."""
    cursor = connection.execute(query, arguments)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
