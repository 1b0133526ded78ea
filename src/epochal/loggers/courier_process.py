"""The process of a courier: it delivers what a run's store holds until the training is over, or dead."""

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

from epochal.core.errors import EpochalError
from epochal.loggers.about import ENDS, About
from epochal.loggers.base import Logger
from epochal.loggers.courier import Order
from epochal.loggers.feed import MOST
from epochal.loggers.follower import Follower, Place
from epochal.loggers.worker import Outcome, Writer, first_line
from epochal.runs.stored import StoredRun

LOOK = 1.0  # seconds between looks whether the training is still there
ALONE = 60.0  # seconds for what a training that was killed has left
POLITE = 10  # the training's own threads go first
UNHEARD = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # meant for the training, which tells when it ends


class Ending(NamedTuple):
    """How the training ended, and how many seconds are left."""

    end_reason: str
    limit: float


class Voice(logging.Handler):
    """What the training hears: one JSON object per line, and what is logged here as such."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(logging.INFO)
        self.out, self.speaking = out, threading.Lock()

    def say(self, **told: Any) -> None:
        """Say something; nobody may be there to hear it."""
        with self.speaking, suppress(OSError, ValueError):
            self.out.write(json.dumps(told, default=str) + "\n")
            self.out.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Say what is logged, with its traceback."""
        self.say(log=[record.levelno, self.format(record)])


def main() -> None:
    """Deliver until told to end."""
    become_background()
    voice = Voice(own_output())
    log = logging.getLogger("epochal")
    log.addHandler(voice)
    log.setLevel(logging.INFO)
    log.propagate = False
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(lines,), daemon=True).start()
    told = lines.get()
    if told:
        order = Order(*json.loads(told))
        follower = follower_of(order, voice)
        follower.start()
        end = ending(order, follower, lines)
        if end is not None:
            tell(voice, follower.close(end.end_reason, limit=end.limit))
    os._exit(0)  # a client's own threads may wait for a server for ever


def become_background() -> None:
    """Leave signals to the training, and the processor to its threads."""
    for name in UNHEARD:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(POLITE)


def own_output() -> IO[str]:
    """Return our standard output, which from now on nobody else writes to."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def listen(lines: "queue.Queue[str]") -> None:
    """Put what the training says into a queue, an empty line at its end."""
    for line in sys.stdin:
        lines.put(line)
    lines.put("")


def follower_of(order: Order, voice: Voice) -> Follower:
    """Return what delivers, with a logger as the training has it."""
    kind = getattr(import_module(order.module), order.kind)
    logger: Logger = kind(**order.making)
    logger.load_state_dict(order.state)
    file = Path(order.file)

    def opens(file: Path, told: Mapping[str, Any]) -> Writer:
        about = About(
            order.run, file.parent, order.host, order.resumed, (), order.step, order.started, stored=True, told=told
        )  # fmt: skip
        writer = logger.open(about)
        voice.say(state=logger.state_dict())
        return writer

    return Follower(
        order.label, Place(order.reader, order.kept), lambda: file, opens, limits=logger.limits,
        passing=logger.is_passing, most=MOST,
    )  # fmt: skip


def ending(order: Order, follower: Follower, lines: "queue.Queue[str]") -> Ending | None:
    """Wait for the end of the training; None where another process delivers by now."""
    gone = False
    while follower.thread is not None and follower.thread.is_alive():
        try:
            line = lines.get(timeout=LOOK)
        except queue.Empty:
            gone = gone or (hasattr(os, "getppid") and os.getppid() != order.parent)
        else:
            if line:
                return Ending(**json.loads(line))
            gone = True
        if gone and (state := state_of(Path(order.file))) != "running":
            return Ending(ENDS[state], ALONE) if state in ENDS else None
    return None


def state_of(file: Path) -> str | None:
    """Return the state of the run whose training says nothing any more; "running" while it lives, None if unknown."""
    try:
        state = StoredRun(file.parent).state
    except (EpochalError, OSError):
        return None
    return "running" if state == "paused" else state


def tell(voice: Voice, outcome: Outcome) -> None:
    """Tell what became of all."""
    error = None if outcome.error is None else [type(outcome.error).__name__, first_line(outcome.error)]
    voice.say(outcome=[outcome.written, outcome.lost, outcome.finished], error=error)


if __name__ == "__main__":
    main()
