"""What a run's store holds behind a cursor, as the records that were logged, in their order."""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from epochal.core.host import Record
from epochal.core.metrics import At
from epochal.loggers.cursor import Cursor
from epochal.loggers.pictures import medium_of
from epochal.runs.newest import ATTEMPTS, End, ends
from epochal.runs.points import Points, decode
from epochal.runs.schema import open_to_read
from epochal.runs.tail import SEALED

MOST = 20_000  # points of one batch, about
MEDIA = 16  # images, texts and histograms of one batch
KINDS = {"batch": "metrics", "point": "metrics"}  # scope of a series -> kind of its records, where they differ
ORDER = {"epoch": 1, "final": 2}  # at one step: what was logged, then the epoch's row, then what came last
Key = tuple[int, int, int, float, str, int]


class Batch(NamedTuple):
    """Records, how many points they hold, and the cursor behind them.

    ``back``: a training was resumed or rolled back to behind this step, and the records come from then on.
    """

    records: list[Record]
    points: int
    cursor: Cursor
    back: int | None = None


class Head(NamedTuple):
    """A chunk of a series with points that were not delivered yet."""

    series: int
    first: int
    size: int
    first_step: int
    last_step: int


class Feed:
    """Reads a run's store behind a cursor; each call opens the file for itself, so that nothing is held meanwhile.

    Values of one log call come as one record. What a later attempt has repeated by now is left out.

    >>> Feed(Path("runs/digits/run.db")).read(Cursor("mlflow MLflowLogger")).records          # doctest: +SKIP
    [Record(kind='params', values={'lr': 0.1}, ...), Record(kind='metrics', ...)]
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self, cursor: Cursor, *, most: int = MOST) -> Batch:
        """Return the next records, of some ``most`` points, and where the next ones begin; StoreError without a file.

        No records: there are no more now.
        """
        with closing(open_to_read(self.file)) as connection:
            connection.execute("BEGIN")  # one moment of the file
            params, cursor = self.params(connection, cursor)
            begun, back = ends_of(connection), None
            media, cursor = self.media(connection, cursor, begun)
            for attempt, end in begun.items():
                if attempt < cursor.attempt:
                    continue
                if attempt > cursor.attempt:
                    back = begin_of(connection, attempt) if cursor.attempt else None
                    cursor = replace(cursor, attempt=attempt, counts={})
                series, points = self.points(connection, cursor, most)
                if points:
                    counts = {**cursor.counts}
                    for number, found in points.items():
                        key = key_of(*series[number])
                        counts[key] = counts.get(key, 0) + len(found)
                    cursor = replace(cursor, counts=counts)
                    records = regrouped({series[number]: found for number, found in points.items()}, end)
                    return Batch([*params, *records, *media], sum(map(len, points.values())), cursor, back)
        return Batch([*params, *media], 0, cursor, back)

    def waiting(self, cursor: Cursor) -> int:
        """Return how many points were not delivered yet."""
        with closing(open_to_read(self.file)) as connection:
            query = "SELECT coalesce(sum(count), 0) FROM chunks WHERE attempt >= ?"
            held = int(connection.execute(query, (cursor.attempt,)).fetchone()[0])
        return max(held - cursor.delivered, 0)

    def params(self, connection: sqlite3.Connection, cursor: Cursor) -> tuple[list[Record], Cursor]:
        """Return the hyper-parameters that are new or changed."""
        found = connection.execute("SELECT name, value FROM params ORDER BY rowid").fetchall()
        sums = {name: crc32(value.encode()) for name, value in found}
        new = {name: json.loads(value) for name, value in found if cursor.params.get(name) != sums[name]}
        if not new:
            return [], cursor
        begun = connection.execute("SELECT max(started) FROM sessions").fetchone()[0] or 0.0
        return [Record("params", new, At(0, None, 0), begun)], replace(cursor, params={**cursor.params, **sums})

    def media(
        self, connection: sqlite3.Connection, cursor: Cursor, ends: Mapping[int, End]
    ) -> tuple[list[Record], Cursor]:
        """Return the next images, texts and histograms."""
        records: list[Record] = []
        for number, attempt, kind, name, step, epoch, time, about, data in connection.execute(
            "SELECT id, attempt, kind, name, step, epoch, time, about, data FROM media"
            " WHERE kind IN ('image', 'text', 'histogram') AND id > ? ORDER BY id LIMIT ?",
            (cursor.media, MEDIA),
        ):
            found = None if ends.get(attempt, End()).is_before(step, epoch) else medium_of(kind, about, bytes(data))
            if found is not None:
                value, boxes = found
                records.append(Record(kind, {name: value}, At(epoch, None, step), time, boxes))
            cursor = replace(cursor, media=number)
        return records, cursor

    def points(
        self, connection: sqlite3.Connection, cursor: Cursor, most: int
    ) -> tuple[dict[int, tuple[str, str]], dict[int, Points]]:
        """Return the series of a file, (scope, name), and the next points of those that have some."""
        series = {
            number: (scope, name)
            for number, name, scope in connection.execute("SELECT id, name, scope FROM series ORDER BY id")
        }
        had = {number: cursor.counts.get(key_of(*one), 0) for number, one in series.items()}
        heads = [head for number in series for head in heads_of(connection, number, cursor.attempt, had[number])]
        last = last_step(heads, had, most)
        found: dict[int, Points] = {}
        cut: set[int] = set()  # series whose next points come later
        for head in heads:
            if head.first_step > last or head.series in cut:
                continue
            data = connection.execute(
                "SELECT points FROM chunks WHERE series = ? AND attempt = ? AND first = ?",
                (head.series, cursor.attempt, head.first),
            ).fetchone()[0]
            points = decode(data).part(max(had[head.series] - head.first, 0))
            if points.steps[-1] > last:
                points = points.part(0, bisect_right(points.steps, last))
                cut.add(head.series)
            found.setdefault(head.series, Points()).extend(points)
        return series, {number: points for number, points in found.items() if len(points)}


def heads_of(connection: sqlite3.Connection, series: int, attempt: int, had: int) -> list[Head]:
    """Return the chunks of a series that hold more than its first ``had`` points, in order."""
    found = connection.execute(  # a chunk that holds the next point begins less than a whole chunk before it
        "SELECT series, first, count, first_step, last_step FROM chunks"
        " WHERE series = ? AND attempt = ? AND first > ? ORDER BY first",
        (series, attempt, had - SEALED),
    )
    heads = [Head(*row) for row in found]
    return [head for head in heads if head.first + head.size > had]


def last_step(heads: Iterable[Head], had: Mapping[int, int], most: int) -> int:
    """Return the step up to which some ``most`` points can be read, so that no log call is torn apart."""
    points = last = 0
    for head in sorted(heads, key=lambda head: head.last_step):
        if points >= most:
            return last
        points += head.first + head.size - max(had[head.series], head.first)
        last = head.last_step
    return last


def ends_of(connection: sqlite3.Connection) -> dict[int, End]:
    """Return the attempts in their order, and where what each has measured ends."""
    found = {one.attempt: one.end for one in ends(connection.execute(ATTEMPTS).fetchall())}
    for (number,) in connection.execute("SELECT DISTINCT attempt FROM chunks"):
        found.setdefault(number, End())
    return dict(sorted(found.items()))


def begin_of(connection: sqlite3.Connection, attempt: int) -> int | None:
    """Return the step behind which an attempt begins."""
    row = connection.execute("SELECT from_step FROM attempts WHERE id = ?", (attempt,)).fetchone()
    return None if row is None else int(row[0])


def regrouped(found: Mapping[tuple[str, str], Points], end: End) -> list[Record]:
    """Return points as the records of the calls that logged them, up to an end.

    >>> points = Points()
    >>> points.append(step=1, time=0.5, epoch=0, value=2.0)
    >>> [(one.kind, one.values) for one in regrouped({("point", "a"): points, ("point", "b"): points}, End())]
    [('metrics', {'a': 2.0, 'b': 2.0})]
    """
    groups: dict[Key, dict[str, float]] = {}
    for (scope, name), points in found.items():
        order = ORDER.get(scope, 0)
        columns = zip(points.epochs, points.steps, points.times, points.values, strict=True)
        for epoch, step, time, value in columns:
            if end.is_before(step, epoch):
                continue
            number = 0
            values = groups.setdefault((epoch, step, order, time, scope, number), {})
            while name in values:  # logged twice within what the clock can tell apart
                number += 1
                values = groups.setdefault((epoch, step, order, time, scope, number), {})
            values[name] = value
    return [
        Record(KINDS.get(scope, scope), values, At(epoch, 0 if scope == "batch" else None, step), time)
        for (epoch, step, _, time, scope, _), values in sorted(groups.items(), key=lambda one: one[0])
    ]


def key_of(scope: str, name: str) -> str:
    """Return a series' name in a cursor."""
    return f"{scope} {name}"
