"""What a training prints, copied while it does: stdout and stderr write as always, lines go into the store too."""

import re
import sys
from collections import deque
from collections.abc import Callable
from time import time
from typing import Any, NamedTuple

from epochal.runs.book import Row

WAITING = 10_000  # pieces of text that wait for the writer's thread
LONGEST = 2_000  # characters of a line that are kept
KEPT = 20_000  # lines that a run's file holds, the newest
# ECMA-48: what moves the cursor, titles and the like; colours are kept
CODES = re.compile(r"\x1b(?:\[(?![0-9;]*m)[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
CUT = re.compile(r"\x1b(?:\[[0-9;]*)?$")  # a colour that was cut in two
MISSING = object()


class Tee(NamedTuple):
    """A stream whose ``write`` is ours now, and what its own attribute was."""

    stream: Any
    write: Callable[[str], Any]
    before: Any


class Console:
    """Copies what is written to ``sys.stdout`` and ``sys.stderr`` from ``begin`` to ``end``.

    A stream's ``write`` is put on the object itself, and taken away again; what somebody put there meanwhile stays.

    >>> console = Console()
    >>> console.begin()
    >>> print("epoch 1")
    epoch 1
    >>> console.end()
    >>> [row.arguments["text"] for row in console.take(last=True)]
    ['epoch 1']
    """

    def __init__(self) -> None:
        self.pieces: deque[tuple[float, int, str]] = deque(maxlen=WAITING)
        self.put = self.taken = self.lost = 0
        self.listening = False
        self.tees: list[Tee] = []
        self.open: dict[int, str] = {}  # by stream, the line that has no end yet

    def begin(self) -> None:
        """Copy from now on."""
        self.listening = True
        streams = {id(stream): stream for stream in (sys.stdout, sys.stderr)}
        for number, stream in enumerate(streams.values()):
            try:
                before = vars(stream).get("write", MISSING)
                stream.write = write = self.copying(stream.write, number)
            except (AttributeError, TypeError):  # None, or an object that takes no attributes
                continue
            self.tees.append(Tee(stream, write, before))

    def copying(self, write: Callable[[str], Any], number: int) -> Callable[[str], Any]:
        """Return what writes as ``write`` does, and copies."""

        def copied(text: str, /) -> Any:
            written = write(text)
            if self.listening:
                self.put += 1
                self.pieces.append((time(), number, text))
            return written

        return copied

    def end(self) -> None:
        """Leave the streams as they were."""
        self.listening = False
        for stream, write, before in self.tees:
            if vars(stream).get("write") is not write:
                continue
            if before is MISSING:
                del stream.write
            else:
                stream.write = before
        self.tees.clear()

    def take(self, *, last: bool = False) -> list[Row]:
        """Return the lines that are whole by now, as rows; ``last``: those that are not, too."""
        found: list[Row] = []
        now = time()
        while self.pieces:
            now, number, text = self.pieces.popleft()
            self.taken += 1
            *whole, rest = f"{self.open.get(number, '')}{text}".split("\n")
            found += [line_of(one, now) for one in whole]
            self.open[number] = rest.rpartition("\r")[2][-LONGEST:] if "\r" in rest.rstrip("\r") else rest[-LONGEST:]
        if last:
            found += [line_of(rest, now) for rest in self.open.values() if rest.strip()]
            self.open.clear()
        self.lost = self.put - self.taken - len(self.pieces)
        return found


def line_of(text: str, now: float) -> Row:
    r"""Return a line's row: as a terminal shows it in the end, with its colours, and not too long.

    >>> line_of("10%\r50%\r\x1b[K\x1b[32m100%\x1b[0m", 0.5).arguments["text"]
    '\x1b[32m100%\x1b[0m'
    """
    shown = CODES.sub("", text.rstrip("\r").rpartition("\r")[2]).rstrip()
    return Row("console", {"session": 0, "time": now, "text": CUT.sub("", shown[:LONGEST])})
