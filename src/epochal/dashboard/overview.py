"""What the list says of a run, read in one go: how it is, how far it is, how good it is."""

import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from epochal.conditions.better import Mode, infer_mode
from epochal.core.errors import ArgumentError
from epochal.runs.curves import EPOCH
from epochal.runs.process import state_of
from epochal.runs.schema import rows
from epochal.runs.stored import decoded
from epochal.runs.summary import NEWEST, SYSTEM, Summary, newest_of, told

OVER = ("finished", "stopped", "failed", "interrupted", "preempted", "crashed")
NEWEST_SESSION = "FROM sessions ORDER BY id DESC LIMIT 1"
TIME, STEP, EPOCH_NUMBER = map(NEWEST.index, ("time", "step", "epoch"))
EXTREMES = ("low", "low_step", "high", "high_step", "value")
extremes = itemgetter(*map(NEWEST.index, EXTREMES))
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


def run_row(summary: Summary) -> dict[str, Any]:
    """Return what the list says of a run, but for its id, name and path."""
    session = summary.session or {}
    about = session.get("about", {})
    curves = summary.curves
    last = max(curves.values(), key=lambda row: (row[TIME], row[STEP]), default=None)
    fitness = summary.newest("fitness") if "fitness" in curves else None
    return {
        "trainer": about.get("trainer"),
        "state": summary.state,
        "started": summary.began,
        "ended": session.get("ended"),
        "beat": session.get("beat"),
        "epoch": last[EPOCH_NUMBER] if last else 0,
        "num_epochs": about.get("epochs"),
        "step": last[STEP] if last else 0,
        "fitness": fitness and fitness["value"],
        "best_fitness": fitness and fitness["high"],
        "best": {
            name: {**dict(zip(EXTREMES, extremes(curves[name]), strict=True)), "mode": mode_of(name)}
            for name in told(summary.scopes)
        },
        "spark": summary.spark,
        "tags": summary.tags,
        "control": bool(about.get("control")),
        "error": None,
    }


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


@lru_cache(4096)
def mode_of(name: str) -> Mode | None:
    """Return which way a metric is good, None if its name does not tell.

    >>> mode_of("val/loss"), mode_of("fitness"), mode_of("lr/0")
    ('min', 'max', None)
    """
    try:
        return infer_mode(name.removeprefix(EPOCH))
    except ArgumentError:
        return None
