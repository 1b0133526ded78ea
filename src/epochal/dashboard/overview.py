"""What the list says of a run, read in one go: how it is, how far it is, how good it is."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from epochal.conditions.better import Mode, infer_mode
from epochal.core.errors import ArgumentError
from epochal.runs.curves import EPOCH, current, curves, read_ranges
from epochal.runs.points import Range
from epochal.runs.schema import rows
from epochal.runs.stored import decoded, state_of

SPARK = 60  # values of a curve in the list
BESTS = 40  # curves whose best values stand in the list
OVER = ("finished", "stopped", "failed", "interrupted", "preempted", "crashed")
NEWEST_SESSION = "FROM sessions ORDER BY id DESC LIMIT 1"
BRIEFLY = "started, beat, ended, state, pid, host, process, about"  # columns that the list needs
NEWEST = """SELECT s.id AS series, s.name AS metric, s.scope, n.step, n.epoch, n.time, n.value, n.low, n.low_step,
    n.high, n.high_step, n.count FROM series s JOIN newest n ON n.series = s.id"""


class Head(NamedTuple):
    """The newest session of a run, when the first one began, and the newest of each curve by its name."""

    session: dict[str, Any] | None
    began: float | None
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
    sessions = rows(connection, f"SELECT {columns}, (SELECT min(started) FROM sessions) AS began {NEWEST_SESSION}")
    session = {key: decoded(key, value) for key, value in sessions[0].items()} if sessions else None
    began = session.pop("began") if session is not None else None
    found = {row["series"]: row for row in rows(connection, NEWEST)}
    named = curves([(row["series"], row["metric"], row["scope"]) for row in found.values()])
    return Head(session, began, {name: found[series] for name, series in named.items()})


def latest(newest: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the values that were measured last.

    >>> latest({})["step"]
    0
    """
    return max(newest.values(), key=lambda row: (row["time"], row["step"]), default={"step": 0, "epoch": 0})


def run_row(connection: sqlite3.Connection, head: Head) -> dict[str, Any]:
    """Return what the list says of a run, but for its id, name and path."""
    session, newest = head.session or {}, head.newest
    about = session.get("about", {})
    fitness = newest.get("fitness")
    return {
        "trainer": about.get("trainer"),
        "state": head.state,
        "started": head.began,
        "ended": session.get("ended"),
        "beat": session.get("beat"),
        "epoch": head.epoch,
        "num_epochs": about.get("epochs"),
        "step": head.step,
        "fitness": fitness and fitness["value"],
        "best_fitness": fitness and fitness["high"],
        "best": {name: best(name, newest[name]) for name in told(newest)},
        "spark": spark(connection, newest),
        "tags": [name for (name,) in connection.execute("SELECT name FROM tags ORDER BY name")],
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


def told(newest: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the curves whose best values the list tells: those of epochs and validations, else of batches."""
    for scopes in (("epoch", "point", "final"), ("batch",)):
        names = [name for name, row in newest.items() if row["scope"] in scopes and kind_of(name, row) != "system"]
        if names:
            return sorted(names, key=lambda name: (name.startswith(("lr/", EPOCH)), name == "seconds"))[:BESTS]
    return []


def best(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a curve's extremes, where they were, and which of them is the better one."""
    kept = ("low", "low_step", "high", "high_step", "value")
    return {**{key: row[key] for key in kept}, "mode": mode_of(name)}


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


def kind_of(name: str, row: Mapping[str, Any]) -> str:
    """Return of what kind a curve is: its series' scope, or "system" for what the machine does."""
    return "system" if name.startswith("system/") else str(row["scope"])


def spark(connection: sqlite3.Connection, newest: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a small curve of what says most about a run: the fitness, a validation's loss, the training's."""
    likely = ("fitness", "val/loss", "epoch/train/loss", "train/loss")
    name = next((name for name in (*likely, *told(newest)) if name in newest), None)
    if name is None:
        return {"name": None, "values": []}
    stretches = current(connection.execute("SELECT id, from_step FROM attempts ORDER BY id").fetchall())
    found = read_ranges(connection, newest[name]["series"], stretches, most=SPARK)
    return {"name": name, "values": [one.low / 2 + one.high / 2 for one in evenly(found, SPARK)]}


def evenly(found: Sequence[Range], most: int) -> list[Range]:
    """Return at most so many, evenly spread, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(place * (len(found) - 1) / (most - 1))] for place in range(most)]
