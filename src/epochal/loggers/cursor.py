"""How far a destination has come in a run's store: kept in the store itself, so that another process goes on there."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import time
from typing import Any, cast

from epochal.runs.process import host_name, started
from epochal.runs.schema import open_to_read, open_to_tell


def _texts() -> dict[str, Any]:
    return {}


def _numbers() -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Cursor:
    """A place in a run's store, for one reader: a destination and the name of the logger that serves it.

    ``counts`` says of each series of ``attempt`` how many points were delivered, all earlier attempts are; ``media``
    is the newest image's number, ``params`` a checksum of each hyper-parameter, ``ended`` the session whose end was
    told. ``options`` make the same logger anew, ``told`` is what its writer needs to go on there, and ``by`` the
    process that delivers now.

    >>> Cursor("mlflow MLflowLogger", attempt=2, counts={"batch train/loss": 7}).delivered
    7
    """

    reader: str
    attempt: int = 0
    counts: Mapping[str, int] = field(default_factory=_numbers)
    media: int = 0
    params: Mapping[str, int] = field(default_factory=_numbers)
    ended: int = 0
    options: Mapping[str, Any] = field(default_factory=_texts)
    told: Mapping[str, Any] = field(default_factory=_texts)
    by: Mapping[str, Any] | None = None

    @property
    def destination(self) -> str:
        """What it delivers to: "mlflow", "tensorboard" or "wandb"."""
        return self.reader.partition(" ")[0]

    @property
    def logger(self) -> str:
        """The name of the logger that it serves."""
        return self.reader.partition(" ")[2]

    @property
    def delivered(self) -> int:
        """How many points of its attempt were delivered."""
        return sum(self.counts.values())

    def anew(self) -> "Cursor":
        """Return the cursor of a destination that has nothing of the run yet."""
        return replace(self, attempt=0, counts={}, media=0, params={}, ended=0)

    def is_held(self) -> bool:
        """Say whether another process of this machine delivers at this moment."""
        import os

        by = self.by
        if not by or by.get("host") != host_name() or by.get("pid") == os.getpid() or not by.get("started"):
            return False
        return started(int(by["pid"])) == by["started"]


def load(file: Path, reader: str) -> Cursor:
    """Return a reader's cursor, at the beginning where there is none; StoreError where the run has no store."""
    with closing(open_to_read(file)) as connection:
        row = connection.execute("SELECT place FROM cursors WHERE reader = ?", (reader,)).fetchone()
    return Cursor(reader) if row is None else decoded(reader, row[0])


def all_cursors(file: Path) -> list[Cursor]:
    """Return the cursors of all readers of a run's store."""
    with closing(open_to_read(file)) as connection:
        found = connection.execute("SELECT reader, place FROM cursors ORDER BY rowid").fetchall()
    return [decoded(reader, place) for reader, place in found]


def decoded(reader: str, place: str) -> Cursor:
    """Return the cursor that was written; fields that we do not know are left out."""
    with suppress(ValueError):
        known: Any = json.loads(place)
        if isinstance(known, dict):
            values = cast("dict[str, Any]", known)
            return Cursor(reader, **{name: values[name] for name in Cursor.__match_args__[1:] if name in values})
    return Cursor(reader)


def save(file: Path, cursor: Cursor) -> None:
    """Keep a cursor; sqlite3.Error or StoreError where that cannot be, now."""
    place = asdict(cursor)
    del place["reader"]
    with closing(open_to_tell(file)) as connection:
        connection.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes away is sent again, and counts once
        keep(connection, cursor.reader, json.dumps(place, default=str))


def keep(connection: sqlite3.Connection, reader: str, place: str) -> None:
    """Write the row."""
    connection.execute("INSERT OR REPLACE INTO cursors (reader, place, time) VALUES (?, ?, ?)", (reader, place, time()))
