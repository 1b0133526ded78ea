"""Asking a training for something from another process, through the file of its run."""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from uuid import uuid4

from epochal.core.control import argument, check_arguments, verb_named
from epochal.core.errors import ArgumentError, EpochalError
from epochal.core.requests import Command
from epochal.runs.commands import OPEN, give_up, outcome, queue
from epochal.runs.schema import open_to_tell
from epochal.runs.stored import StoredRun

LOOK = 0.02  # seconds between looks for the answer
ALIVE = ("running", "paused")


class Refused(EpochalError):
    """A training would not do what is asked for; nothing was asked."""


def offered(run: StoredRun) -> dict[str, dict[str, Any]]:
    """Return what a run's training can be asked for, by name; Refused where it takes no commands at all."""
    sessions = run.sessions
    if not sessions:
        raise Refused(f"{run.name} has never begun to train")
    session = sessions[-1]
    if session["state"] not in ALIVE:
        raise Refused(f"{run.name} is not training now: it is {session['state']}")
    if not session["about"].get("control", True):
        raise Refused(f"{run.name} was started with control=False: it takes no commands")
    return {one["name"]: one for one in session["commands"]}


def ask(
    run: StoredRun, name: str, arguments: Mapping[str, Any], *, by: str, id: str | None = None  # noqa: A002
) -> str:  # fmt: skip
    """Let a command wait for a run's training and return its id; Refused where it would not be obeyed.

    ``id`` given again is the same command, which is not done twice.
    """
    try:
        one = verb_named(name, offered(run))
        if not one["available"]:
            raise Refused(one["why_not"])
        checked = check_arguments([argument(row) for row in one["arguments"]], arguments)
    except ArgumentError as error:
        raise Refused(str(error)) from None
    command = Command(id or str(uuid4()), name, checked, by)
    try:
        with closing(open_to_tell(run.file)) as connection:
            queue(connection, command)
    except sqlite3.Error as error:
        raise Refused(f"{run.name} cannot be told now: {run.file}: {error}; try again") from error
    return command.id


def answer(run: StoredRun, id: str, *, seconds: float) -> dict[str, Any]:  # noqa: A002  # the command's
    """Wait for what becomes of a command: its row, "applied", "refused" or "expired", or "taken" where it waits still.

    What nobody has taken by then is void, so that it is not done much later; so is what a training that died left. It
    stays "queued" where somebody else holds the file, so that nothing could be made void.
    """
    end, next_look = time.monotonic() + seconds, time.monotonic() + 1.0
    row: dict[str, Any] = {"id": id, "name": "command", "state": "queued", "step": None, "epoch": None, "answer": None}
    with closing(open_to_tell(run.file)) as connection:
        while True:
            now = time.monotonic()
            try:
                row = outcome(connection, id)
                if row["state"] not in OPEN:
                    return row
                if (now >= next_look or now >= end) and (state := run.state) not in ALIVE:
                    give_up(connection, id, f"the training is {state}", taken=True)
                    return outcome(connection, id)
                if now >= end:
                    give_up(connection, id, f"the training did not take it within {seconds:g} s")
                    return outcome(connection, id)
            except sqlite3.Error as error:
                if now >= end:
                    return {**row, "answer": f"{run.file}: {error}; it may still be done, within a minute"}
            next_look = now + 1.0 if now >= next_look else next_look
            time.sleep(LOOK)
