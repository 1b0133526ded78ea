"""A logger's work in a process of its own: the training's Python does nothing of it, not even the import."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from epochal.loggers.cursor import Cursor, load, save
from epochal.loggers.feed import Feed
from epochal.loggers.worker import Outcome
from epochal.runs.schema import StoreError

logger = logging.getLogger("epochal")
MODULE = "epochal.loggers.courier_process"
LOOK = 0.1  # seconds between looks for the store's file
GRACE = 0.5  # seconds for the process to say what became of all
STARTS = 3  # of a process that ends before it is told to
PAUSE = 5.0  # seconds between them


class Order(NamedTuple):
    """What the process is told at first; JSON values. ``making`` may hold a password: it is told, and never shown.

    ``making`` are the options that make the logger there, ``kept`` those that its cursor keeps, ``state`` its own.
    """

    module: str
    kind: str
    making: dict[str, Any]
    kept: dict[str, Any]
    state: dict[str, Any]
    label: str
    reader: str
    run: str
    host: str
    resumed: bool
    step: int
    started: float
    parent: int
    file: str = ""


class Courier:
    """Stands where a ``Follower`` stands; the follower itself works in a process that is started with the store's file.

    That process outlives a training which was killed until the rest is delivered and its end is told. ``remember`` is
    given the logger's state as soon as the destination is open.
    """

    def __init__(
        self, order: Order, file: Callable[[], Path | None], remember: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.name, self.order, self.file, self.remember = order.label, order, file, remember
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.ending = ""
        self.process: subprocess.Popen[str] | None = None
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    # -- on the training thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that starts the process, and reads what it says."""
        self.thread = threading.Thread(target=self.work, name=f"epochal {self.name}", daemon=True)
        self.thread.start()

    def close(self, end_reason: str, *, limit: float) -> Outcome:
        """Have the rest delivered and the end told, within ``limit`` seconds; then there is no process any more."""
        thread = self.thread
        if thread is None or self.order.parent != os.getpid():  # forked: the process is the parent's
            return Outcome(0, 0, 0, False, None)
        with self.lock:
            self.ending = json.dumps({"end_reason": end_reason, "limit": limit})
            self.say(self.ending)
        self.closing.set()
        try:
            thread.join(limit + GRACE)
        finally:
            if self.process is not None:
                self.process.kill()
        thread.join(GRACE)
        return self.outcome or Outcome(0, 0, 0, False, self.error)

    @property
    def cursor(self) -> Cursor | None:
        """How far the destination has come."""
        file = self.file()
        with suppress(sqlite3.Error, OSError, StoreError):
            return None if file is None else load(file, self.order.reader)
        return None

    def waiting(self) -> int:
        """Return how many points the destination lacks, 0 where nobody can tell."""
        file, cursor = self.file(), self.cursor
        with suppress(sqlite3.Error, OSError, StoreError):
            return 0 if file is None or cursor is None else Feed(file).waiting(cursor)
        return 0

    def say(self, line: str) -> None:
        """Tell the process something, if there is one."""
        process = self.process
        if process is not None and process.stdin is not None:
            with suppress(OSError, ValueError):  # it is dead
                process.stdin.write(f"{line}\n")
                process.stdin.flush()

    # -- on a thread of its own -------------------------------------------------------------------------------------

    def work(self) -> None:
        """Have the process work as long as the training lasts."""
        file = self.awaited()
        for _ in range(STARTS if file is not None else 0):
            try:
                self.attend(cast("Path", file))
            except OSError as error:
                self.error = error
            if self.outcome is not None or self.closing.is_set():
                return
            logger.error("%s: its process has ended (%s); it is started again.", self.name, self.error)
            self.closing.wait(PAUSE)

    def awaited(self) -> Path | None:
        """Return the store's file once there is one; None where the training ends without."""
        while True:
            is_last = self.closing.is_set()
            file = self.file()
            if file is not None and file.exists():
                return file
            if is_last:
                return None
            self.closing.wait(LOOK)

    def attend(self, file: Path) -> None:
        """Start the process and hear what it says until it ends."""
        self.keep_options(file)
        command = [sys.executable, "-P", "-m", MODULE]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment(),
            start_new_session=True,
        ) as process:  # fmt: skip
            with self.lock:
                self.process = process
                self.say(json.dumps(self.order._replace(file=str(file.absolute())), default=str))
                if self.ending:
                    self.say(self.ending)
            assert process.stdout is not None
            for line in process.stdout:
                with suppress(ValueError):  # torn by the end of the process
                    self.hear(json.loads(line))
        if self.outcome is None:
            self.error = self.error or ChildProcessError(f"exit status {process.returncode}")

    def keep_options(self, file: Path) -> None:
        """Keep what `epochal sync` needs, should the process never come to it."""
        with suppress(sqlite3.Error, OSError, StoreError):
            save(file, replace(load(file, self.order.reader), options=self.order.kept))

    def hear(self, told: dict[str, Any]) -> None:
        """Take what the process says: a message for the log, the logger's state, what became of all."""
        if "log" in told:
            level, text = told["log"]
            logger.log(level, "%s", text)
        if "state" in told:
            self.remember(told["state"])
        if "outcome" in told:
            written, lost, finished = told["outcome"]
            self.outcome = Outcome(written, lost, 0, finished, error_of(told.get("error")))


def error_of(told: Any) -> BaseException | None:
    """Return an error of another process, by its class' name and its text.

    >>> error_of(["ConnectionError", "nobody listens"])
    ConnectionError('nobody listens')
    """
    if told is None:
        return None
    name, text = told
    return type(name, (Exception,), {})(text)


def environment() -> dict[str, str]:
    """Return the environment of a process that imports what this one would."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
