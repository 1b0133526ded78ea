"""The base of all loggers: what they are handed, when, and how they end."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.host import Record
from epochal.core.metrics import At
from epochal.core.preemption import within
from epochal.loggers.about import About
from epochal.loggers.worker import Limits, Outcome, Worker, Writer, first_line
from epochal.runs.epoch_rows import EpochRows
from epochal.runs.media import copied

if TYPE_CHECKING:
    from epochal.core.run import Run
    from epochal.loggers.following import Following

logger = logging.getLogger("epochal")


class Logger(Callback):
    """Streams a training to one destination, off the training thread.

    A logger of your own implements ``open``, which returns an object with ``write(records)`` and
    ``finish(end_reason)``; all three are called on the logger's own thread, in order, and may be slow or fail. A
    ``Record`` has ``kind``, ``values``, ``at`` (epoch, batch, step) and ``time`` (seconds since 1970):

    - "metrics": values as logged; ``at.batch`` is None outside training batches (validations, whole epochs)
    - "epoch": one per finished epoch: means of what was logged in batches, ``lr/<group>``, ``fitness``, ``seconds``
    - "final": what a validation outside the epochs measured, once, at the end
    - "layers": what a monitor measured inside the model at ``at.step``; it may come after later records
    - "params": hyper-parameters; "image": name -> array or path, and ``boxes``; "text": name -> text
    - "histogram": name -> ``Histogram``, from the store only

    A logger that names its ``destination`` and says in ``options`` how it is made anew is handed what the run's store
    holds, once it is durable there, where the run has a store: whatever the destination does, nothing is lost, and
    ``epochal sync RUN`` brings what it lacks.

    Options: ``keep_native`` keeps the trainer's own integration for the same destination running; ``flush_limit`` is
    how many seconds the end of a training may wait for what is not written yet, fewer after a signal.

    >>> class PrintLogger(Logger):
    ...     def open(self, about):
    ...         return self
    ...     def write(self, records):
    ...         for record in records:
    ...             print(record.kind, dict(record.values))
    ...     def finish(self, end_reason):
    ...         print(end_reason)
    >>> PrintLogger(flush_limit=2.0).guarded
    True
    """

    guarded = True
    replaces: ClassVar[frozenset[str]] = frozenset()
    destination: ClassVar[str] = ""  # of one that reads the run's store: "mlflow"
    apart: ClassVar[bool] = False  # it then works in a process of its own; not handed down to classes derived from it
    limits: ClassVar[Limits] = Limits()
    keep_native: bool = False
    flush_limit: float = 10.0
    session: "Session | Following | None" = None
    process: int = 0  # that the session is of

    def __init__(self, *, keep_native: bool = False, flush_limit: float = 10.0, name: str | None = None) -> None:
        if not flush_limit >= 0:
            raise ArgumentError(f"flush_limit={flush_limit!r} must be a number of seconds, 0 or more")
        self.keep_native, self.flush_limit = keep_native, flush_limit
        if name is not None:
            self.name = name

    def __getstate__(self) -> dict[str, Any]:
        """Leave the running training out: an object that is copied or pickled is an idle one."""
        return {**self.__dict__, "session": None}

    def open(self, about: About) -> Writer:
        """Open the destination; called off the training thread, and again after a failure."""
        raise NotImplementedError(f"{type(self).__name__} must implement open(about) and return a writer")

    def options(self) -> dict[str, Any]:
        """Return the options that make such a logger anew, as JSON values and without secrets."""
        return {}

    def private(self) -> dict[str, Any]:
        """Return options that take the place of others in a process of the logger's own, as JSON values: never kept."""
        return {}

    def needs_folder(self) -> bool:
        """Say whether ``open`` wants the run's folder made."""
        return True

    def batches(self) -> int | None:
        """Return of which optimizer steps the batch values are wanted: 1 for all, n for each n-th, None for none."""
        return 1

    def is_passing(self, error: Exception) -> bool:
        """Say whether an error may pass (a full disk, a server that is down), so that writing is tried again."""
        return isinstance(error, OSError)

    def on_resume(self, run: "Run") -> None:
        """Remember that this training goes on where another ended."""
        if self.session is None:
            self.session = Session(self, run, resumed=True)  # not started

    def on_train_start(self, run: "Run") -> None:
        """Begin to listen; on the first process only."""
        resumed = self.session is not None or bool(run.engine.history)
        self.session = None
        if run.rank == 0:
            session = self.session_for(run, resumed=resumed)
            session.start()
            self.session, self.process = session, os.getpid()

    def session_for(self, run: "Run", *, resumed: bool) -> "Session | Following":
        """Return what feeds this logger: the run's store, where there is one and it wants that, else the run itself."""
        recorder = run.recorder
        if self.destination and recorder is not None and recorder.writer is not None:
            from epochal.loggers.following import Following

            return Following(self, run, recorder, resumed=resumed)
        return Session(self, run, resumed=resumed)

    def on_train_epoch_start(self, run: "Run") -> None:
        """Hand over the epoch before: every callback has had its say in it."""
        if self.session is not None:
            self.session.flush_epoch()

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Note the epoch; it is handed over once no callback can add to it."""
        if self.session is not None:
            self.session.note_epoch()

    def on_model_save(self, run: "Run") -> None:
        """Hand over the epoch before it is in a checkpoint."""
        if self.session is not None:
            self.session.flush_epoch()

    def on_train_end(self, run: "Run") -> None:
        """Hand over the last epoch."""
        if self.session is not None:
            self.session.flush_epoch()

    def teardown(self, run: "Run") -> None:
        """Write what waits, within the limit, and say what was lost."""
        session, self.session = self.session, None
        if session is not None and self.process == os.getpid():  # else forked: its threads are the parent's
            session.close(run.end_reason or "completed")


class Session:
    """One training of one logger: its worker, and the epoch that is not handed over yet."""

    def __init__(self, owner: Logger, run: "Run", *, resumed: bool) -> None:
        self.owner, self.run, self.resumed = owner, run, resumed
        self.engine = run.engine
        self.every = owner.batches()
        self.worker: Worker | None = None
        self.epochs = EpochRows(run)
        self.finals: dict[str, None] = {}  # the names, in order

    def start(self) -> None:
        """Start the worker and listen to what is logged."""
        run, engine, owner = self.run, self.engine, self.owner
        folder = run.folder.make() if run.folder is not None and owner.needs_folder() else None
        history = tuple(dict(row) for row in engine.history)
        about = About(run.name, folder, run.host, self.resumed, history, engine.step, time.time())
        worker = Worker(run.label(owner), lambda: owner.open(about), limits=owner.limits, passing=owner.is_passing)
        worker.start()
        self.worker = worker
        if engine.params:
            worker.put(Record("params", dict(engine.params), At(engine.epoch, None, engine.step), time.time()))
        engine.add_sink(self.sink)

    def sink(self, record: Record) -> None:
        """Take what was logged; on the training thread, so only put it into the queue."""
        engine, worker = self.engine, self.worker
        if worker is None:
            return
        if record.kind == "histogram":
            return  # the store counts them
        if record.kind == "metrics":
            if engine.in_validation:
                if not engine.in_epoch:
                    self.finals.update(dict.fromkeys(record.values))
                    return
                if engine.in_val_batch:
                    return  # its mean comes with the epoch
            elif record.at.batch is not None and (self.every is None or record.at.step % self.every):
                return
        elif record.kind == "image":
            record = record._replace(values={name: copied(image) for name, image in record.values.items()})
        worker.put(record)

    def note_epoch(self) -> None:
        """Remember where this epoch ended."""
        self.flush_epoch()
        self.epochs.note()

    def flush_epoch(self) -> None:
        """Hand the noted epoch over, with what its history holds now."""
        record = self.epochs.take()
        if record is not None and self.worker is not None:
            self.worker.put(record)

    def close(self, end_reason: str) -> None:
        """End the worker within the limit and say what was lost, in the log and in the summary."""
        self.flush_epoch()
        worker = self.worker
        if worker is None:
            return
        if self.finals:
            values = {name: self.engine.metrics.measured(name).value for name in self.finals}
            worker.put(Record("final", values, At(self.engine.epoch, None, self.engine.step), time.time()))
        limit = within(self.engine, self.owner.flush_limit)
        said = told(worker.name, worker.close(end_reason, limit=limit), limit)
        if said is not None:
            self.engine.notes.append(said)
            logger.warning("%s", said)


def told(name: str, outcome: Outcome, limit: float) -> str | None:
    """Return in words what was lost, or None if nothing was.

    >>> told("CSVLogger", Outcome(written=7, lost=0, thinned=0, finished=True, error=None), 10.0)
    >>> told("CSVLogger", Outcome(written=7, lost=2, thinned=0, finished=False, error=OSError("disk full")), 10.0)
    'CSVLogger: 2 of 9 records were not written; the last error was OSError: disk full'
    """
    parts: list[str] = []
    total = outcome.written + outcome.lost + outcome.thinned
    if outcome.lost:
        parts.append(f"{outcome.lost} of {total} records were not written")
    if outcome.thinned:
        parts.append(f"{outcome.thinned} of {total} records were left out because writing was too slow")
    if not outcome.finished:
        parts += [] if outcome.lost else ["its end was not written"]
        parts += [] if outcome.error else [f"it did not answer within {limit:g} s"]
    error = "" if outcome.error is None else f"{type(outcome.error).__name__}: {first_line(outcome.error)}"
    if error and parts:
        parts.append(f"the last error was {error}")
    elif error:
        parts.append(f"writing failed for a while ({error}); then all records were written")
    return f"{name}: {'; '.join(parts)}" if parts else None


def plain(values: Mapping[str, Any], reserved: frozenset[str]) -> dict[str, Any]:
    """Return values under names that no fixed column has: a metric "epoch" becomes "metric/epoch"."""
    return {f"metric/{name}" if name in reserved else name: value for name, value in values.items()}


def is_worker_thread(thread: threading.Thread) -> bool:
    """Say whether a thread belongs to a logger."""
    return thread.name.startswith("epochal ")
