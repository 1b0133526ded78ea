"""A CSV file with one row per epoch."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.host import Record
from epochal.loggers.base import About, Logger, plain
from epochal.loggers.files import LogFile, keep_lines, set_aside

FIXED = ("epoch", "step", "seconds")
Row = dict[str, str]


class CSVLogger(Logger):
    """Write one row per epoch: epoch (from 0), step, seconds since the start, then metrics, ``lr/<group>`` and fitness.

    ``path`` defaults to ``metrics.csv`` in the run's folder. An empty cell is a value that this epoch did not measure;
    NaN and infinity are ``nan`` and ``inf``. A metric that appears later gets a column at the end of the header, and
    the file is rewritten in one step. What a validation outside the epochs measured (``final/...``) stands in the last
    row. A resumed training appends, an epoch that is repeated replaces its row; a new training sets an existing file
    aside as ``metrics.1.csv``.

    >>> CSVLogger("metrics.csv").path
    PosixPath('metrics.csv')
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        keep_native: bool = False,
        flush_limit: float = 10.0,
        name: str | None = None,
    ) -> None:
        super().__init__(keep_native=keep_native, flush_limit=flush_limit, name=name)
        self.path = None if path is None else Path(path)

    def needs_folder(self) -> bool:
        """Say whether the run's folder is wanted: not when the path is given."""
        return self.path is None

    def batches(self) -> int | None:
        """Return None: values of batches are not wanted."""
        return None

    def open(self, about: About) -> "CSVWriter":
        """Take up the file of the training that is resumed, or begin a new one."""
        path = about.place(self.path, "metrics.csv", "CSVLogger")
        if about.resumed:
            keep_lines(path, lambda _: True)  # all but a row that a killed process left unfinished
        else:
            set_aside(path)
        return CSVWriter(path, about.history if about.resumed else ())


class CSVWriter:
    """The file: its columns, and the last epoch in it; ``history`` is what a resumed training has behind it."""

    def __init__(self, path: Path, history: Sequence[Mapping[str, float]] = ()) -> None:
        self.path = path
        self.file = LogFile(path)
        rows = self.rows()
        self.columns: list[str] = list(rows[0]) if rows else list(FIXED)
        self.last = max((int(row["epoch"]) for row in rows), default=-1)
        self.missed = self.killed_before(rows, history)

    def killed_before(self, rows: Sequence[Row], history: Sequence[Mapping[str, float]]) -> list[Row]:
        """Return the rows of epochs that a checkpoint has and the file has not: the process was killed in between."""
        there = {int(row["epoch"]) for row in rows}
        return [
            {"epoch": str(epoch), **{name: cell(value) for name, value in plain(measured, frozenset(FIXED)).items()}}
            for epoch, measured in enumerate(history)
            if epoch not in there and epoch > self.last
        ]

    def rows(self) -> list[Row]:
        """Return the rows that are in the file; a torn last one is left out."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        return [row for row in reader if None not in row.values() and row.get("epoch", "").isdigit()]

    def write(self, records: Sequence[Record]) -> None:
        """Add the rows of new epochs."""
        new = self.missed + [row_of(record) for record in records if record.kind == "epoch"]
        final = [record for record in records if record.kind == "final"]
        if not new and not final:
            return
        extra = {name: cell(value) for record in final for name, value in record.values.items()}
        columns = ordered(self.columns, [*new, extra])
        epochs = [int(row["epoch"]) for row in new]
        follows = all(a < b for a, b in zip([self.last, *epochs], epochs, strict=False))
        self.file.check()
        if extra or columns != self.columns or not follows or not self.file.began:
            self.rewrite(columns, new, extra)
        else:
            self.file.append(table(columns, new, header=False))
        self.columns, self.missed = columns, []
        self.last = epochs[-1] if epochs else self.last

    def rewrite(self, columns: Sequence[str], new: Sequence[Row], extra: Row) -> None:
        """Put a new file in the place of the old one: other columns, a repeated epoch, or the final values."""
        rows = self.rows()
        for row in new:
            rows = [one for one in rows if int(one["epoch"]) < int(row["epoch"])] + [row]
        if extra and rows:
            rows[-1] = {**rows[-1], **extra}
        self.file.replace(table(columns, rows, header=True))

    def finish(self, end_reason: str) -> None:
        """Nothing is left to do: every row is in the file already."""


def row_of(record: Record) -> Row:
    """Return an epoch's row."""
    values = dict(record.values)
    fixed = {"epoch": record.at.epoch, "step": record.at.step, "seconds": values.pop("seconds", None)}
    return {name: cell(value) for name, value in {**fixed, **plain(values, frozenset(FIXED))}.items()}


def ordered(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns, the new ones at the end.

    >>> ordered(["epoch"], [{"epoch": 0, "train/loss": 1}, {"val/loss": 2, "train/loss": 1}])
    ['epoch', 'train/loss', 'val/loss']
    """
    return list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))


def cell(value: float | None) -> str:
    """Return a value so that reading it gives the same float.

    >>> cell(0.1), cell(float("inf")), cell(None)
    ('0.1', 'inf', '')
    """
    return "" if value is None else repr(value)


def table(columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> bytes:
    """Return rows as the bytes of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
