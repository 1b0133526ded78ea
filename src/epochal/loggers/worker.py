"""Background writing: one ordered, bounded queue and one thread, which never blocks or fails the training thread."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from epochal.core.host import Record
from epochal.core.tensors import read

logger = logging.getLogger("epochal")
LAST_ATTEMPTS = 3  # tries at the end, when writing fails
PATIENCE = 3.0  # seconds at the end before we say that we wait
TRIES = 3  # before records that make writing fail for good are left out
ALL_BAD = 64  # records that are refused one by one, before it is not the records that are wrong
LONG = 10_000  # characters of texts


class Writer(Protocol):
    """One destination while a training runs; every method is called on the worker's thread, in order.

    ``write`` takes all records or none: after an error the same records come again.
    """

    def write(self, records: Sequence[Record]) -> None:
        """Write records, whose metrics are floats here."""
        ...

    def finish(self, end_reason: str) -> None:
        """End truthfully: "completed", "stopped", "interrupted", "preempted" or "exception"."""
        ...


class Limits(NamedTuple):
    """How much waits and how long, in records and seconds."""

    records: int = 5000
    images: int = 32  # and long texts
    pause: float = 0.2  # between looks into the queue
    longest_pause: float = 15.0  # between tries while writing fails


class Outcome(NamedTuple):
    """What became of the records; ``error`` is the last one that lost something."""

    written: int
    lost: int
    thinned: int
    finished: bool
    error: BaseException | None


class Worker:
    """Takes records on the training thread in about a microsecond and writes them on a thread of its own.

    When the queue is full, batch values are thinned out evenly (every second one goes) and counted; values of epochs
    and validations, hyper-parameters and the end stay. A failing destination is tried again, with growing pauses.

    >>> from epochal.core.metrics import At
    >>> class Print:
    ...     def write(self, records):
    ...         print([dict(record.values) for record in records])
    ...     def finish(self, end_reason):
    ...         print(end_reason)
    >>> worker = Worker("Print", Print)
    >>> worker.start()
    >>> worker.put(Record("metrics", {"train/loss": 0.5}, At(0, 0, 1), 0.0))
    >>> worker.close("completed", limit=5.0).written
    [{'train/loss': 0.5}]
    completed
    1
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Writer],  # noqa: A002  # it opens the destination
        *,
        limits: Limits | None = None,
        passing: Callable[[Exception], bool] = lambda error: isinstance(error, OSError),
    ) -> None:
        self.name, self.open, self.limits, self.passing = name, open, limits or Limits(), passing
        self.lock = threading.RLock()  # held for list operations only; re-entrant: a signal handler may log too
        self.buffer: list[Record] = []
        self.held: list[Record] = []  # taken from the buffer, being written
        self.writer: Writer | None = None
        self.wake = threading.Event()  # set when much waits, and to close
        self.closing = False
        self.end_reason = "completed"
        self.abandoned = self.finished = False
        self.written = self.lost = self.thinned = self.failures = self.images = 0
        self.error: BaseException | None = None
        self.pause = self.limits.pause
        self.thread: threading.Thread | None = None

    # -- on the training thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; a daemon, so that a hung destination cannot keep the process alive."""
        self.thread = threading.Thread(target=self.loop, name=f"epochal {self.name}", daemon=True)
        self.thread.start()

    def put(self, record: Record) -> None:
        """Queue a record; never blocks, never raises."""
        with self.lock:
            if is_large(record):
                if self.images >= self.limits.images:
                    self.thinned += 1
                    return
                self.images += 1
            self.buffer.append(record)
            waiting = len(self.buffer)
            if waiting > self.limits.records:
                self.thin()
            elif waiting == self.limits.records // 4 and not self.failures:
                self.wake.set()

    def thin(self) -> None:
        """Leave out every second batch value, evenly; if that is not enough, the oldest half of everything."""
        before, kept, drop = len(self.buffer), list[Record](), False
        for record in self.buffer:
            if record.kind == "layers" or (record.kind == "metrics" and record.at.batch is not None):
                drop = not drop
                if drop:
                    continue
            kept.append(record)
        if len(kept) > self.limits.records * 3 // 4:
            kept = kept[len(kept) // 2 :]
        self.buffer = kept
        self.thinned += before - len(kept)

    def close(self, end_reason: str, *, limit: float) -> Outcome:
        """Write what waits and end, within ``limit`` seconds; then give up and say what was not written."""
        self.end_reason = end_reason
        self.closing = True
        self.wake.set()
        try:
            if self.thread is not None:
                self.thread.join(min(limit, PATIENCE))
            if self.thread is not None and self.thread.is_alive() and limit > PATIENCE:
                logger.warning(
                    "%s is still writing; the end of the training waits for it, at most %g s.", self.name, limit
                )
                self.thread.join(limit - PATIENCE)
        finally:
            self.abandoned = True
        with self.lock:
            lost = self.lost + len(self.buffer) + len(self.held)
            return Outcome(self.written, lost, self.thinned, self.finished, self.error)

    # -- on the worker's thread ----------------------------------------------------------------------------------

    def loop(self) -> None:
        """Write until closed; then write the rest and finish."""
        tries = LAST_ATTEMPTS
        while not self.abandoned and tries:
            self.wake.wait(self.pause)
            closing = self.closing
            if not closing:
                self.wake.clear()
                if self.closing:  # since we looked
                    self.wake.set()
            if self.turn():
                self.pause = self.rest()
                if closing and self.is_drained():
                    break
                continue
            if closing:
                tries -= 1
                time.sleep(self.limits.pause)
            else:
                self.pause = min(max(self.pause, self.limits.pause) * 2, self.limits.longest_pause)
        if not self.abandoned and not self.held and self.writer is not None:
            self.end(self.writer)

    def rest(self) -> float:
        """Return how many seconds to rest after a turn that went well."""
        return self.limits.pause

    def is_drained(self) -> bool:
        """Say whether nothing waits."""
        return not self.buffer

    def turn(self) -> bool:
        """Write what waits; return whether all is well."""
        if not self.held:
            self.take()
        if not self.held and self.writer is not None:
            return True
        try:
            if self.writer is None:
                self.writer = self.open()
            self.writer.write(self.held)
        except Exception as error:
            self.failed(error)
            return False
        if self.failures:
            logger.info("%s can be written again.", self.name)
        self.settle(written=True)
        return True

    def settle(self, *, written: bool) -> None:
        """Be done with the records in hand."""
        with self.lock:
            if written:
                self.written += len(self.held)
            else:
                self.lost += len(self.held)
            self.held = []
            self.failures = 0

    def take(self) -> None:
        """Take everything that waits; read the tensors in one go."""
        with self.lock:
            taken, self.buffer, self.images = self.buffer, [], 0
        try:
            self.held = with_floats(taken)
        except Exception as error:
            self.lost += len(taken)
            self.report(error)

    def failed(self, error: Exception) -> None:
        """Report the first failure, keep the records for another try, or leave them out when trying is in vain."""
        self.failures += 1
        self.report(error)
        if self.failures >= TRIES and not self.passing(error):
            if self.writer is not None and len(self.held) > 1 and not self.write_apart(self.writer):
                return
            self.settle(written=False)

    def write_apart(self, writer: Writer) -> bool:
        """Write in ever smaller parts, so that a bad record does not take the good ones with it; the bad ones stay.

        False: an error that may pass came between, and what is not written yet is kept for another try.
        """
        parts, bad, good = [self.held], list[Record](), 0
        while parts:
            part = parts.pop()
            try:
                writer.write(part)
            except Exception as error:
                self.error = error
                if self.passing(error):
                    self.held = [*bad, *part, *chain.from_iterable(reversed(parts))]
                    return False
                if len(part) == 1:
                    bad += part
                    if len(bad) == ALL_BAD and not good:
                        return True
                else:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                good += len(part)
                self.written += len(part)
        self.held = bad
        return True

    def report(self, error: BaseException) -> None:
        """Say the first failure, with its traceback; the last one is told at the end."""
        if self.error is None:
            logger.error(
                "%s could not be written; the training goes on, writing is tried again."
                " Further failures are counted, not shown.",
                self.name,
                exc_info=error,
            )
        self.error = error

    def end(self, writer: Writer) -> None:
        """Finish, with a second try."""
        for _ in range(2):
            try:
                writer.finish(self.end_reason)
            except Exception as error:
                self.report(error)
                time.sleep(self.limits.pause)
            else:
                self.finished = True
                return


def is_large(record: Record) -> bool:
    """Say whether few of such records fill much memory."""
    return record.kind == "image" or (record.kind == "text" and sum(map(len, record.values.values())) > LONG)


def with_floats(records: Sequence[Record]) -> list[Record]:
    """Return the records with every metric a float; tensors of one device are brought to the host in one copy."""
    measured = ("metrics", "final")
    numbered = [record for record in records if record.kind in measured]
    numbers = iter(read([value for record in numbered for value in record.values.values()]))

    def floats(values: Mapping[str, Any]) -> dict[str, float]:
        return {name: next(numbers) for name in values}

    return [one._replace(values=floats(one.values)) if one.kind in measured else one for one in records]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, cut to a readable length."""
    text = str(error).strip().partition("\n")[0]
    return text if len(text) <= 200 else f"{text[:197]}..."
