"""A recorded run's curves at full resolution, as tables of other packages and as files."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from epochal.core.errors import MissingExtra

if TYPE_CHECKING:
    from epochal.runs.points import Points
    from epochal.runs.stored import Curve

LONG = ("name", "step", "epoch", "time", "value")
GROUP = 1 << 18  # points of a long table that are written at a time


class Export:
    """What ``StoredRun`` offers to take its curves elsewhere (internal).

    Long form: one row per point, with the columns name, step, epoch (from 0), time (seconds since 1970) and value,
    curve after curve. ``wide=True``: one row per step, a column per curve; where a curve has no value NaN stands, as
    for one that was NaN, and of several at one step the last. ``names``: of these curves; None: of all.
    """

    if TYPE_CHECKING:

        def metrics(self) -> list[str]: ...  # what it takes them from
        def parts(self, name: str) -> Iterator[Points]: ...
        def metric(self, name: str, *, attempt: int | None = None) -> Curve: ...

    def to_pandas(self, names: Sequence[str] | None = None, *, wide: bool = False) -> Any:
        """Return a pandas DataFrame; MissingExtra where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("pandas", "frames", "to_pandas") from None
        return pd.DataFrame(columns_of(self, names, wide=wide))

    def to_polars(self, names: Sequence[str] | None = None, *, wide: bool = False) -> Any:
        """Return a polars DataFrame; MissingExtra where polars is not installed."""
        try:
            import polars as pl
        except ImportError:
            raise MissingExtra("polars", "frames", "to_polars") from None
        return pl.DataFrame(columns_of(self, names, wide=wide))

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        names: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> None:
        """Write a Parquet file; MissingExtra where pyarrow is not installed."""
        try:
            import numpy as np
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtra("pyarrow", "frames", "to_parquet") from None
        table = None if not wide else pa.table(columns_of(self, names, wide=True))
        schema = pa.schema(zip(LONG, (pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.float64()), strict=True))
        with pq.ParquetWriter(path, schema if table is None else table.schema) as out:
            if table is not None:
                out.write_table(table)
            for name in [] if wide else chosen(self, names):
                for points in joined(self.parts(name), GROUP):
                    columns = (points.steps, points.epochs, points.times, points.values)
                    arrays = [pa.array(np.array(column)) for column in columns]
                    out.write_table(pa.table([pa.repeat(name, len(points)), *arrays], schema=schema))

    def to_csv(
        self,
        path: str | os.PathLike[str],
        names: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> None:
        """Write a CSV file, with the standard library alone; numbers come back as they were (repr)."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            if wide:
                columns = columns_of(self, names, wide=True)
                out.writerow(columns)
                lists = [column.tolist() for column in columns.values()]
                out.writerows([step, *map(cell, values)] for step, *values in zip(*lists, strict=True))
            else:
                out.writerow(LONG)
                for name in chosen(self, names):
                    out.writerows((name, *row) for row in rows_of(self, name))


def cell(value: float) -> Any:
    """Return how a value stands in a wide CSV file: nothing where there is none."""
    return "" if math.isnan(value) else value


def chosen(run: Export, names: Sequence[str] | None) -> list[str]:
    """Return the curves that were asked for; StoreError, when they are read, for one that is not there."""
    return run.metrics() if names is None else [names] if isinstance(names, str) else list(names)


def joined(parts: Iterable["Points"], least: int) -> Iterator["Points"]:
    """Yield points in parts of at least so many, the last perhaps smaller."""
    from epochal.runs.points import Points

    waiting = Points()
    for part in parts:
        waiting.extend(part)
        if len(waiting) >= least:
            yield waiting
            waiting = Points()
    if len(waiting):
        yield waiting


def rows_of(run: Export, name: str) -> Iterator[tuple[int, int, float, float]]:
    """Yield the points of a curve: step, epoch, time, value."""
    for points in run.parts(name):
        yield from zip(points.steps, points.epochs, points.times, points.values, strict=True)


def columns_of(run: Export, names: Sequence[str] | None, *, wide: bool) -> dict[str, Any]:
    """Return columns of equal length by their names, as NumPy arrays; the names of the long form as a list."""
    import numpy as np

    curves = {name: run.metric(name) for name in chosen(run, names)}
    if not wide:
        found: dict[str, Any] = {"name": [name for name, curve in curves.items() for _ in range(len(curve.step))]}
        kinds = {"step": np.int64, "epoch": np.int32, "time": np.float64, "value": np.float64}
        for column, kind in kinds.items():
            parts = [getattr(curve, column) for curve in curves.values()]
            found[column] = np.concatenate(parts) if parts else np.zeros(0, kind)
        return found
    steps = np.unique(np.concatenate([np.zeros(0, np.int64), *(curve.step for curve in curves.values())]))
    table: dict[str, Any] = {"step": steps}
    for name, curve in curves.items():
        column = np.full(len(steps), math.nan)
        column[np.searchsorted(steps, curve.step)] = curve.value
        table["step " if name == "step" else name] = column
    return table
