"""How far a destination has come in a run's store: kept in the store itself, so that another process goes on there."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import time
from typing import Any, Literal, cast

from epochal.core.errors import EpochalError
from epochal.runs.process import host_name, started
from epochal.runs.schema import open_to_read, open_to_tell

Standing = Literal["ours", "taken", "lost"]


class TakenOver(EpochalError):
    """Another follower delivers to the same destination by now."""


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
        return by is not None and by.get("pid") != os.getpid() and is_alive(by)


def load(file: Path, reader: str) -> Cursor:
    """Return a reader's cursor, at the beginning where there is none; StoreError where the run has no store."""
    with closing(open_to_read(file)) as connection:
        return found(connection, reader) or Cursor(reader)


def found(connection: sqlite3.Connection, reader: str) -> Cursor | None:
    """Return a reader's cursor, if there is one."""
    row = connection.execute("SELECT place FROM cursors WHERE reader = ?", (reader,)).fetchone()
    return None if row is None else decoded(reader, row[0])


def all_cursors(file: Path) -> list[Cursor]:
    """Return the cursors of all readers of a run's store."""
    with closing(open_to_read(file)) as connection:
        rows = connection.execute("SELECT reader, place FROM cursors ORDER BY rowid").fetchall()
    return [decoded(reader, place) for reader, place in rows]


def decoded(reader: str, place: str) -> Cursor:
    """Return the cursor that was written; fields that we do not know, or that are torn, are left out."""
    with suppress(ValueError, RecursionError):
        known: Any = json.loads(place)
        if isinstance(known, dict):
            values = cast("dict[str, Any]", known)
            usual = asdict(Cursor(reader))
            fits = {name: value for name, value in values.items() if name in usual and is_like(value, usual[name])}
            fits.pop("reader", None)
            return Cursor(reader, **fits)
    return Cursor(reader)


def is_like(value: Any, usual: Any) -> bool:
    """Say whether a field's value is of the kind that it has at the beginning.

    >>> is_like({"a": 1}, {}), is_like(None, {}), is_like({"pid": 7}, None)
    (True, False, True)
    """
    return isinstance(value, (dict, type(None))) if usual is None else type(value) is type(usual)


def standing(file: Path, cursor: Cursor) -> Standing:
    """Say whether the store still has a follower's claim: "ours", "taken" by another, or "lost" with its file."""
    with closing(open_to_read(file)) as connection:
        kept = found(connection, cursor.reader)
    return "lost" if kept is None else "taken" if is_taken(kept.by, cursor.by) else "ours"


def is_taken(by: Mapping[str, Any] | None, mine: Mapping[str, Any] | None) -> bool:
    """Say whether a living follower that is not ours has the claim."""
    return bool(by) and by != mine and is_alive(by)


def is_alive(by: Mapping[str, Any]) -> bool:
    """Say whether a process of this machine lives."""
    told = by.get("started")
    return bool(told) and by.get("host") == host_name() and started(int(by.get("pid", 0))) == told


def save(file: Path, cursor: Cursor, *, claim: Mapping[str, Any] | None = None) -> None:
    """Keep a cursor; sqlite3.Error or StoreError where that cannot be, now.

    ``claim``: TakenOver, and nothing is kept, where another follower has claimed the destination since.
    """
    place = asdict(cursor)
    del place["reader"]
    with closing(open_to_tell(file)) as connection:
        connection.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes away is sent again, and counts once
        connection.execute("BEGIN IMMEDIATE")
        kept = found(connection, cursor.reader) if claim is not None else None
        if kept is not None and is_taken(kept.by, claim):
            connection.execute("ROLLBACK")
            raise TakenOver(f"another process delivers to {cursor.destination} by now")
        keep(connection, cursor.reader, json.dumps(place, default=str))
        connection.execute("COMMIT")


def keep(connection: sqlite3.Connection, reader: str, place: str) -> None:
    """Write the row."""
    connection.execute("INSERT OR REPLACE INTO cursors (reader, place, time) VALUES (?, ?, ?)", (reader, place, time()))
