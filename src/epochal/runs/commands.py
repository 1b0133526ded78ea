"""The table of commands in a run's file: asked for by people, taken by the training, answered with the step."""

import json
import sqlite3
from time import time

from epochal.core.requests import Command

LIFETIME = 60.0  # seconds after which a command that nobody took is void


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
    """Return the commands that wait, in their order, each once; those that are too old are void."""
    waiting = connection.execute("SELECT 1 FROM commands WHERE state = 'queued' LIMIT 1").fetchone()
    if waiting is None:
        return []
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "UPDATE commands SET state = 'expired', answered = ?, answer = 'the training did not look in time'"
        " WHERE state = 'queued' AND expires < ?",
        (time(), time()),
    )
    found = connection.execute(
        "SELECT id, name, arguments, by FROM commands WHERE state = 'queued' ORDER BY rowid"
    ).fetchall()
    connection.execute("UPDATE commands SET state = 'taken' WHERE state = 'queued'")
    connection.execute("COMMIT")
    return [Command(one, name, json.loads(arguments), by) for one, name, arguments, by in found]


def expire_old(connection: sqlite3.Connection, why: str) -> None:
    """Void the commands that were meant for a training that is over."""
    connection.execute(
        "UPDATE commands SET state = 'expired', answered = ?, answer = ? WHERE state IN ('queued', 'taken')",
        (time(), why),
    )
