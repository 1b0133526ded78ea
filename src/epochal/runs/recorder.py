"""What records a training in its run's store: begun with the training, by default, in every trainer."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from epochal.core.host import Record
from epochal.core.log import log
from epochal.core.preemption import within
from epochal.runs.book import Row
from epochal.runs.environment import environment
from epochal.runs.epoch_rows import EpochRows
from epochal.runs.process import this_process
from epochal.runs.schema import as_json, file_of
from epochal.runs.writer import CROWD, Answer, Attempt, StoreWriter, Values

if TYPE_CHECKING:
    from epochal.core.dispatch import Handle
    from epochal.core.run import Run
    from epochal.runs.commands import Command

LABEL = "run store"
STATES = {  # how a training ended -> the state of its session
    "completed": "finished",
    "stopped": "stopped",
    "exception": "failed",
    "interrupted": "interrupted",
    "preempted": "preempted",
}
LIMIT = 10.0  # seconds that the end of a training may wait for the disk


class Recorder:
    """Listens to a run and has everything written to ``run.db`` in its folder, off the training thread.

    ``control``: commands that people put into the file are handed to the run.
    """

    def __init__(self, run: "Run", *, control: bool = True) -> None:
        self.run, self.control = run, control
        self.writer: StoreWriter | None = None
        self.rows = EpochRows(run)
        self.finals: dict[str, None] = {}
        self.highest = 0  # the step that this attempt has come to
        self.span: tuple[int, int, float] | None = None  # epoch, first step and begin of the epoch that is open
        self.last: Handle | None = None
        for event, call in (
            ("on_train_start", self.begin),
            ("on_train_epoch_start", self.begin_epoch),
            ("on_fit_epoch_end", self.end_epoch),
            ("on_model_save", self.hand_over),
            ("on_train_end", self.hand_over),
        ):
            self.listen(event, call)
        start = run.engine.dispatcher.slots["on_train_start"]
        start.set((start.wanted[-1], *start.wanted[:-1]))  # before the callbacks, which may log there

    def listen(self, event: str, call: Callable[["Run"], None]) -> "Handle":
        """Call at an event; a failure here is told and the training goes on."""
        return self.run.engine.dispatcher.listen(event, call, label=LABEL, guarded=True)

    # -- events -------------------------------------------------------------------------------------------------------

    def begin(self, run: "Run") -> None:
        """A training starts: from now on what is logged is taken."""
        engine = run.engine
        if run.folder is None:
            return
        self.rows, self.finals, self.highest = EpochRows(run), {}, engine.step
        self.last = self.listen("teardown", self.end)  # behind the callbacks, which may log there
        hand = self.hand if self.control and run.rank == 0 else None
        self.writer = writer = StoreWriter(self.place, partial(self.session, time.time()), hand)
        writer.entries.append(Attempt(engine.step, engine.next_epoch, time.time()))
        if engine.params:
            self.params(engine.params)
        engine.add_sink(self.sink)
        engine.answer = self.answer
        writer.start()

    def place(self) -> Path:
        """Make the run's folder and return the file; on the writer's thread."""
        run = self.run
        assert run.folder is not None
        folder = run.folder.make() if run.rank == 0 else run.folder.path
        folder.mkdir(parents=True, exist_ok=True)
        return file_of(folder, run.rank)

    def session(self, started: float) -> dict[str, Any]:
        """Return the row of this process' session; on the writer's thread."""
        run, process = self.run, this_process()
        about = {"trainer": run.host, "name": run.name, "rank": run.rank, "world_size": run.world_size}
        about |= {"epochs": run.num_epochs, "batches": run.num_batches, "control": self.control, **environment()}
        callbacks = [{"name": label, "what": repr(one)} for label, one in run.roster.callbacks.items()]
        return {
            "started": started, "pid": process["pid"], "host": process["host"], "process": process["started"],
            "about": as_json(about), "callbacks": as_json(callbacks), "commands": "[]",
        }  # fmt: skip

    def begin_epoch(self, run: "Run") -> None:
        """An epoch begins; one that repeats steps begins another attempt."""
        self.hand_over(run)
        engine, writer = run.engine, self.writer
        if writer is None:
            return
        now = time.time()
        if engine.step < self.highest:
            writer.entries.append(Attempt(engine.step, engine.epoch, now))
        self.highest = engine.step
        self.span = engine.epoch, engine.step, now

    def end_epoch(self, run: "Run") -> None:
        """An epoch ends: its row comes once no callback can add to it."""
        engine, writer = run.engine, self.writer
        self.hand_over(run)
        self.rows.note()
        self.highest = engine.step
        if writer is None or self.span is None:
            return
        epoch, first, begun = self.span
        span = {"epoch": epoch, "first_step": first, "last_step": engine.step, "started": begun, "ended": time.time()}
        writer.entries.append(partial(self.spanned, span))
        self.span = None

    def spanned(self, span: dict[str, Any]) -> Row:
        """Return the row of an epoch; on the writer's thread, where the attempt is known."""
        assert self.writer is not None
        return Row("epochs", {"attempt": self.writer.book.attempt, **span}, replaces=True)

    def hand_over(self, run: "Run") -> None:
        """Hand over the epoch before."""
        record = self.rows.take()
        if record is not None and self.writer is not None:
            at = record.at
            self.writer.entries.append(Values("epoch", record.values, at.step, at.epoch, record.time))

    def end(self, run: "Run") -> None:
        """A training is over: how, and what was lost."""
        engine, writer = run.engine, self.writer
        if self.last is not None:
            self.last.remove()
            self.last = None
        self.hand_over(run)
        engine.answer = None
        if writer is None:
            return
        if self.finals:
            values = {name: engine.metrics.measured(name).value for name in self.finals}
            writer.entries.append(Values("final", values, engine.step, engine.epoch, time.time()))
        final = {
            "state": STATES[engine.end_reason or "completed"],
            "stop_reason": run.stop_reason,
            "error": None if engine.error is None else f"{type(engine.error).__name__}: {engine.error}",
            "summary": as_json(summed_up(run)),
        }
        limit = within(engine, LIMIT)
        done = writer.close(final, limit=limit)
        said = told(writer, done, limit)
        if said is not None:
            engine.notes.append(said)
            log().warning("%s", said)
        self.writer = None

    # -- what is logged -----------------------------------------------------------------------------------------------

    def sink(self, record: Record) -> None:
        """Take what was logged; on the training thread, so only put it into the queue."""
        writer = self.writer
        if writer is None:
            return
        kind, at = record.kind, record.at
        if kind == "metrics":
            scope = "batch" if at.batch is not None else "point"
            if self.run.engine.in_validation:
                if not self.is_wanted(record):
                    return
                scope = "point"
            writer.entries.append(Values(scope, record.values, at.step, at.epoch, record.time))
            if len(writer.entries) > CROWD:
                writer.crowded()
        elif kind == "layers":
            writer.entries.append(Values("layers", record.values, at.step, at.epoch, record.time))
        elif kind == "params":
            self.params(record.values)
        elif kind == "image":
            from epochal.runs.media import copied, image_row

            for name, image in record.values.items():
                writer.entries.append(partial(image_row, writer, name, copied(image), at, record.time))

    def is_wanted(self, record: Record) -> bool:
        """Say whether a validation's values are kept now: not those of its batches, nor those of one outside epochs."""
        engine = self.run.engine
        if not engine.in_epoch:
            self.finals.update(dict.fromkeys(record.values))
        return engine.in_epoch and not engine.in_val_batch  # their mean comes with the epoch

    def params(self, values: Mapping[str, Any]) -> None:
        """Take hyper-parameters."""
        writer, given = cast("StoreWriter", self.writer), dict(values)
        for name, value in given.items():
            writer.entries.append(Row("params", {"name": name, "value": as_json(value), "attempt": 0}, replaces=True))

    def event(self, kind: str, text: str, *, by: str, about: Mapping[str, Any] | None = None) -> None:
        """Take something that happened, to be drawn on the charts."""
        engine, writer = self.run.engine, self.writer
        if writer is not None:
            row = {"kind": kind, "step": engine.step, "epoch": engine.epoch, "time": time.time(), "by": by}
            row |= {"text": text, "about": as_json(dict(about or {}))}
            writer.entries.append(lambda: Row("events", {"attempt": writer.book.attempt, **row}))

    # -- control ------------------------------------------------------------------------------------------------------

    def hand(self, command: "Command") -> None:
        """Give a command to the run; on the writer's thread."""
        self.run.engine.requests.add_command(command)

    def answer(self, id: str, state: str, text: str) -> None:  # noqa: A002  # the command's
        """Take what became of a command."""
        engine, writer = self.run.engine, self.writer
        if writer is not None:
            writer.entries.append(Answer(id, state, engine.step, engine.epoch, text, time.time()))
            writer.state = "paused" if engine.requests.paused else "running"


def summed_up(run: "Run") -> dict[str, Any]:
    """Return how a training ended in numbers: what its callbacks cost, which failed, its best."""
    past = run.past[-1] if run.past else None
    if past is None:
        return {}
    left_out = ("history", "dir")
    return {name: value for name, value in past._asdict().items() if name not in left_out}


def told(writer: StoreWriter, done: bool, limit: float) -> str | None:
    """Return in words what the store lacks, None if nothing."""
    parts = [f"{count} {what} were left out" for what, count in writer.book.lost.items()]
    if not done:
        parts.append(f"what waited was not written within {limit:g} s")
    if not parts:
        return None
    error = f"; the last error was {type(writer.error).__name__}: {writer.error}" if writer.error else ""
    return f"run store: {'; '.join(parts)}{error}"
