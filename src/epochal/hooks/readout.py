"""Numbers on their way from the device to the host, without making the training thread wait for them."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from epochal.core.background import Background
from epochal.core.log import log
from epochal.core.metrics import At

LIMIT = 10.0  # seconds that the end of a training waits for the last numbers


class Reading(NamedTuple):
    """Numbers that were measured at one moment, once they have reached the host."""

    about: Any  # what the numbers are, as it was pushed
    numbers: list[float]
    at: At


class _Copy(NamedTuple):
    """The same on its way: a tensor of the host, and the event after which it is filled (None: it is)."""

    about: Any
    host: Any
    event: Any
    at: At


class Readout:
    """Copies tensors of numbers to the host without waiting, and delivers them, in order, on a thread of its own.

    ``push`` only queues one non-blocking copy into pinned memory; the copy is waited for and read by the thread, one
    interval later: when the next one is pushed, or at ``flush``. What ``deliver`` raises is said once, in the log.

    >>> import torch
    >>> got = []
    >>> readout = Readout("doctest", got.append)
    >>> readout.push(["a", "b"], torch.tensor([1.0, 2.0]), At(0, 0, 1))
    >>> readout.close(); got
    [Reading(about=['a', 'b'], numbers=[1.0, 2.0], at=At(epoch=0, batch=0, step=1))]
    """

    def __init__(self, name: str, deliver: Callable[[Reading], None]) -> None:
        self.name, self.deliver = name, deliver
        self.background = Background(name)
        self.pending: list[_Copy] = []
        self.left_out = 0
        self.error: BaseException | None = None

    def push(self, about: Any, values: Any, at: At) -> None:
        """Queue a copy of a vector, such as one number per name, and hand over what was queued before."""
        self.hand_over()
        self.pending.append(on_its_way(about, values, at))

    def hand_over(self) -> None:
        """Let the thread read what was pushed; one that is far behind loses the newest readings, counted."""
        for copy in self.pending:
            self.left_out += not self.background.do(partial(self.read, copy), patience=0.0)
        self.pending.clear()

    def flush(self, limit: float = LIMIT) -> None:
        """Wait, at most ``limit`` seconds, until everything pushed is delivered."""
        self.hand_over()
        done = threading.Event()
        if self.background.do(done.set, patience=limit):
            done.wait(limit)

    def close(self, limit: float = LIMIT) -> None:
        """Deliver what waits and end the thread; say what was left out."""
        self.hand_over()
        if not self.background.close(limit=limit):
            log().warning("%s: the last numbers did not arrive within %g s", self.name, limit)
        if self.left_out:
            log().warning("%s: %d readings were left out: the thread was too far behind", self.name, self.left_out)

    def read(self, copy: _Copy) -> None:
        """Wait for a copy and deliver it; on the thread."""
        try:
            if copy.event is not None:
                copy.event.synchronize()
            self.deliver(Reading(copy.about, copy.host.tolist(), copy.at))
        except BaseException as error:
            if self.error is None:
                self.error = error
                log().error("%s could not deliver what it measured; the training goes on", self.name, exc_info=error)


def on_its_way(about: Any, values: Any, at: At) -> _Copy:
    """Begin the copy of a vector to the host; on the host already it is there, elsewhere than CUDA it is read later."""
    if values.device.type != "cuda":
        return _Copy(about, values, None, at)
    import torch

    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event: Any = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(values.device))
    return _Copy(about, host, event, at)
