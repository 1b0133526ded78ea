"""What the list says of a run, read in one go: how it is, how far it is, how good it is."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from epochal.runs.process import state_of
from epochal.runs.schema import rows
from epochal.runs.stored import decoded
from epochal.runs.summary import EXTREMES, SYSTEM, mode_of, newest_of

OVER = ("finished", "stopped", "failed", "interrupted", "preempted", "crashed")
NEWEST_SESSION = "FROM sessions ORDER BY id DESC LIMIT 1"
BRIEFLY = "started, beat, ended, state, pid, host, process, about"  # columns that tell how a run is


class Head(NamedTuple):
    """The newest session of a run, and the newest of each curve by its name."""

    session: dict[str, Any] | None
    newest: dict[str, dict[str, Any]]

    @property
    def state(self) -> str:
        """How the run is."""
        return "crashed" if self.session is None else state_of(self.session)

    @property
    def step(self) -> int:
        """The highest step of the newest values."""
        return latest(self.newest)["step"]

    @property
    def epoch(self) -> int:
        """The epoch of the newest values, from 0."""
        return latest(self.newest)["epoch"]


def read_head(connection: sqlite3.Connection, columns: str = "*") -> Head:
    """Read what every view of a run begins with."""
    sessions = rows(connection, f"SELECT {columns} {NEWEST_SESSION}")
    session = {key: decoded(key, value) for key, value in sessions[0].items()} if sessions else None
    return Head(session, newest_of(connection))


def latest(newest: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the values that were measured last.

    >>> latest({})["step"]
    0
    """
    return max(newest.values(), key=lambda row: (row["time"], row["step"]), default={"step": 0, "epoch": 0})


def unreadable_row(why: str, file: Path) -> dict[str, Any]:
    """Return what the list says of a run that cannot be read."""
    nothing = ("trainer", "ended", "num_epochs", "fitness", "best_fitness")
    try:
        changed = file.stat().st_mtime
    except OSError:
        changed = None
    return {
        **dict.fromkeys(nothing), "state": "unreadable", "started": changed, "beat": changed, "epoch": 0, "step": 0,
        "best": {}, "spark": {"name": None, "values": []}, "tags": [], "control": False, "error": why,
    }  # fmt: skip


def kind_of(name: str, row: Mapping[str, Any]) -> str:
    """Return of what kind a curve is: its series' scope, or "system" for what the machine does."""
    return "system" if name.startswith(SYSTEM) else str(row["scope"])


def best(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a curve's extremes, where they were, and which of them is the better one."""
    return {**{key: row[key] for key in EXTREMES}, "mode": mode_of(name)}
