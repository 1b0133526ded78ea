"""A file of JSON lines: one per epoch and, if wanted, one per n-th step."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.errors import ArgumentError
from epochal.core.host import Record
from epochal.loggers.base import About, Logger, plain
from epochal.loggers.files import LogFile, joined, keep_lines, set_aside

FIXED = frozenset({"kind", "epoch", "step", "time"})


class JSONLogger(Logger):
    """Write one JSON object per line: ``kind`` is "params", "step", "layers", "text", "epoch", "final" or "end".

    ``path`` defaults to ``metrics.jsonl`` in the run's folder; ``every=n`` writes what was logged in batches at each
    n-th optimizer step too. Every line but the last has ``epoch`` (from 0), ``step`` and ``time`` (seconds since 1970).
    JSON has no NaN and no infinity, they are the strings "NaN", "Infinity" and "-Infinity", which ``float()`` reads.
    Lines are written whole: a killed process leaves a file of which every line but perhaps the last can be parsed. A
    resumed training goes on in the file, without what it repeats; a new one sets the file aside as ``metrics.1.jsonl``.

    >>> JSONLogger(every=100).every
    100
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int | None = None,
        keep_native: bool = False,
        flush_limit: float = 10.0,
        name: str | None = None,
    ) -> None:
        super().__init__(keep_native=keep_native, flush_limit=flush_limit, name=name)
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"every={every!r} must be an int >= 1, a number of steps, or None")
        self.path = None if path is None else Path(path)
        self.every = every

    def needs_folder(self) -> bool:
        """Say whether the run's folder is wanted: not when the path is given."""
        return self.path is None

    def batches(self) -> int | None:
        """Return of which steps the values are wanted."""
        return self.every

    def open(self, about: About) -> "JSONWriter":
        """Take up the file of the training that is resumed, without what is repeated, or begin a new one."""
        path = about.place(self.path, "metrics.jsonl", "JSONLogger")
        if about.resumed:
            keep_lines(path, lambda line: stays(line, about))
        else:
            set_aside(path)
        return JSONWriter(path)


class JSONWriter:
    """The file, and the step whose values are not complete yet."""

    def __init__(self, path: Path) -> None:
        self.file = LogFile(path)
        self.last = -1
        self.batch: Record | None = None

    def write(self, records: Sequence[Record]) -> None:
        """Append the lines of these records."""
        lines: list[str] = []
        batch, last = self.batch, self.last
        for record in records:
            if record.kind == "metrics":
                if record.at.batch is not None:
                    batch = merged(batch, record, lines)
                continue
            if record.kind == "layers":
                lines.append(line_of(record.kind, record))
                continue
            batch = merged(batch, None, lines)
            if record.kind == "epoch":
                if record.at.epoch <= last:
                    self.forget(record.at.epoch)
                last = record.at.epoch
            if record.kind != "image":
                lines.append(line_of(record.kind, record))
        if lines:
            self.file.append(joined(lines))
        self.batch, self.last = batch, last

    def forget(self, epoch: int) -> None:
        """Drop the lines of epochs that are repeated."""
        keep_lines(self.file.path, lambda line: parsed(line).get("kind") != "epoch" or parsed(line)["epoch"] < epoch)

    def finish(self, end_reason: str) -> None:
        """Write the last step's line and how the training ended."""
        lines: list[str] = []
        merged(self.batch, None, lines)
        self.file.append(joined([*lines, json.dumps({"kind": "end", "end_reason": end_reason})]))
        self.batch = None


def merged(open_one: Record | None, record: Record | None, lines: list[str]) -> Record | None:
    """Add a record to the open one of its batch; a record of another batch, or None, completes the open one's line."""
    if open_one is not None and record is not None and open_one.at == record.at:
        return open_one._replace(values={**open_one.values, **record.values})
    if open_one is not None:
        lines.append(line_of("step", open_one))
    return record


def line_of(kind: str, record: Record) -> str:
    """Return a record as one line."""
    at = record.at
    fixed: dict[str, Any] = {"kind": kind, "epoch": at.epoch, "step": at.step, "time": round(record.time, 3)}
    return json.dumps({**fixed, **finite(plain(record.values, FIXED))}, allow_nan=False, default=str)


def finite(value: Any) -> Any:
    """Return a value with NaN and infinities as strings.

    >>> finite({"a": float("-inf"), "b": [float("nan"), 1.0]})
    {'a': '-Infinity', 'b': ['NaN', 1.0]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value


def parsed(line: str) -> dict[str, Any]:
    """Return a line's object; an empty one for a line that is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def stays(line: str, about: About) -> bool:
    """Say whether a line of the earlier part stays when the training goes on from a checkpoint."""
    found = parsed(line)
    kind = found.get("kind")
    if kind == "epoch":
        return found["epoch"] < len(about.history)
    return kind == "params" or (kind in ("step", "layers", "text") and found["step"] <= about.step)
