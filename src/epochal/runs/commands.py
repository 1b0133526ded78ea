"""The table of commands in a run's file: asked for by people, taken by the training, answered with the step."""

import json
import sqlite3
from time import time
from typing import Any, cast

from epochal.core.requests import Command

LIFETIME = 60.0  # seconds after which a command that nobody took is void
OPEN = ("queued", "taken")  # the states of those without an answer


def queue(connection: sqlite3.Connection, command: Command, *, lifetime: float = LIFETIME) -> bool:
    """Let a command wait for its training; False if one of this id was there already: it is not done twice."""
    now = time()
    made = connection.execute(
        "INSERT OR IGNORE INTO commands (id, name, arguments, by, asked, expires, state)"
        " VALUES (?, ?, ?, ?, ?, ?, 'queued')",
        (command.id, command.name, json.dumps(dict(command.arguments)), command.by, now, now + lifetime),
    )
    return made.rowcount == 1


def take_queued(connection: sqlite3.Connection) -> list[Command]:
    """Return the commands that wait, in their order, each once; those that are too old or unreadable are void."""
    waiting = connection.execute("SELECT 1 FROM commands WHERE state = 'queued' LIMIT 1").fetchone()
    if waiting is None:
        return []
    connection.execute("BEGIN IMMEDIATE")
    try:
        void(connection, "expired", "the training did not look in time", "state = 'queued' AND expires < ?", time())
        found = connection.execute(
            "SELECT id, name, arguments, by FROM commands WHERE state = 'queued' ORDER BY rowid"
        ).fetchall()
        read = {row[0]: arguments(row[2]) for row in found}
        for id_ in [id_ for id_, given in read.items() if given is None]:
            void(connection, "refused", "its arguments are no JSON object", "id = ?", id_)
        connection.execute("UPDATE commands SET state = 'taken' WHERE state = 'queued'")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [
        Command(str(id_), str(name), given, str(by)) for id_, name, _, by in found if (given := read[id_]) is not None
    ]


def arguments(text: Any) -> dict[str, Any] | None:
    """Return the arguments of a command, None where they are no JSON object.

    >>> arguments('{"factor": 0.5}'), arguments("[]"), arguments("{")
    ({'factor': 0.5}, None, None)
    """
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def void(connection: sqlite3.Connection, state: str, why: str, where: str, *given: Any) -> None:
    """Answer commands that are not done."""
    connection.execute(
        f"UPDATE commands SET state = ?, answered = ?, answer = ? WHERE {where}", (state, time(), why, *given)
    )


def expire_old(connection: sqlite3.Connection, why: str) -> None:
    """Void the commands that were meant for a training that is over."""
    void(connection, "expired", why, "state IN ('queued', 'taken')")


def give_up(connection: sqlite3.Connection, id: str, why: str, *, taken: bool = False) -> None:  # noqa: A002
    """Void a command that nobody has taken; ``taken``: or that was taken by a training which is dead."""
    states = "('queued', 'taken')" if taken else "('queued')"
    void(connection, "expired", why, f"state IN {states} AND id = ?", id)


def outcome(connection: sqlite3.Connection, id: str) -> dict[str, Any]:  # noqa: A002  # the command's
    """Return what became of a command so far: its id, name, state, step, epoch and answer."""
    names = ("id", "name", "state", "step", "epoch", "answer")
    row = connection.execute(f"SELECT {', '.join(names)} FROM commands WHERE id = ?", (id,)).fetchone()
    return dict(
        zip(names, row or (id, None, "expired", None, None, "it is not in the run's file any more"), strict=True)
    )
