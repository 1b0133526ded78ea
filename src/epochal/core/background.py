"""Deeds done off the training thread: one thread, in order, a bounded number waiting."""

import queue
import threading
from collections.abc import Callable
from time import monotonic

Deed = Callable[[], None]


class Background:
    """Does deeds on a thread of its own; a deed that fails is remembered as ``error``, the next is done all the same.

    >>> background = Background("doctest")
    >>> background.do(lambda: print("done"), patience=1.0), background.close(limit=5.0)
    done
    (True, True)
    """

    def __init__(self, name: str, *, waiting: int = 64) -> None:
        self.deeds: queue.Queue[Deed | None] = queue.Queue(maxsize=waiting)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.work, name=f"epochal {name}", daemon=True)
        self.thread.start()

    def do(self, deed: Deed, *, patience: float) -> bool:
        """Have a deed done; wait at most so many seconds for room, and say whether there was any."""
        try:
            self.deeds.put(deed, timeout=patience)
        except queue.Full:
            return False
        return True

    def close(self, *, limit: float) -> bool:
        """Do what waits and end, within so many seconds; say whether that was enough."""
        until = monotonic() + limit
        try:
            self.deeds.put(None, timeout=limit)
        except queue.Full:
            return False
        self.thread.join(max(until - monotonic(), 0.0))
        return not self.thread.is_alive()

    def work(self) -> None:
        """Do deeds until closed."""
        while (deed := self.deeds.get()) is not None:
            try:
                deed()
            except Exception as error:
                self.error = error
