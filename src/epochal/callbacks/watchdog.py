"""See a training that hangs: no batch for minutes, and where it stands."""

import linecache
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_amount
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.log import log
from epochal.core.preemption import within
from epochal.runs.folder import free_file

if TYPE_CHECKING:
    from epochal.core.run import Run

LOOKS = 10  # how often the watchdog looks in the time it allows
LONGEST = 10.0  # seconds between two looks, at most
LAST = 5.0  # seconds that the end of a training waits for a ``tell`` that does not return
LIBRARIES = {sysconfig.get_path(one) for one in ("stdlib", "platstdlib", "purelib", "platlib")}
NOT_THE_USERS = ("<frozen", *(os.path.join(one, "") for one in (*LIBRARIES, str(Path(__file__).parents[1]))))


@final
class Watchdog(Callback):
    """Tell of a training in which no batch has ended for some minutes, with the stacks of all its threads.

    >>> Watchdog(minutes=30, tell=lambda report: print("send a message:", report))
    Watchdog(minutes=30)

    minutes
        How long the training may go without the end of a batch, of a validation's batch, or of an epoch, before it
        hangs. Mind the slowest: the first batch of a compiled model, the start of workers, a large checkpoint.
    tell
        Called with the report's first lines, on the watchdog's thread: the training thread hangs.
    clock
        Seconds, as ``time.monotonic`` gives them.

    Once per hang the stacks of all threads go into ``hang-1.txt``, ``hang-2.txt`` ... in the run's folder and the
    training's, with the line of yours where it stands, into the log. When the training goes on, the event ``on_hang``
    comes on the training thread: ``run.add_callback("on_hang", fn)``. A hang inside C code that keeps Python's lock
    cannot be seen, nor what a DataLoader's worker processes do. A pause is no hang. It ends nothing by itself.
    """

    guarded = True

    def __init__(
        self,
        *,
        minutes: float = 10.0,
        tell: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = monotonic,
        name: str | None = None,
    ) -> None:
        self.limit = 60 * check_amount(minutes, owner="Watchdog", argument="minutes")
        if tell is not None and not callable(tell):  # pyright: ignore[reportUnnecessaryComparison]
            raise ArgumentError(f"Watchdog: tell must be a function of one argument, the report, not {tell!r}")
        self.minutes, self.tell, self.clock = minutes, tell, clock
        if name is not None:
            self.name = name
        self.beats = 0  # signs of life; the watchdog's thread looks whether there are new ones
        self.paused = False
        self.watch: Watch | None = None

    def __repr__(self) -> str:
        return f"Watchdog(minutes={self.minutes:g})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "watch": None, "beats": 0, "paused": False}  # a thread cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Start the thread."""
        self.paused = False
        self.watch = Watch(self, run)

    def on_pause(self, run: "Run") -> None:
        """A training that waits because somebody said so does not hang."""
        self.paused = True

    def on_continue(self, run: "Run") -> None:
        """The silence is counted from here on."""
        self.beats += 1
        self.paused = False

    def on_train_batch_end(self, run: "Run") -> None:
        """Give a sign of life; where there was none for long, the training goes on now."""
        self.beats += 1
        if self.watch is not None and self.watch.hanging:
            self.watch.hanging = False
            log().warning("%s: the training goes on.", run.label(self))
            run.engine.fire("on_hang")

    on_val_batch_end = on_train_batch_end
    on_train_epoch_start = on_train_epoch_end = on_fit_epoch_end = on_train_batch_end
    on_val_start = on_val_end = on_train_batch_end

    def teardown(self, run: "Run") -> None:
        """End the thread."""
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.over.set()
            watch.thread.join(within(run.engine, LAST))


class Silence:
    """Decides, from signs of life that are counted and the time, when a silence has become a hang; once for each.

    >>> silence = Silence(limit=60.0)
    >>> [silence.too_long(beats, now) for beats, now in ((1, 0.0), (1, 59.0), (1, 60.0), (1, 90.0), (2, 95.0))]
    [False, False, True, False, False]
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.beats = -1
        self.since = 0.0
        self.told = False

    def too_long(self, beats: int, now: float) -> bool:
        """Say whether it is the moment to tell."""
        if beats != self.beats:
            self.beats, self.since, self.told = beats, now, False
        if self.told or now - self.since < self.limit:
            return False
        self.told = True
        return True


class Watch:
    """The watchdog's thread in one training."""

    def __init__(self, owner: Watchdog, run: "Run") -> None:
        self.owner, self.run = owner, run
        self.hanging = False
        self.over = threading.Event()
        self.training_thread = threading.get_ident()
        self.thread = threading.Thread(target=self.look, name="epochal Watchdog", daemon=True)
        self.thread.start()

    def look(self) -> None:
        """Look for signs of life until the training is over."""
        owner = self.owner
        silence = Silence(owner.limit)
        while not self.over.wait(min(owner.limit / LOOKS, LONGEST)):
            if not owner.paused and silence.too_long(owner.beats, owner.clock()):
                try:
                    self.report()
                except Exception:
                    log().exception("%s: a hang could not be reported", owner.name)

    def report(self) -> None:
        """Write down where everything stands, and tell."""
        owner, run = self.owner, self.run
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        training = frames.get(self.training_thread)
        if training is None:
            return  # its thread is gone
        del frames[threading.get_ident()]
        self.hanging = True
        head = (
            f"no batch for {owner.minutes:g} min, after epoch {run.epoch}, batch {run.batch}, step {run.step};"
            f" the training thread stands at {place(training)}"
        )
        also = ""
        if run.folder is not None:
            path = free_file(run.folder.make(), "hang", ".txt")
            path.write_text(f"{head}\n\n{stacks(frames, first=self.training_thread)}", encoding="utf-8")
            also = f"; all threads are in {path}"
        log().error("%s: %s%s\n%s", run.label(owner), head, also, "".join(traceback.format_stack(training)))
        if owner.tell is not None:
            owner.tell(head)


def stacks(frames: dict[int, FrameType], first: int) -> str:
    """Return the stack of every thread as text, one of them first, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts: list[str] = []
    for ident in sorted(frames, key=lambda one: one != first):
        what = " (the training)" if ident == first else ""
        parts.append(f"thread {names.get(ident, ident)}{what}:\n{''.join(traceback.format_stack(frames[ident]))}")
    return "\n".join(parts)


def place(frame: FrameType) -> str:
    """Say where a thread stands: the innermost frame that is neither a library's nor ours, and what it calls.

    >>> place(sys._getframe())
    '<doctest ...>:1 in <module>...'
    """
    inner, user = frame, frame
    while is_library(user.f_code.co_filename) and user.f_back is not None:
        user = user.f_back
    if is_library(user.f_code.co_filename):
        user = inner
    code = user.f_code
    line = linecache.getline(code.co_filename, user.f_lineno).strip()
    inside = (
        "" if inner is user else f", inside {inner.f_code.co_qualname} ({inner.f_code.co_filename}:{inner.f_lineno})"
    )
    return f"{code.co_filename}:{user.f_lineno} in {code.co_name}{f': {line}' if line else ''}{inside}"


def is_library(path: str) -> bool:
    """Say whether a file is the standard library's, an installed package's or ours.

    >>> is_library(threading.__file__), is_library("train.py")
    (True, False)
    """
    return path.startswith(NOT_THE_USERS)
