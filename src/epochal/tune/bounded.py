"""Calls that may hang or fail, made so that the training hardly notices."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Answer = TypeVar("Answer")


class Bounded:
    """Makes calls one at a time, waits so long for each, and calls more and more seldom while they fail.

    >>> calls = Bounded(timeout=5.0)
    >>> calls.ask(lambda: 6 * 7)
    42
    >>> calls.ask(lambda: 1 / 0) is None, calls.error
    (True, ZeroDivisionError('division by zero'))

    timeout
        Seconds to wait for a call, which is made on a thread of its own; what still hangs then is left to itself.
        With None calls are made on the caller's thread, however long they take.

    After the n-th failure in a row 2 ** (n - 1) - 1 calls are left out: of a hundred at most seven are waited for.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.thread: Thread | None = None
        self.error: Exception | None = None  # the last one
        self.asked = self.unanswered = self.failures_in_a_row = self.left_out = 0

    def ask(self, call: Callable[[], Answer]) -> Answer | None:
        """Return what the call returns, or None where it failed, took too long or was left out."""
        self.asked += 1
        if self.left_out:
            self.left_out -= 1
            self.unanswered += 1
            return None
        try:
            answer = self.made(call)
        except Exception as error:
            self.error = error
            self.unanswered += 1
            self.failures_in_a_row += 1
            self.left_out = 2 ** (self.failures_in_a_row - 1) - 1
            return None
        self.failures_in_a_row = 0
        return answer

    def made(self, call: Callable[[], Answer]) -> Answer:
        """Make the call, or raise what it raises, or TimeoutError."""
        if self.timeout is None:
            return call()
        if self.thread is not None and self.thread.is_alive():
            raise TimeoutError("an earlier call still hangs")
        future: Future[Answer] = Future()

        def answer() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        # A daemon: what hangs must not keep the process alive.
        self.thread = Thread(target=answer, name="epochal asks", daemon=True)
        self.thread.start()
        self.thread.join(self.timeout)
        if self.thread.is_alive():
            raise TimeoutError(f"no answer within {self.timeout:g} seconds")
        return future.result()
