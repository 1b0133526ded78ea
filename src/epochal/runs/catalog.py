"""All the runs of a folder."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from epochal.runs.folder import MARK
from epochal.runs.schema import FILE, StoreError
from epochal.runs.stored import StoredRun

DEEPEST = 5  # folders below the one that is opened, as runs/detect/train/epochal


class Runs(Sequence[StoredRun]):
    """The recorded runs below a folder, the oldest first; ``runs["name"]``, ``runs[-1]``, ``runs.filter(...)``.

    >>> len(open_runs("runs-of-nobody"))
    0
    """

    def __init__(self, found: Sequence[StoredRun], place: Path) -> None:
        self.found, self.path = list(found), place

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[StoredRun]:
        return iter(self.found)

    @overload
    def __getitem__(self, which: int | str) -> StoredRun: ...
    @overload
    def __getitem__(self, which: slice) -> "Runs": ...
    def __getitem__(self, which: "int | str | slice") -> "StoredRun | Runs":
        if isinstance(which, slice):
            return Runs(self.found[which], self.path)
        if isinstance(which, int):
            return self.found[which]
        for run in reversed(self.found):
            if which in (run.name, run.path.relative_to(self.path).as_posix()):
                return run
        names = ", ".join(run.name for run in self.found) or "none"
        raise StoreError(f"{self.path} has no recorded run {which!r}; there are {names}")

    def __repr__(self) -> str:
        return f"Runs({', '.join(run.name for run in self.found)})"

    def filter(self, wanted: "Callable[[StoredRun], bool] | None" = None, *, state: str | None = None) -> "Runs":
        """Return the runs for which ``wanted`` is true, and that are in a state, such as "running"."""
        found = [run for run in self.found if (wanted is None or wanted(run)) and (state in (None, run.state))]
        return Runs(found, self.path)

    def table(self, *curves: str) -> list[dict[str, Any]]:
        """Return one row per run, to compare them: ``pandas.DataFrame(runs.table("val/loss"))``.

        name, state, started, seconds, epochs, steps, tags; ``params/<name>`` for each hyper-parameter; for each curve
        that was asked for its newest value under its name, its least under ``min <name>`` and its greatest under
        ``max <name>``.
        What a run does not have is None; one that cannot be read has its ``state`` say so.
        """
        found = [row_of(run, curves) for run in self.found]
        names = dict.fromkeys(name for row in found for name in row)
        return [{name: row.get(name) for name in names} for row in found]


def row_of(run: StoredRun, curves: Sequence[str]) -> dict[str, Any]:
    """Return a run's row."""
    try:
        told = run.told()
    except StoreError as error:
        return {"name": run.name, "state": f"unreadable: {error}"}
    about = run.row(told)
    about |= {f"params/{name}": value for name, value in about.pop("params").items()}
    for name in curves:
        known = told.newest(name) if name in told.curves else {}
        about |= {name: known.get("value"), f"min {name}": known.get("low"), f"max {name}": known.get("high")}
    return about


def open_runs(path: str | os.PathLike[str] = "runs") -> Runs:
    """Return the recorded runs in a folder, of any depth; a run's own folder gives that one."""
    place = Path(path).absolute()
    return Runs([StoredRun(run) for run in sorted(folders(place), key=trained)], place)


def trained(run: Path) -> float:
    """Return when a run was trained last: its mark tells it, since a note or a tag leaves that as it is."""
    for name in (MARK, FILE):
        try:
            return os.stat(f"{run}/{name}").st_mtime
        except OSError:
            continue
    return 0.0  # deleted at this moment


def folders(place: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders with a store, at ``place`` and below."""
    try:
        inside = list(os.scandir(place))
    except OSError:
        return
    if any(one.name == FILE for one in inside):
        yield place
        return
    if depth < DEEPEST:
        for one in inside:
            if one.is_dir(follow_symlinks=False) and not one.name.startswith("."):
                yield from folders(Path(one.path), depth + 1)
