"""What the page of one run shows: all of it but the curves' points, the media and the console."""

import json
import sqlite3
import sys
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from epochal.checkpointing.layout import FOLDER
from epochal.checkpointing.listing import read_listing
from epochal.checkpointing.retention import ranked
from epochal.dashboard.overview import OVER, Head, best, kind_of, read_head
from epochal.dashboard.plain import Refused
from epochal.runs.curves import Stretch, read_ranges, stretches_of
from epochal.runs.newest import LAST
from epochal.runs.process import state_of
from epochal.runs.schema import rows
from epochal.runs.stored import StoredRun, decoded

MOST = 20_000  # rows of one answer


def detail(run: StoredRun, connection: sqlite3.Connection, *, read_only: bool) -> dict[str, Any]:
    """Return what a run's page begins with."""
    head = read_head(connection)
    session, state = head.session or {}, head.state
    return {
        "name": run.name,
        "state": state,
        "step": head.step,
        "epoch": head.epoch,
        "num_epochs": session.get("about", {}).get("epochs"),
        "sessions": sessions(connection),
        "attempts": rows(connection, "SELECT * FROM attempts ORDER BY id"),
        "params": params(connection),
        "about": session.get("about", {}),
        "callbacks": callbacks(connection, session),
        "curves": [curve(name, row) for name, row in sorted(head.newest.items())],
        "epochs": epochs(connection),
        "notes": rows(connection, "SELECT id, time, by, text FROM notes ORDER BY id"),
        "tags": [name for (name,) in connection.execute("SELECT name FROM tags ORDER BY name")],
        "checkpoints": checkpoints(run),
        "commands": commands(head, state, read_only=read_only, rank=run.rank),
        "losses": rows(connection, "SELECT time, what, count, why FROM losses ORDER BY id"),
        "read_only": read_only,
    }


def params(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the hyper-parameters."""
    found = connection.execute("SELECT name, value FROM params ORDER BY name")
    return {name: json.loads(value) for name, value in found}


def sessions(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return one mapping per process that trained the run, without what stands elsewhere in the answer."""
    left_out = ("callbacks", "commands", "process")
    found = rows(connection, "SELECT * FROM sessions ORDER BY id")
    return [
        {
            **{key: decoded(key, value) for key, value in row.items() if key not in left_out},
            "state": state_of(row),
        }
        for row in found
    ]


def callbacks(connection: sqlite3.Connection, session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the callbacks of the newest session: what they decided and, once it is over, what they cost."""
    costs = (session.get("summary") or {}).get("costs") or {}
    decisions = Counter(by for (by,) in connection.execute("SELECT by FROM events"))
    found: list[dict[str, Any]] = []
    for one in session.get("callbacks", []):
        calls, seconds = costs.get(one["name"], (None, None))
        found.append({**one, "decisions": decisions[one["name"]], "calls": calls, "seconds": seconds})
    return found


def curve(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a curve."""
    kept = {key: row[key] for key in ("count", "step", "epoch", "time")}
    return {"name": name, "kind": kind_of(name, row), **best(name, row), **kept}


def epochs(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the epochs as they count now: what a later attempt repeats is left out."""
    query = """SELECT epoch, first_step, last_step, started, ended FROM epochs
        WHERE attempt = ? AND (last_step, epoch) < (?, ?) ORDER BY epoch LIMIT ?"""
    found: list[dict[str, Any]] = []
    for stretch in stretches_of(connection):
        found += rows(connection, query, stretch.attempt, *stretch.end[:2], MOST)
    return found


def checkpoints(run: StoredRun) -> list[dict[str, Any]]:
    """Return the committed checkpoints, oldest first."""
    folder = run.path / FOLDER
    if folder.is_symlink():
        return []
    manifests = [one.manifest for one in read_listing(folder).saved if not one.path.is_symlink()]
    first = next(iter(ranked(manifests)), None)
    return [
        {
            "name": one.name, "epoch": one.epoch, "batch": one.batch, "step": one.step, "reason": one.reason,
            "metrics": dict(one.metrics), "fitness": one.fitness, "size": one.size, "pinned": one.pinned,
            "created": one.created, "best": one is first,
        }
        for one in manifests
    ]  # fmt: skip


def commands(head: Head, state: str, *, read_only: bool, rank: int = 0) -> list[dict[str, Any]]:
    """Return the commands that the run's training takes, and why not now."""
    session = head.session or {}
    why: str | None = None
    if read_only:
        why = "this page was started with --read-only"
    elif rank:
        why = "rank 0 takes the commands, for all"
    elif state in OVER:
        why = f"the training is over: {state}"
    elif not session.get("about", {}).get("control"):
        why = "the training was started with control=False"
    offered: list[dict[str, Any]] = session.get("commands", [])
    reasons = [why or one.get("why_not") for one in offered]
    return [
        {"label": one["name"], "arguments": [], **one, "available": reason is None, "why_not": reason}
        for one, reason in zip(offered, reasons, strict=True)
    ]


class Window(NamedTuple):
    """The steps that are looked at, both ends included, and as how many ranges at most: they, or ``whole`` curves."""

    begin: int = 0
    end: int = LAST
    most: int = 2000
    whole: bool = False


def points(
    run: StoredRun, connection: sqlite3.Connection, name: str, window: Window, attempt: int | None
) -> dict[str, Any]:
    """Return a curve between two steps as few ranges, as columns."""
    series, stretches = run.series(connection, name), run.stretches(connection, attempt)
    return {"name": name, **columns(connection, series, stretches, window)}


def together(
    run: StoredRun, connection: sqlite3.Connection, names: Sequence[str], windows: Sequence[Window]
) -> list[dict[str, Any] | None]:
    """Return curves, packed, each between its own steps; None for one that the run does not have."""
    known, stretches = run.named(connection), run.stretches(connection)
    return [
        pack({"name": name, **columns(connection, known[name], stretches, window)}) if name in known else None
        for name, window in zip(names, windows, strict=True)
    ]


def columns(
    connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch], window: Window
) -> dict[str, Any]:
    """Return a series between two steps as columns, and how many points it has in all, up to which step."""
    begin, end, most, whole = window
    newest = connection.execute("SELECT count, step FROM newest WHERE series = ?", (series,)).fetchone()
    count, last = newest or (0, -1)
    found = read_ranges(connection, series, stretches, most=most, begin=begin, end=end, of=count if whole else None)
    low, high = [one.low for one in found], [one.high for one in found]
    return {
        "step": [one.step for one in found],
        "time": [one.time for one in found],
        "low": low,
        "high": high,
        "level": 0 if low == high else level_of(connection, series, stretches, len(found), window),
        "count": count,
        "last": last,
    }


def pack(curve: Mapping[str, Any]) -> dict[str, Any]:
    """Return a curve with its columns as base64 of little-endian doubles: as numbers in JSON they take far longer."""
    columns = [array("d", curve[column]) for column in ("step", "time", "low", "high")]
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    points = b64encode(b"".join(column.tobytes() for column in columns)).decode()
    return {**{key: curve[key] for key in ("name", "level", "count", "last")}, "points": points}


def level_of(
    connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch], shown: int, window: Window
) -> int:
    """Return how coarse a curve of so many ranges is: 0 single points, 1 up to 16 in one, 2 up to 256, 3 more."""
    count = 0
    query = "SELECT total(count) FROM chunks WHERE series = ? AND attempt = ? AND last_step >= ? AND first_step <= ?"
    for stretch in stretches:
        upto = min(window.end, stretch.end.step)
        count += int(connection.execute(query, (series, stretch.attempt, window.begin, upto)).fetchone()[0])
    return next((level for level in range(3) if count <= shown * 16**level), 3)


def events(connection: sqlite3.Connection, after: int = 0) -> list[dict[str, Any]]:
    """Return what happened, behind an event's id."""
    query = "SELECT id, kind, step, epoch, time, by, text, about FROM events WHERE id > ? ORDER BY id LIMIT ?"
    return [{key: decoded(key, value) for key, value in row.items()} for row in rows(connection, query, after, MOST)]


def audit(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return what people asked of the training, and what became of that."""
    query = "SELECT * FROM (SELECT rowid AS place, * FROM commands ORDER BY rowid DESC LIMIT ?) ORDER BY place"
    found = rows(connection, query, MOST)
    return [{key: decoded(key, value) for key, value in row.items() if key != "place"} for row in found]


def console(connection: sqlite3.Connection, after: int | None) -> list[dict[str, Any]]:
    """Return console lines behind an id, oldest first; None: the newest."""
    if after is None:
        query = "SELECT * FROM (SELECT id, time, text FROM console ORDER BY id DESC LIMIT ?) ORDER BY id"
        return rows(connection, query, MOST // 10)
    return rows(connection, "SELECT id, time, text FROM console WHERE id > ? ORDER BY id LIMIT ?", after, MOST)


def media(connection: sqlite3.Connection, kind: str) -> list[dict[str, Any]]:
    """Return the images, histograms or texts, without their data."""
    query = "SELECT id, attempt, name, step, epoch, time, about FROM media WHERE kind = ? ORDER BY id"
    return [{key: decoded(key, value) for key, value in row.items()} for row in rows(connection, query, kind)]


def medium(connection: sqlite3.Connection, number: int) -> tuple[str, bytes]:
    """Return the kind and the data of an image, histogram or text."""
    found = connection.execute("SELECT kind, data FROM media WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise Refused(404, f"there is no image, histogram or text of id {number}")
    return str(found[0]), bytes(found[1]) if not isinstance(found[1], str) else found[1].encode()
