"""A recorded run: what was logged, how it went, read from its folder while it trains or long after."""

import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from epochal.core.errors import ArgumentError, nearest
from epochal.runs.book import whole
from epochal.runs.curves import Stretch, curves, parts, read_points, read_ranges, stretches_of
from epochal.runs.export import Export
from epochal.runs.points import Points, Range
from epochal.runs.process import state_of
from epochal.runs.schema import StoreError, file_of, open_to_read, open_to_tell, rows
from epochal.runs.summary import Summary, summary_of

WITHOUT_NUMBERS = {"epochs": "attempt, epoch", "tags": "name"}  # tables, and what orders them


class Curve(NamedTuple):
    """One metric as arrays of equal length: step, time (seconds since 1970), epoch (from 0) and value."""

    step: Any
    time: Any
    epoch: Any
    value: Any


class StoredRun(Export):
    """A run's folder with its store, opened for reading.

    >>> run = StoredRun(Path("runs/digits"))                # doctest: +SKIP
    >>> run.state, run.metric("val/loss").value.min()        # doctest: +SKIP
    ('finished', 0.021)
    """

    def __init__(self, path: Path, *, rank: int = 0) -> None:
        self.path, self.rank = Path(path), rank
        self.file = file_of(self.path, rank)

    def __repr__(self) -> str:
        return f"<StoredRun {self.path}>"

    @property
    def name(self) -> str:
        """The run's name, its folder's; that of ``runs/detect/train/epochal``, as YOLO's are, is ``train``."""
        return self.path.parent.name if self.path.name == "epochal" else self.path.name

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Give a connection that sees the store as it is now, closed behind; StoreError where there is none."""
        connection = open_to_read(self.file)
        try:
            connection.execute("BEGIN")
            yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{self.file} cannot be read: {error}") from error
        finally:
            connection.close()

    def told(self) -> Summary:
        """Return what a list of runs says of it: from the summary beside the store where that holds."""
        try:
            return summary_of(self.file, self.reading)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise StoreError(f"{self.file} holds what no store does: {error}") from error

    def table(self, name: str, where: str = "1", *arguments: Any, order: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of a table; what is JSON in it is decoded."""
        order = order or WITHOUT_NUMBERS.get(name, "rowid")
        with self.reading() as connection:
            found = rows(connection, f"SELECT * FROM {name} WHERE {where} ORDER BY {order}", *arguments)
        return [{key: decoded(key, value) for key, value in row.items()} for row in found]

    # -- how it went --------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """One mapping per process that trained it: started, ended, state, stop_reason, error, about, callbacks ..."""
        return [{**row, "state": state_of(row)} for row in self.table("sessions")]

    @property
    def state(self) -> str:
        """How it is: "running", "paused", "finished", "stopped", "failed", "interrupted", "preempted" or "crashed"."""
        return self.told().state

    @property
    def params(self) -> dict[str, Any]:
        """The hyper-parameters."""
        return {row["name"]: row["value"] for row in self.table("params", order="name")}

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """One mapping per stretch of steps: where it began (from_step), and in which session."""
        return self.table("attempts")

    @property
    def losses(self) -> list[dict[str, Any]]:
        """One mapping per loss: what could not be written, how much, when and why."""
        return self.table("losses")

    # -- what people add to it ----------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[dict[str, Any]]:
        """One mapping per note: time, by, text."""
        return self.table("notes")

    @property
    def tags(self) -> list[str]:
        """Its tags, in alphabetical order."""
        return [row["name"] for row in self.table("tags")]

    def add_note(self, text: str, *, by: str = "user") -> None:
        """Add a note, while it trains or later; StoreError where the file cannot be written."""
        self.tell("INSERT INTO notes (time, by, text) VALUES (?, ?, ?)", [(time(), whole(by), whole(str(text)))])

    def tag(self, *names: str) -> None:
        """Add tags; one that it has stays as it is."""
        self.tell("INSERT OR IGNORE INTO tags (name) VALUES (?)", [(whole(str(name)),) for name in names])

    def untag(self, *names: str) -> None:
        """Take tags away."""
        self.tell("DELETE FROM tags WHERE name = ?", [(whole(str(name)),) for name in names])

    def tell(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows into the file, beside the training."""
        connection = open_to_tell(self.file)
        try:
            connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise StoreError(f"{self.file} cannot be written: {error}") from error
        finally:
            connection.close()

    # -- what was measured --------------------------------------------------------------------------------------------

    def metrics(self) -> list[str]:
        """Return the names of all curves."""
        with self.reading() as connection:
            return sorted(curves(connection.execute("SELECT id, name, scope FROM series")))

    def points(self, name: str, *, attempt: int | None = None) -> Points:
        """Return a curve's points; ``attempt``: of that one alone, also what a later one repeated."""
        with self.reading() as connection:
            return read_points(connection, self.series(connection, name), self.stretches(connection, attempt))

    def parts(self, name: str) -> Iterator[Points]:
        """Yield a curve's points, some at a time, so that little memory is needed however long it is."""
        try:
            with closing(open_to_read(self.file)) as connection:
                yield from parts(connection, self.series(connection, name), self.stretches(connection))
        except sqlite3.Error as error:
            raise StoreError(f"{self.file} cannot be read: {error}") from error

    def metric(self, name: str, *, attempt: int | None = None) -> Curve:
        """Return a curve as NumPy arrays, at full resolution; StoreError where there is none of this name."""
        import numpy as np

        points = self.points(name, attempt=attempt)
        columns = (points.steps, points.times, points.epochs, points.values)
        return Curve(*(np.array(column) for column in columns))

    def ranges(
        self, name: str, *, most: int = 2000, begin: int = 0, end: int | None = None, attempt: int | None = None
    ) -> list[Range]:
        """Return a curve between two steps as at most ``most`` ranges, in little time however long it is."""
        if most < 1:
            raise ArgumentError(f"most={most!r} must be 1 or more")
        with self.reading() as connection:
            series, stretches = self.series(connection, name), self.stretches(connection, attempt)
            return read_ranges(connection, series, stretches, most=most, begin=begin, end=end)

    def newest(self) -> dict[str, dict[str, Any]]:
        """Return, for each curve, its newest value, its least and its greatest, and where they were."""
        told = self.told()
        return {name: told.newest(name) for name in told.curves}

    def summary(self) -> dict[str, Any]:
        """Return what a list of runs says of it, read in one go.

        name, state, started, seconds, epochs and steps that it came to, tags, params, and ``metrics``: the newest value
        of each curve with its least and its greatest (as ``newest`` has them).
        """
        told = self.told()
        return {**self.row(told), "path": str(self.path), "metrics": {name: told.newest(name) for name in told.curves}}

    def row(self, told: Summary) -> dict[str, Any]:
        """Return ``summary`` without the path and the metrics."""
        return {
            "name": self.name, "state": told.state, "started": told.began, "seconds": told.seconds,
            "epochs": told.reached("epoch") + 1, "steps": max(told.reached("step"), 0),
            "tags": told.tags, "params": told.params,
        }  # fmt: skip

    def named(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Return the curves' names and their series."""
        return curves(connection.execute("SELECT id, name, scope FROM series"))

    def series(self, connection: sqlite3.Connection, name: str) -> int:
        """Return the number of a curve's series."""
        named = self.named(connection)
        if name not in named:
            near = nearest(name, named)
            hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(sorted(named)) or 'none'}"
            raise StoreError(f"{self.path} has no curve {name!r}{hint}")
        return named[name]

    def stretches(self, connection: sqlite3.Connection, attempt: int | None = None) -> list[Stretch]:
        """Return which steps of which attempts are to be read."""
        return stretches_of(connection) if attempt is None else [Stretch(attempt)]

    # -- what else it holds -------------------------------------------------------------------------------------------

    def events(self) -> list[dict[str, Any]]:
        """Return what happened: kind, step, epoch, time, by whom, text."""
        return self.table("events")

    def commands(self) -> list[dict[str, Any]]:
        """Return what people asked of it, and what became of that."""
        return self.table("commands")

    def media(self, kind: str = "image", name: str | None = None) -> list[dict[str, Any]]:
        """Return the images, histograms or texts, without their data: id, name, step, epoch, time, about."""
        columns = "id, attempt, kind, name, step, epoch, time, about"
        with self.reading() as connection:
            found = rows(
                connection,
                f"SELECT {columns} FROM media WHERE kind = ? AND (? IS NULL OR name = ?) ORDER BY id",
                kind, name, name,
            )  # fmt: skip
        return [{key: decoded(key, value) for key, value in row.items()} for row in found]

    def data(self, number: int) -> bytes:
        """Return the data of an image, histogram or text by its id."""
        with self.reading() as connection:
            found = connection.execute("SELECT data FROM media WHERE id = ?", (number,)).fetchone()
        if found is None:
            raise StoreError(f"{self.path} has no image, histogram or text of id {number}")
        return bytes(found[0])


def decoded(key: str, value: Any) -> Any:
    """Return a column's value, JSON decoded where the column holds that."""
    if key in ("about", "callbacks", "commands", "summary", "arguments", "value") and isinstance(value, str):
        return json.loads(value)
    return value
