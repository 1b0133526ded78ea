"""Signals: SIGTERM, SIGUSR1 and Ctrl-C end a training between two batches, with everything kept that is worth it."""

import os
import signal
import threading
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ArgumentError, Preempted
from epochal.core.log import log
from epochal.core.saving import save

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Moment

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
GRACE = "EPOCHAL_GRACE"  # the environment's name for how many seconds the end may take
USUAL_GRACE = 25.0  # Kubernetes and SLURM kill 30 seconds after SIGTERM
FOR_CHECKPOINTS = 0.8  # their share of what is left; loggers have the rest

_trainings: list["Engine"] = []  # those of the main thread, the innermost last
_before: dict[int, Any] = {}  # signal -> the handler that was there
_process: list[int] = []  # which one handles them: a forked child inherits the handlers


def watch(engine: "Engine") -> None:
    """Take the signals for a training that starts, if this is the main thread: no other can."""
    if threading.current_thread() is not threading.main_thread():
        return
    grace()  # a wrong value is said now
    if not _trainings:
        _process[:] = [os.getpid()]
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None and handler != signal.SIG_IGN:  # None: not Python's, and could not be put back
                _before[number] = handler
                signal.signal(number, handle)
    _trainings.append(engine)


def unwatch(engine: "Engine") -> None:
    """Give the signals back when the last training is over; a handler that somebody set meanwhile stays."""
    if engine in _trainings:
        _trainings.remove(engine)
        if not _trainings:
            while _before:
                number, handler = _before.popitem()
                if signal.getsignal(number) is handle:
                    signal.signal(number, handler)


def handle(number: int, frame: FrameType | None) -> None:
    """Note a signal for the next end of a batch, and let the handler that was there before have it too.

    A second Ctrl-C leaves at once.
    """
    before = _before.get(number)
    if os.getpid() not in _process:
        die_as_before(number, before, frame)
        return
    again = number == signal.SIGINT and any(number in engine.requests.signals for engine in _trainings)
    if again:
        for engine in _trainings:
            engine.requests.deadline = monotonic()
        raise KeyboardInterrupt
    limit = grace()
    for engine in _trainings:
        engine.requests.add_signal(number, monotonic() + limit)
    say(number, limit)
    if callable(before) and before is not signal.default_int_handler:
        before(number, frame)


def die_as_before(number: int, before: Any, frame: FrameType | None) -> None:
    """In a child that was forked from the training, do what the signal did before."""
    if callable(before):
        before(number, frame)
    else:
        signal.signal(number, before)
        os.kill(os.getpid(), number)


def say(number: int, limit: float) -> None:
    """Tell what happens now; nothing here waits for a lock that the interrupted code may hold."""
    if number == signal.SIGINT:
        text = "Ctrl-C: the training ends after this batch and keeps its state. Ctrl-C again leaves at once."
    else:
        text = f"{name_of(number)}: the training ends after this batch and keeps its state, within {limit:g} s."
    with suppress(OSError):
        os.write(2, f"\nepochal: {text}\n".encode())


def name_of(number: int) -> str:
    """Return a signal's name.

    >>> name_of(signal.SIGTERM)
    'SIGTERM'
    """
    return signal.Signals(number).name


def grace() -> float:
    """Return how many seconds the end of a preempted training may take: ``EPOCHAL_GRACE``, else 25.

    >>> grace()
    25.0
    """
    given = os.environ.get(GRACE)
    if given is None:
        return USUAL_GRACE
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ArgumentError(f"{GRACE}={given!r} must be a number of seconds >= 0")
    return seconds


def leave(engine: "Engine", now: "Moment") -> None:
    """At a safe point after a signal: keep what is worth it, then raise ``Preempted`` or ``KeyboardInterrupt``.

    Where ranks have to agree this waits for the end of the epoch, and in the validation that ends one, where a point to
    resume from is near, as long as half of the grace is left. Nothing is saved where the run keeps no checkpoints,
    nor where nobody could go on from here and there is a point to resume from.
    """
    if now.ended != "epoch" and (engine.agree is not None or may_wait(engine)):
        engine.requests.waiting = True
        return
    number = engine.requests.signals[0]
    log().warning(
        "%s: the training ends here, in its epoch %d, after %d steps.", name_of(number), engine.epoch + 1, engine.step
    )
    saver = engine.saver
    if saver is not None and engine.rank == 0:
        saver.flush(for_checkpoints(engine))
        request = saver.last_request(name_of(number))
        if request is not None:
            engine.requests.add_save(request)
        if engine.requests.saves and "validation" not in engine.scopes:  # else it is taken once that is closed
            save(engine, now)
            saver.flush(for_checkpoints(engine))
    engine.requests.left = True
    raise departure(number)


def may_wait(engine: "Engine") -> bool:
    """Say whether the end of this epoch is near, and worth waiting for."""
    saver, deadline = engine.saver, engine.requests.deadline
    near = saver is not None and engine.rank == 0 and saver.ends_well()
    return near and (deadline is None or deadline - monotonic() > grace() / 2)


def departure(number: int) -> BaseException:
    """Return what a signal raises.

    >>> departure(signal.SIGTERM), departure(signal.SIGINT)
    (Preempted(SIGTERM), KeyboardInterrupt())
    """
    return KeyboardInterrupt() if number == signal.SIGINT else Preempted(number)


def for_checkpoints(engine: "Engine") -> float | None:
    """Return how many seconds checkpoints may still take, or None without a limit."""
    deadline = engine.requests.deadline
    return None if deadline is None else FOR_CHECKPOINTS * max(deadline - monotonic(), 0.0)


def within(engine: "Engine", limit: float) -> float:
    """Return how many of ``limit`` seconds somebody may take who ends now: after a signal half of what is left."""
    deadline = engine.requests.deadline
    return limit if deadline is None else min(limit, max(deadline - monotonic(), 0.0) / 2)


def out_of_time(engine: "Engine") -> bool:
    """Say whether the end must not take any time: somebody has pressed Ctrl-C twice, or the grace is over."""
    deadline = engine.requests.deadline
    return deadline is not None and monotonic() >= deadline


def overdue(engine: "Engine", error: BaseException | None) -> BaseException | None:
    """Return what a signal raises that came too late for a safe point, if it has not been raised."""
    requests = engine.requests
    if not requests.signals or requests.left or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return None
    return departure(requests.signals[0])
