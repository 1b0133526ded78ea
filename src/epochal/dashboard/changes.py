"""What people change: commands for a training, notes and tags; validated here and, commands, by the training again."""

import json
import re
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from time import time
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from epochal.core.control import argument, check_arguments
from epochal.core.errors import ArgumentError
from epochal.core.requests import Command
from epochal.dashboard.detail import commands
from epochal.dashboard.overview import read_head
from epochal.dashboard.plain import Refused
from epochal.dashboard.served import reading, refuse_links
from epochal.runs.commands import queue
from epochal.runs.schema import StoreError, open_to_tell
from epochal.runs.stored import StoredRun

BY = "page"
ID = re.compile(r"[A-Za-z0-9-]{8,64}")
NOTE = 10_000  # characters
TAG = 64


async def read_change(request: Request) -> dict[str, Any]:
    """Return the JSON object of a change."""
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refused(400, "this is no JSON") from None
    except ClientDisconnect:
        raise Refused(400, "the change came in part only") from None
    if not isinstance(given, dict):
        raise Refused(400, "a change is a JSON object")
    return cast("dict[str, Any]", given)


def send_command(run: StoredRun, given: Mapping[str, Any]) -> dict[str, Any]:
    """Let a command wait for the run's training; one of an id that is known already is not done twice."""
    known_keys(given, "id", "name", "arguments")
    identity, name, arguments = given.get("id"), given.get("name"), given.get("arguments", {})
    if not isinstance(identity, str) or not ID.fullmatch(identity):
        raise Refused(400, "id: 8 to 64 letters, digits and hyphens, such as a UUID")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Refused(400, "name is a text, arguments an object")
    with reading(run) as connection:
        head = read_head(connection)
        offered = {one["name"]: one for one in commands(head, head.state, read_only=False, rank=run.rank)}
    one = offered.get(name)
    if one is None:
        shown = ", ".join(offered) or "none"
        raise Refused(409, f"this training has no command {name!r}; it has {shown}")
    if not one["available"]:
        raise Refused(409, str(one["why_not"]))
    try:
        checked = check_arguments([argument(row) for row in one["arguments"]], cast("dict[str, Any]", arguments))
    except ArgumentError as error:
        raise Refused(400, str(error)) from None
    with telling(run) as connection:
        queue(connection, Command(identity, name, checked, BY))
    return {"id": identity}


def write_note(run: StoredRun, given: Mapping[str, Any]) -> dict[str, Any]:
    """Add a note to a run."""
    known_keys(given, "text")
    text = given.get("text")
    if not isinstance(text, str) or not text.strip() or len(text) > NOTE:
        raise Refused(400, f"text: 1 to {NOTE} characters")
    note = {"time": time(), "by": BY, "text": text}
    with telling(run) as connection:
        made = connection.execute("INSERT INTO notes (time, by, text) VALUES (:time, :by, :text)", note)
        return {"id": made.lastrowid, **note}


def change_tags(run: StoredRun, given: Mapping[str, Any]) -> dict[str, Any]:
    """Add tags to a run, and remove others."""
    known_keys(given, "add", "remove")
    added, removed = tags(given.get("add", [])), tags(given.get("remove", []))
    with telling(run) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM tags WHERE name = ?", [(name,) for name in removed])
        connection.executemany("INSERT OR IGNORE INTO tags (name) VALUES (?)", [(name,) for name in added])
        found = [name for (name,) in connection.execute("SELECT name FROM tags ORDER BY name")]
        connection.execute("COMMIT")
    return {"tags": found}


def tags(given: Any) -> list[str]:
    """Return a list of tags; Refused where one is none."""
    names: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [None]
    if len(names) > 100 or not all(isinstance(name, str) and name.strip() and len(name) <= TAG for name in names):
        raise Refused(400, f"add and remove: lists of texts of 1 to {TAG} characters")
    return [str(name).strip() for name in names]


def known_keys(given: Mapping[str, Any], *known: str) -> None:
    """Refuse what has more in it than is known, since it may mean something that is not done."""
    if unknown := [key for key in given if key not in known]:
        raise Refused(400, f"{unknown[0]!r} is not known here: {', '.join(known)} are")


@contextmanager
def telling(run: StoredRun) -> Generator[sqlite3.Connection]:
    """Give a connection for a short write; Refused where that cannot be."""
    try:
        refuse_links(run.file)
        connection = open_to_tell(run.file)
    except StoreError as error:
        raise Refused(409, str(error)) from None
    try:
        yield connection
    except sqlite3.Error as error:
        raise Refused(409, f"{run.file.name} cannot be written: {error}") from None
    finally:
        connection.close()
