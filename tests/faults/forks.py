"""Children forked from a process that has everything imported, to be killed at any moment."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def forked(work: Callable[[], None], *, log: Path | None = None) -> int:
    """Start a child that works, in a process group of its own, so that its workers die with it; return its number.

    It exits with 0 if the work came to its end, else with 1 after the traceback; ``log`` is where it writes.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own_group(0)
            if log is not None:
                handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    own_group(child)  # whoever comes first: it may be killed before it has done so itself
    return child


def own_group(child: int) -> None:
    """Let a process lead a group; one that has ended needs none."""
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, child)


def ended(child: int) -> int:
    """Wait until a child is over, and return how it ended: 0 is well, below 0 is a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(child: int, seconds: float) -> int:
    """Kill a child with its group after so many seconds, if it is not over before; return how it ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:  # the random moment itself: nothing is concluded from how long it is
        over, status = os.waitpid(child, os.WNOHANG)
        if over:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    return ended(child)
