"""`epochal watch`: one run in the terminal, live, until it ends; line by line where there is no terminal."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from epochal.dashboard.detail import events
from epochal.dashboard.overview import OVER, Head, read_head
from epochal.dashboard.served import reading, signature
from epochal.runs.curves import read_ranges
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun
from epochal.runs.summary import told

if TYPE_CHECKING:
    from rich.console import Console

LOOK = 0.2  # seconds between looks at the run's file
TRIES = 50  # looks that may fail in a row
STILL = 1.0  # seconds after which a run that writes nothing may have died
STATUS = {"finished": 0, "stopped": 0, "failed": 1, "crashed": 3, "interrupted": 130, "preempted": 143}


class Seen(NamedTuple):
    """A run at one moment: its head, the events that are new, and the curve of each metric that is shown."""

    head: Head
    events: list[dict[str, Any]]
    curves: dict[str, list[float]]
    num_epochs: int | None


def watch(folder: Path, console: "Console", pause: Callable[[float], None] = sleep) -> int:
    """Show a run until it ends, and return the exit status: 0 where it ended well, else what tells how it ended."""
    from epochal.commands.watch_view import Lines, Live

    run, state = StoredRun(folder.resolve()), "running"
    if console.is_terminal and not run.file.exists():
        console.print("Nothing is written there yet; the first log is waited for. Ctrl-C ends this.")
    with (Live if console.is_terminal else Lines)(console, run.name) as view:
        for seen in moments(run, pause):
            view.show(seen)
            state = seen.head.state
    return STATUS.get(state, 1)


def moments(run: StoredRun, pause: Callable[[float], None] = sleep) -> Iterator[Seen]:
    """Yield a run each time something is new, the end last; one that has no store yet is waited for."""
    written: tuple[int, ...] | None = None
    event, due, state, failures = 0, 0.0, "", 0
    while state not in OVER:
        now = signature(run.file)
        if now is None and state:
            raise StoreError(f"{run.file} was deleted while it was watched")
        if now is not None and (now != written or monotonic() >= due):
            try:
                seen, failures = look(run, event), 0
            except (sqlite3.Error, StoreError) as error:  # it may be in the making at this moment
                failures += 1
                if failures > TRIES:
                    raise StoreError(f"{run.file} cannot be read: {error}") from error
                pause(LOOK)
                continue
            if now != written or seen.head.state != state:
                state = seen.head.state
                event = max([event, *(one["id"] for one in seen.events)])
                yield seen
            written, due = now, monotonic() + STILL
        if state not in OVER:
            pause(LOOK)


def look(run: StoredRun, after: int) -> Seen:
    """Read a run."""
    with reading(run) as connection:
        head = read_head(connection)
        if head.session is None:
            raise StoreError("no training has written into it yet")
        about = (head.session or {}).get("about", {})
        stretches = run.stretches(connection)
        found = {name: read_ranges(connection, head.newest[name]["series"], stretches, most=60) for name in shown(head)}
        curves = {name: [one.low / 2 + one.high / 2 for one in ranges] for name, ranges in found.items()}
        return Seen(head, events(connection, after), curves, about.get("epochs"))


def shown(head: Head) -> list[str]:
    """Return the metrics that are shown, what says most first."""
    first = [name for name in ("train/loss", "fitness", "val/loss") if name in head.newest]
    scopes = {name: row["scope"] for name, row in head.newest.items()}
    rest = [name for name in told(scopes) if name not in first and name not in ("seconds", "epoch/train/loss")]
    return [*first, *rest]
