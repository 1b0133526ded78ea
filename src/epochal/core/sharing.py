"""What all processes of a training must know at the same step: signals, and the commands that the first one reads."""

import json
from time import monotonic
from typing import TYPE_CHECKING

from epochal.core.preemption import grace
from epochal.core.requests import Command

if TYPE_CHECKING:
    from epochal.core.engine import Engine

MOST = 4096  # bytes of commands at one epoch's end; what is more waits for the next
SIGNALS = 128  # all their numbers are below
WORD = 7  # bytes that a number of 64 bits can carry and still be positive


def agree(engine: "Engine") -> None:
    """At the end of an epoch, let all ranks know of a signal that one got, and of the commands that the first one has.

    ``engine.agree`` gives the highest of all ranks' numbers: of a signal that, else how many bytes the commands are.
    """
    if engine.agree is None:
        return
    requests = engine.requests
    waiting = list(requests.commands) if engine.rank == 0 else []
    told = packed(waiting) if waiting else b""
    signal = requests.signals[0] if requests.signals else 0
    number = engine.agree(SIGNALS + len(told) if told else signal)
    if number >= SIGNALS:
        share(engine, waiting, told, number - SIGNALS)
        number = engine.agree(signal)
    if number and not requests.signals:
        requests.add_signal(number, monotonic() + grace())


def share(engine: "Engine", waiting: list[Command], told: bytes, count: int) -> None:
    """Let all ranks have the commands of the first: all others say 0, so the highest number is what that one says."""
    assert engine.agree is not None
    data, requests = bytearray(), engine.requests
    for begin in range(0, count, WORD):
        word = told[begin : begin + WORD]
        data += engine.agree(int.from_bytes(word, "big")).to_bytes(min(WORD, count - begin), "big")
    rows = json.loads(bytes(data))
    if engine.rank:
        requests.commands.extend(Command(*row) for row in rows)
        requests.waiting = True
    for command in waiting[len(rows) :]:
        engine.orders.refuse(command.id, "too much was asked for at once; ask again")
        requests.commands.remove(command)


def packed(commands: list[Command]) -> bytes:
    """Return the first commands as bytes, as many as may travel at once.

    >>> packed([Command("1", "pause", {}, "me")])
    b'[["1","pause",{},"me"]]'
    """
    rows: list[str] = []
    for command in commands:
        row = json.dumps([command.id, command.name, dict(command.arguments), command.by], separators=(",", ":"))
        if sum(map(len, rows)) + len(row) + len(rows) + 2 > MOST:
            break
        rows.append(row)
    return f"[{','.join(rows)}]".encode()
