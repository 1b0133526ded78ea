"""What a list says of a run, kept beside its store: a thousand runs are listed without a thousand files being opened.

It is believed only while the store and its log are of the size and the time that they had when it was read from them.
"""

import json
import math
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from stat import S_ISREG
from time import time_ns
from typing import Any, NamedTuple

import orjson

from epochal.conditions.better import Mode, infer_mode
from epochal.core.errors import ArgumentError
from epochal.core.log import log
from epochal.runs.curves import EPOCH, curves, read_ranges, stretches_of
from epochal.runs.points import Range
from epochal.runs.process import state_of
from epochal.runs.schema import StoreError, open_to_read, rows

VERSION = 2
SYSTEM = "system/"  # before the names of what the machine does
LARGEST = 64 << 20  # bytes of a summary that is read
SETTLED = 10 * 10**9  # nanoseconds after which no write can leave a file with the time that it has
SPARK = 60  # values of the small curve
BESTS = 40  # curves that stand in a list of runs
LIKELY = ("fitness", "val/loss", "epoch/train/loss", "train/loss")  # what says most about a run
SESSION = "started, beat, ended, state, pid, host, process"  # columns that tell a session's state
ABOUT = ("trainer", "epochs", "control")  # what is kept of a session's environment
NEWEST = ("series", "scope", "step", "epoch", "time", "value", "low", "low_step", "high", "high_step", "count")
TIME, STEP, EPOCH_NUMBER, VALUE, HIGH = map(NEWEST.index, ("time", "step", "epoch", "value", "high"))
EXTREMES = ("low", "low_step", "high", "high_step", "value")
extremes = itemgetter(*map(NEWEST.index, EXTREMES))
LISTED = {  # what a list of runs says of one
    "trainer", "state", "started", "ended", "beat", "epoch", "num_epochs", "step", "fitness", "best_fitness", "best",
    "spark", "tags", "control", "error",
}  # fmt: skip
MARKUP = "<>&"
TROUBLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

Signature = tuple[int, ...]


class Summary(NamedTuple):
    """How a run is, by its newest session; how it was set up, how far it came, how good it was.

    ``curves``: for each the columns of ``NEWEST``. ``spark``: the name and few values of the one that says most.
    """

    session: dict[str, Any] | None
    began: float | None  # the first of its sessions
    seconds: float  # of all of them
    params: dict[str, Any]
    tags: list[str]
    curves: dict[str, list[Any]]
    spark: dict[str, Any]

    @property
    def state(self) -> str:
        """How it is now: a process may have died without a word."""
        return "crashed" if self.session is None else state_of(self.session)

    def newest(self, name: str) -> dict[str, Any]:
        """Return a curve's newest value, its least and its greatest, and where they were."""
        found: dict[str, Any] = dict(zip(NEWEST, self.curves[name], strict=True))
        return found if found["value"] is not None else {**found, "value": math.nan}  # which SQLite keeps as NULL

    @property
    def scopes(self) -> dict[str, str]:
        """The scope of each curve."""
        return {name: row[1] for name, row in self.curves.items()}

    def row(self) -> dict[str, Any]:
        """Return what a list of runs says of it, but for its id, name and path; the names are ``LISTED``."""
        session = self.session or {}
        about = session.get("about", {})
        last = max(self.curves.values(), key=lambda row: (row[TIME], row[STEP]), default=None)
        fitness = self.curves.get("fitness")
        return {
            "trainer": about.get("trainer"),
            "state": self.state,
            "started": self.began,
            "ended": session.get("ended"),
            "beat": session.get("beat"),
            "epoch": last[EPOCH_NUMBER] if last else 0,
            "num_epochs": about.get("epochs"),
            "step": last[STEP] if last else 0,
            "fitness": fitness and fitness[VALUE],
            "best_fitness": fitness and fitness[HIGH],
            "best": {
                name: {**dict(zip(EXTREMES, extremes(self.curves[name]), strict=True)), "mode": mode_of(name)}
                for name in told(self.scopes)
            },
            "spark": self.spark,
            "tags": self.tags,
            "control": bool(about.get("control")),
            "error": None,
        }

    def reached(self, column: str) -> int:
        """Return the highest step, or epoch, that a newest value is of, -1 if there is none."""
        return max(map(itemgetter(NEWEST.index(column)), self.curves.values()), default=-1)


def summary_of(file: Path, reading: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> Summary:
    """Return a store's summary: the one beside it if that holds, else what ``reading`` it says.

    That is written down for the next who asks, where nobody has written into the store for a while.
    """
    now = signature(file)
    known = None if now is None else load(file, now)
    if known is not None:
        return known
    with reading() as connection:
        found = read(connection)
    if now is not None and time_ns() - max(now[0], now[2]) > SETTLED:
        keep(file, found, now)
    return found


def seal(file: Path) -> None:
    """Write the summary of a store that its training is done with.

    The store's time is set back by the least that its disk knows: who writes into it, however soon, gives it another.
    """
    try:
        for one in (file, log_of(file)):
            if os.path.exists(one):
                found = os.stat(one)
                os.utime(one, ns=(found.st_atime_ns, found.st_mtime_ns - 1))
        now = signature(file)
        with closing(open_to_read(file)) as connection:
            found = read(connection)
    except (OSError, sqlite3.Error, StoreError, ValueError) as error:
        log().debug("%s has no summary: %s", file, error)
        return
    if now is not None:
        keep(file, found, now)


def signature(file: Path) -> Signature | None:
    """Return what changes whenever somebody writes into a store: times and sizes, its log's too; None if it is gone.

    >>> signature(Path("nowhere/run.db")) is None
    True
    """
    try:
        own = os.stat(file)
    except OSError:
        return None
    try:
        beside = os.stat(log_of(file))
    except OSError:
        return own.st_mtime_ns, own.st_size, 0, 0
    return own.st_mtime_ns, own.st_size, beside.st_mtime_ns, beside.st_size


def log_of(file: Path) -> str:
    """Return where SQLite keeps a file's write-ahead log."""
    return f"{file}-wal"


def summary_file(file: Path) -> str:
    """Return where a store's summary lies.

    >>> summary_file(Path("runs/digits/run-1.db")).replace(os.sep, "/")
    'runs/digits/summary-1.json'
    """
    folder, name = os.path.split(file)
    return os.path.join(folder, f"summary{name.removeprefix('run').removesuffix('.db')}.json")


def load(file: Path, now: Signature) -> Summary | None:
    """Return the summary beside a store of this signature, None where there is none, or none that can be believed."""
    try:
        head, _, rest = read_plainly(summary_file(file)).partition(b"\n")
        if not head.startswith(begin(now)):
            return None
        told = decoded(rest)
        found = Summary(*(told[field] for field in Summary._fields))
        whole = {len(NEWEST)} >= set(map(len, found.curves.values())) and found.state
    except TROUBLE:
        return None
    return found if whole else None


def load_row(file: Path, now: Signature) -> tuple[str, str] | None:
    """Return what a list says of a run that is over, as the JSON that was kept, and its state; None as ``load`` does.

    None also where it is not what every reader of JSON takes, or has a character that HTML has a meaning for.
    """
    try:
        head = read_plainly(summary_file(file)).partition(b"\n")[0]
        first = begin(now)
        if not head.startswith(first):
            return None
        text = head[len(first) : -1].decode("ascii")
        row = orjson.loads(text)  # which refuses NaN and infinities
        whole = (
            not any(one in text for one in MARKUP)
            and row.keys() == LISTED
            and row["ended"] is not None
            and isinstance(row["state"], str)
        )
    except TROUBLE:
        return None
    return (text, row["state"]) if whole else None


def decoded(text: bytes) -> Any:
    """Return what JSON says, NaN and infinities too.

    >>> decoded(b'{"low":0.5,"high":Infinity}')
    {'low': 0.5, 'high': inf}
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def begin(of: Signature) -> bytes:
    """Return how the summary of a store begins.

    >>> begin((1, 2, 0, 0))
    b'{"version":2,"of":[1,2,0,0],"row":'
    """
    return f'{{"version":{VERSION},"of":[{",".join(map(str, of))}],"row":'.encode()


def keep(file: Path, summary: Summary, of: Signature) -> None:
    """Write a summary down, unless the store has changed; where that cannot be, the next who asks reads the store."""
    from epochal.checkpointing.commit import write_pointer

    if signature(file) != of:
        return
    try:
        row, whole = (json.dumps(one, separators=(",", ":")) for one in (summary.row(), summary._asdict()))
        write_pointer(Path(summary_file(file)), f"{begin(of).decode()}{row}}}\n{whole}")
    except TROUBLE as error:
        log().debug("the summary of %s is not written: %s", file, error)


def read_plainly(file: str) -> bytes:
    """Return what a file of moderate size holds; OSError for a link, and for what is no file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(file, flags), "rb") as opened:
        found = os.fstat(opened.fileno())
        if not S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise OSError(f"{file} is no summary")
        return opened.read()


# -- reading the store ------------------------------------------------------------------------------------------------


def read(connection: sqlite3.Connection) -> Summary:
    """Return what a store says."""
    session = rows(connection, f"SELECT {SESSION}, about FROM sessions ORDER BY id DESC LIMIT 1")
    for one in session:
        about = json.loads(one["about"])
        one["about"] = {name: about.get(name) for name in ABOUT}
    began, seconds = connection.execute(
        "SELECT min(started), total(coalesce(ended, beat) - started) FROM sessions"
    ).fetchone()
    params = connection.execute("SELECT name, value FROM params ORDER BY name").fetchall()
    found = newest_of(connection)
    return Summary(
        session[0] if session else None, began, seconds, {name: json.loads(value) for name, value in params},
        [name for (name,) in connection.execute("SELECT name FROM tags ORDER BY name")],
        {name: list(row.values()) for name, row in found.items()}, spark(connection, found),
    )  # fmt: skip


def newest_of(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Return what each curve has come to, as the columns of ``NEWEST``."""
    columns = ", ".join(f"n.{name}" for name in NEWEST[2:])
    query = f"SELECT s.id AS series, s.scope, {columns}, s.name AS metric FROM series s LEFT JOIN newest n"
    found = {row["series"]: row for row in rows(connection, f"{query} ON n.series = s.id ORDER BY s.id")}
    named = curves([(number, row.pop("metric"), row["scope"]) for number, row in found.items()])
    return {name: found[number] for name, number in named.items() if found[number]["count"] is not None}


def told(scopes: Mapping[str, str]) -> list[str]:
    """Return the curves that say most, those of epochs and validations, else of batches; the machine's left out.

    >>> told({"lr/0": "epoch", "val/loss": "point", "train/loss": "batch", "system/cpu": "point"})
    ['val/loss', 'lr/0']
    """
    for wanted in (("epoch", "point", "final"), ("batch",)):
        names = [name for name, scope in scopes.items() if scope in wanted and not name.startswith(SYSTEM)]
        if names:
            return sorted(names, key=lambda name: (name.startswith(("lr/", EPOCH)), name == "seconds"))[:BESTS]
    return []


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


def spark(connection: sqlite3.Connection, newest: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a small curve of what says most about a run: the fitness, a validation's loss, the training's."""
    name = next(
        (name for name in (*LIKELY, *told({name: row["scope"] for name, row in newest.items()})) if name in newest),
        None,
    )
    if name is None:
        return {"name": None, "values": []}
    found = read_ranges(connection, newest[name]["series"], stretches_of(connection), most=SPARK)
    return {"name": name, "values": [float(f"{one.low / 2 + one.high / 2:.6g}") for one in evenly(found, SPARK)]}


def evenly(found: Sequence[Range], most: int) -> list[Range]:
    """Return at most so many, evenly spread, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(place * (len(found) - 1) / (most - 1))] for place in range(most)]
