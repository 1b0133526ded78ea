"""`epochal sync`: deliver what a run's store holds to where its loggers could not, or to somewhere new."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from epochal.commands.destinations import LOGGERS, To
from epochal.core.errors import ArgumentError, EpochalError
from epochal.loggers.about import ENDS, About
from epochal.loggers.base import Logger
from epochal.loggers.cursor import Cursor, all_cursors
from epochal.loggers.feed import MOST
from epochal.loggers.follower import Follower, Place
from epochal.loggers.worker import first_line
from epochal.runs.schema import StoreError, file_of
from epochal.runs.stored import StoredRun

if TYPE_CHECKING:
    from rich.console import Console

HIDDEN = ":***@"  # in place of a password
TRIES = 3  # of a destination that fails
PAUSE = 2.0  # seconds between them


class Delivery(NamedTuple):
    """What became of one destination: how many points were delivered now, where they are, which end was told."""

    name: str
    points: int
    where: str
    ended: str | None

    def __str__(self) -> str:
        end = "the run goes on" if self.ended is None else f"the run is {self.ended}"
        what = f"{self.points:,} points delivered to" if self.points else "nothing was missing in"
        return f"{self.name}: {what} {self.where}; {end}"


Tell = Callable[[str, int, int], None]


def sync(folder: Path, to: To | None = None, *, uri: str | None = None, tell: Tell | None = None) -> list[Delivery]:
    """Deliver to each destination that a logger of the run has, or to ``to``, what it lacks, and how the run ended.

    ``tell`` is called with the destination's name, the points delivered, and all of them. EpochalError says which
    destination does not answer; what has arrived there is remembered.
    """
    run = StoredRun(folder)
    chosen = cursors(run, to)
    return [deliver(run, cursor, uri=uri, tell=tell) for cursor in chosen]


def cursors(run: StoredRun, to: To | None) -> list[Cursor]:
    """Return the cursors of a run that are meant; a new one where ``to`` has none."""
    found = [one for one in all_cursors(run.file) if one.destination in LOGGERS and to in (None, one.destination)]
    if found or to is None:
        if not found:
            raise StoreError(f"no logger of {run.path} has a place of its own; say where to: --to {'|'.join(To)}")
        return found
    return [Cursor(f"{to} {LOGGERS[to]}")]


def deliver(run: StoredRun, cursor: Cursor, *, uri: str | None = None, tell: Tell | None = None) -> Delivery:
    """Deliver to one destination all that it lacks."""
    if cursor.is_held():
        raise taken(cursor, run)
    logger = logger_of(cursor, uri)
    follower = follower_of(run, cursor, logger)
    total = follower.waiting()
    failures = 0
    while failures < TRIES:
        done = follower.turn()
        if follower.abandoned:
            raise taken(cursor, run)
        if tell is not None and done:
            tell(cursor.logger, follower.accepted, max(total, follower.accepted))
        if done and follower.is_drained():
            break
        failures = 0 if done else failures + 1
        if not done and failures < TRIES:
            sleep(PAUSE)
    session = run.sessions[-1]
    ended = session["state"] if session["state"] in ENDS else None
    try:
        if failures == TRIES:
            raise unreachable(follower, run)
        if ended is not None and follower.writer is not None:  # one that was opened must be ended, if once more
            follower.end_reason = ENDS[ended]
            follower.end(follower.writer)
            if not follower.finished:
                raise unreachable(follower, run)
    finally:
        follower.leave()
    where = (follower.cursor.told if follower.cursor is not None else {}).get("where", cursor.destination)
    return Delivery(cursor.logger, follower.accepted, where, ended)


def taken(cursor: Cursor, run: StoredRun) -> StoreError:
    """Return the error of a destination that another process serves."""
    return StoreError(f"{cursor.logger} of {run.path} delivers by itself at this moment; wait for its end")


def follower_of(run: StoredRun, cursor: Cursor, logger: Logger) -> Follower:
    """Return what delivers: on this thread, by turns."""
    sessions = run.sessions
    about, last = sessions[0]["about"], sessions[-1]
    over = (last["ended"] or last["beat"]) if last["state"] in ENDS else None

    def opens(file: Path, told: Any) -> Any:
        return logger.open(
            About(
                run.name, run.path.absolute(), about.get("trainer", ""), False, (), 0, sessions[0]["started"],
                stored=True, told=told, ended=over,
            )
        )  # fmt: skip

    place = Place(cursor.reader, cursor.options or logger.options())
    return Follower(
        cursor.logger, place, lambda: file_of(run.path), opens, passing=logger.is_passing, most=MOST
    )  # fmt: skip


def logger_of(cursor: Cursor, uri: str | None) -> Logger:
    """Make a logger as it was, from what its cursor keeps."""
    kind = getattr(import_module(f"epochal.loggers.{cursor.destination}"), LOGGERS[cursor.destination])
    options = dict(cursor.options)
    if uri is not None and cursor.destination != "mlflow":
        raise ArgumentError(f"--uri is for mlflow, not for {cursor.destination}")
    if uri is not None:
        options["uri"] = uri
    elif HIDDEN in (options.get("uri") or ""):
        from epochal.loggers.mlflow_client import configured_uri, without_password

        if without_password(configured_uri() or "") != options["uri"]:
            raise ArgumentError(
                f"the password of {options['uri']} is not kept: give the address with --uri, or MLFLOW_TRACKING_URI"
            )
        options["uri"] = configured_uri()
    return kind(**options)


def unreachable(follower: Follower, run: StoredRun) -> EpochalError:
    """Return the error of a destination that does not answer."""
    error = follower.error
    said = f"{type(error).__name__}: {first_line(error)}" if error is not None else "it does not answer"
    waiting = follower.waiting()
    return StoreError(
        f"{follower.name}: {waiting:,} points still wait ({said}); what has arrived is remembered, run this again later"
    )


def shown_sync(folder: Path, to: To | None, uri: str | None, console: "Console") -> list[Delivery]:
    """Deliver, with a line that shows how far it is where the console is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        return sync(folder, to, uri=uri, tell=tell)
