"""One training of one logger whose run has a store: what the logger delivers is read from there."""

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from epochal.core.log import log
from epochal.core.preemption import within
from epochal.loggers.about import About
from epochal.loggers.courier import Courier, Order
from epochal.loggers.follower import Follower, Place
from epochal.loggers.worker import Limits, Outcome, Writer, first_line

if TYPE_CHECKING:
    from epochal.core.callback import Callback
    from epochal.core.run import Run
    from epochal.runs.recorder import Recorder


class Served(Protocol):
    """What is asked of a logger."""

    destination: ClassVar[str]
    apart: ClassVar[bool]
    limits: ClassVar[Limits]
    flush_limit: float

    def options(self) -> dict[str, Any]:
        """Return the options that make it anew."""
        ...

    def private(self) -> dict[str, Any]:
        """Return options of its own process, which are never kept."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it knows of its destination."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that back."""
        ...

    def is_passing(self, error: Exception) -> bool:
        """Say whether an error may pass."""
        ...

    def open(self, about: About) -> Writer:
        """Open the destination."""
        ...


class Following:
    """Stands where ``Session`` stands for a logger without a store; nothing of a training passes through it."""

    def __init__(self, owner: "Served", run: "Run", recorder: "Recorder", *, resumed: bool) -> None:
        self.owner, self.run, self.recorder, self.resumed = owner, run, recorder, resumed
        self.step, self.started = run.engine.step, time.time()
        self.last: Path | None = None
        self.follower = self.courier() if is_apart(owner) else self.own_thread()

    def place(self) -> Place:
        """Return the name under which the destination's cursor is kept, and the options that are kept with it."""
        owner = self.owner
        return Place(f"{owner.destination} {self.label}", owner.options())

    @property
    def label(self) -> str:
        """The logger's name."""
        return self.run.label(cast("Callback", self.owner))

    def own_thread(self) -> Follower:
        """Return what delivers on a thread of this process."""
        owner = self.owner
        return Follower(
            self.label, self.place(), self.file, self.opens, limits=owner.limits, passing=owner.is_passing
        )  # fmt: skip

    def courier(self) -> Courier:
        """Return what has a process deliver."""
        owner, run, kind, place = self.owner, self.run, type(self.owner), self.place()
        order = Order(
            kind.__module__, kind.__qualname__, {**place.options, **owner.private()}, dict(place.options),
            owner.state_dict(), self.label, place.reader, run.name, run.host, self.resumed, self.step, self.started,
            os.getpid(),
        )  # fmt: skip
        return Courier(order, self.file, owner.load_state_dict)

    def start(self) -> None:
        """Start the thread, or the process."""
        self.follower.start()

    def file(self) -> Path | None:
        """Return the store's file, once there is one."""
        writer = self.recorder.writer
        self.last = (writer.file.path if writer is not None else None) or self.last
        return self.last

    def opens(self, file: Path, told: Mapping[str, Any]) -> Writer:
        """Open the destination, where the last process left it; on the follower's thread."""
        run = self.run
        return self.owner.open(
            About(run.name, file.parent, run.host, self.resumed, (), self.step, self.started, stored=True, told=told)
        )

    def note_epoch(self) -> None:
        """Nothing: the store notes epochs."""

    def flush_epoch(self) -> None:
        """Nothing: the store hands epochs over."""

    def close(self, end_reason: str) -> None:
        """Deliver the rest once the store has all of it."""
        self.recorder.when_written.append(partial(self.finish, end_reason))

    def finish(self, end_reason: str) -> None:
        """End the thread within the limit and say what waits, in the log and in the summary."""
        engine, follower = self.run.engine, self.follower
        outcome = follower.close(end_reason, limit=within(engine, self.owner.flush_limit))
        said = told(follower, outcome)
        if said is not None:
            engine.notes.append(said)
            log().warning("%s", said)


def is_apart(owner: Served) -> bool:
    """Say whether a logger works in a process of its own; where Python cannot be started again it is a thread."""
    is_python = bool(sys.executable) and not getattr(sys, "frozen", False)  # else it would start the program again
    return is_python and bool(vars(type(owner)).get("apart"))


def told(follower: Follower | Courier, outcome: Outcome) -> str | None:
    """Return in words what the destination lacks and what brings it, or None if it lacks nothing."""
    file = follower.file()
    if file is None or follower.cursor is None:
        return None if outcome.error is None else f"{follower.name}: {first_line(outcome.error)}"
    parts = [f"{outcome.lost} records were refused and left out"] if outcome.lost else []
    error = "" if outcome.error is None else f"{type(outcome.error).__name__}: {first_line(outcome.error)}"
    if not outcome.finished:
        waiting = follower.waiting()
        parts.append(
            f"{waiting:,} points wait in the run's store; `epochal sync {shown(file.parent)}` will bring them"
            if waiting
            else f"its end was not written; `epochal sync {shown(file.parent)}` will tell it"
        )
    if error and parts:
        parts.append(f"the last error was {error}")
    elif error:
        parts.append(f"writing failed for a while ({error}); then all records were written")
    return f"{follower.name}: {'; '.join(parts)}" if parts else None


def shown(folder: Path) -> str:
    """Return a folder as a person would write it on a command line here."""
    import shlex

    try:
        inside = os.path.relpath(folder)
    except (ValueError, OSError):  # another drive; a directory that was deleted
        inside = str(folder)
    return shlex.quote(str(folder) if inside.startswith("..") else inside)
