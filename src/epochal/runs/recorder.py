"""What records a training in its run's store: begun with the training, by default, in every trainer."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, cast

from epochal.core.control import described
from epochal.core.host import Record
from epochal.core.log import log
from epochal.core.metrics import Logged, Where
from epochal.core.preemption import within
from epochal.runs.book import Row
from epochal.runs.console import Console
from epochal.runs.environment import environment
from epochal.runs.epoch_rows import EpochRows
from epochal.runs.folder import MARK, runs_named
from epochal.runs.process import launch, this_process
from epochal.runs.schema import FILE, as_json, file_of, text_of
from epochal.runs.store_file import NotYet
from epochal.runs.writer import CROWD, START, Answer, StoreWriter

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
        self.run, self.control, self.started = run, control, 0.0
        self.writer: StoreWriter | None = None
        self.rows = EpochRows(run)
        self.finals: dict[str, None] = {}
        self.highest = 0  # the step that this attempt has come to
        self.begun: int | None = None  # the epoch of it that began last
        self.span: tuple[int, int, float] | None = None  # epoch, first step and begin of the epoch that is open
        self.failures: dict[str, int] = {}  # of callbacks, that were noted
        self.last: Handle | None = None
        self.when_written: list[Callable[[], None]] = []  # called once the store has all of a training
        run.recorder = self
        for event, call in (
            ("on_train_start", self.begin),
            ("on_train_epoch_start", self.begin_epoch),
            ("on_train_epoch_abort", self.abort_epoch),
            ("on_fit_epoch_end", self.end_epoch),
            ("on_pause", self.pause),
            ("on_continue", self.proceed),
            ("on_checkpoint_error", self.not_saved),
            ("on_model_save", self.hand_over),
            ("on_train_end", self.hand_over),
        ):
            self.listen(event, call)
        start = run.engine.dispatcher.slots["on_train_start"]
        start.set((start.wanted[-1], *start.wanted[:-1]))  # before the callbacks, which may log there

    def __getstate__(self) -> dict[str, Any]:
        """Leave the running training out: what is copied or pickled is an idle one, and writes into no file."""
        return {**self.__dict__, "writer": None, "last": None, "when_written": []}

    def listen(self, event: str, call: Callable[["Run"], None]) -> "Handle":
        """Call at an event; a failure here is told and the training goes on."""
        return self.run.engine.dispatcher.listen(event, call, label=LABEL, guarded=True)

    # -- events -------------------------------------------------------------------------------------------------------

    def begin(self, run: "Run") -> None:
        """A training starts: from now on what is logged is taken."""
        engine = run.engine
        if run.folder is None:
            return
        self.rows, self.finals, self.failures, self.highest = EpochRows(run), {}, {}, engine.step
        self.begun = None
        self.last = self.listen("teardown", self.end)  # behind the callbacks, which may log there
        hand = self.hand if self.control and run.rank == 0 else None
        self.started = time.time()
        self.writer = writer = StoreWriter(self.place, partial(self.session, self.started), hand)
        writer.begin_attempt(engine.step, engine.next_epoch)
        if engine.params:
            self.params(engine.params)
        engine.add_sink(self.sink)
        engine.record, engine.answer, engine.note, engine.offering = self.take, self.answer, self.note, self.offer
        writer.console = Console()
        writer.console.begin()
        writer.start()

    def place(self) -> Path:
        """Make the run's folder and return the file; on the writer's thread."""
        run = self.run
        assert run.folder is not None
        if run.rank == 0:
            return file_of(run.folder.make(), 0)
        return file_of(of_rank_0(run.folder, self.started), run.rank)

    def session(self, started: float) -> dict[str, Any]:
        """Return the row of this process' session; on the writer's thread."""
        run, process = self.run, this_process()
        about = {"trainer": run.host, "name": run.name, "rank": run.rank, "world_size": run.world_size}
        about |= {"epochs": run.num_epochs, "batches": run.num_batches, "control": self.control, **environment()}
        callbacks = [{"name": label, "what": text_of(one, repr)} for label, one in run.roster.callbacks.items()]
        return {
            "started": started, "pid": process["pid"], "host": process["host"], "process": process["started"],
            "about": as_json(about), "callbacks": as_json(callbacks),
            "commands": as_json(described(run)),
        }  # fmt: skip

    def begin_epoch(self, run: "Run") -> None:
        """An epoch begins; one that repeats steps, or itself, begins another attempt."""
        self.hand_over(run)
        engine, writer = run.engine, self.writer
        if writer is None:
            return
        if engine.step < self.highest or (self.begun is not None and engine.epoch <= self.begun):
            writer.begin_attempt(engine.step, engine.epoch)
        self.highest, self.begun = engine.step, engine.epoch
        self.span = engine.epoch, engine.step, time.time()

    def abort_epoch(self, run: "Run") -> None:
        """An epoch is given up: how far it had come says whether the next one repeats steps."""
        self.highest, self.span = max(self.highest, run.engine.step), None

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
        writer.entries.append(Row("epochs", {"attempt": writer.attempt, **span}, replaces=True))
        self.span = None

    def hand_over(self, run: "Run") -> None:
        """Hand over the epoch before, and tell which callbacks have failed since."""
        for label, count in run.engine.dispatcher.failures.items():
            if self.failures.get(label) != count:
                self.failures[label] = count
                self.note("failure", f"{label} failed, {count} times by now" if count > 1 else f"{label} failed", label)
        record = self.rows.take()
        if record is not None and self.writer is not None:
            at = record.at
            self.writer.put("epoch", record.values, at.step, at.epoch, record.time)

    def end(self, run: "Run") -> None:
        """A training is over: how, and what was lost."""
        engine, writer = run.engine, self.writer
        if self.last is not None:
            self.last.remove()
            self.last = None
        self.hand_over(run)
        engine.record = engine.answer = engine.note = None
        if writer is None:
            return
        if writer.console is not None:
            writer.console.end()
        if self.finals:
            values = {name: engine.metrics.measured(name).value for name in self.finals}
            writer.put("final", values, engine.step, engine.epoch, time.time())
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
        waiting, self.when_written = self.when_written, []
        for call in waiting:
            call()
        self.writer = None

    # -- what is logged -----------------------------------------------------------------------------------------------

    def sink(self, record: Record) -> None:
        """Take what was logged beside metrics; on the training thread, so only put it into the queue."""
        writer = self.writer
        if writer is None:
            return
        at = record.at
        if record.kind == "layers":
            writer.put("layers", record.values, at.step, at.epoch, record.time)
        elif record.kind == "params":
            self.params(record.values)
        elif record.kind != "metrics":
            self.media(writer, record)

    def take(self, logged: Logged, at: Where) -> None:
        """Take metrics; a plain tuple is made in a tenth of the time of a named one."""
        writer = self.writer
        if writer is None:
            return
        names, values = logged
        epoch, batch, step = at
        scope = "batch" if batch is not None else "point"
        if self.run.engine.in_validation:
            if not self.is_wanted(names):
                return
            scope = "point"
        entries = writer.entries
        entries.append((scope, names, values, step, epoch, now()))
        if len(entries) > CROWD:
            writer.crowded()

    def media(self, writer: StoreWriter, record: Record) -> None:
        """Take images, texts and histograms; they become rows on the writer's thread."""
        from epochal.runs.media import Place, copied, histogram_row, image_row, size_of, text_row

        place = Place(writer.attempt, record.at, record.time)
        for name, value in record.values.items():
            if record.kind == "image":
                picture = copied(value)
                writer.put_medium("image", partial(image_row, place, name, picture, record.boxes), size_of(picture))
            elif record.kind == "text":
                writer.put_medium("text", partial(text_row, place, name, value), size_of(value))
            elif record.kind == "histogram":
                samples = value._replace(values=copied(value.values))
                make = partial(histogram_row, place, name, samples)
                writer.put_medium("histogram", make, size_of(samples.values))

    def is_wanted(self, names: Iterable[str]) -> bool:
        """Say whether a validation's values are kept now: not those of its batches, nor those of one outside epochs."""
        engine = self.run.engine
        if not engine.in_epoch:
            self.finals.update(dict.fromkeys(names))
        return engine.in_epoch and not engine.in_val_batch  # their mean comes with the epoch

    def params(self, values: Mapping[str, Any]) -> None:
        """Take hyper-parameters."""
        writer, given = cast("StoreWriter", self.writer), dict(values)
        for name, value in given.items():
            writer.entries.append(Row("params", {"name": name, "value": as_json(value), "attempt": 0}, replaces=True))

    def event(self, kind: str, text: str, *, by: str, about: Mapping[str, Any] | None = None) -> None:
        """Take something that happened, to be drawn on the charts; from any thread."""
        engine, writer = self.run.engine, self.writer
        if writer is not None:
            row = {"attempt": writer.attempt, "kind": kind, "step": engine.step, "epoch": engine.epoch}
            row |= {"time": time.time(), "by": by, "text": text, "about": as_json(dict(about or {}))}
            writer.entries.append(Row("events", row))

    def note(self, kind: str, text: str, by: str, about: Mapping[str, Any] | None = None) -> None:
        """Take what the run tells of itself: a stop, a save, a rate."""
        self.event(kind, text, by=by, about=about)

    def not_saved(self, run: "Run") -> None:
        """A checkpoint could not be written."""
        error = run.engine.checkpoint_error
        self.note("failure", f"a checkpoint could not be written: {type(error).__name__}: {error}", "checkpoint")

    # -- control ------------------------------------------------------------------------------------------------------

    def hand(self, command: "Command") -> None:
        """Give a command to the run; on the writer's thread."""
        self.run.engine.requests.add_command(command)

    def answer(self, id: str, state: str, text: str) -> None:  # noqa: A002  # the command's
        """Take what became of a command."""
        engine, writer = self.run.engine, self.writer
        if writer is not None:
            writer.entries.append(Answer(id, state, engine.step, engine.epoch, text, time.time()))
            writer.next_flush = 0.0  # somebody waits for it

    def offer(self) -> None:
        """Take that the run offers other commands than before."""
        if self.writer is not None:
            self.writer.offered = as_json(described(self.run))

    def pause(self, run: "Run") -> None:
        """The training waits."""
        if self.writer is not None:
            self.writer.state = "paused"

    def proceed(self, run: "Run") -> None:
        """The training goes on."""
        if self.writer is not None:
            self.writer.state = "running"


def summed_up(run: "Run") -> dict[str, Any]:
    """Return how a training ended in numbers: what its callbacks cost, which failed, its best."""
    past = run.past[-1] if run.past else None
    if past is None:
        return {}
    left_out = ("history", "dir")
    return {name: value for name, value in past._asdict().items() if name not in left_out}


def told(writer: StoreWriter, done: bool, limit: float) -> str | None:
    """Return in words what the store lacks, None if nothing."""
    parts = [f"{count} {what} were left out" for what, count in writer.lost.items()]
    if not done:
        parts.append(f"what waited was not written{f' within {limit:g} s' if writer.thread.is_alive() else ''}")
    if not parts:
        return None
    error = f"; the last error was {type(writer.error).__name__}: {writer.error}" if writer.error else ""
    return f"run store: {'; '.join(parts)}{error}"


def of_rank_0(folder: Any, since: float) -> Path:
    """Return the folder that rank 0 has made for the training that began then; NotYet while there is none."""
    if not folder.fresh:
        return folder.path
    own = launch()
    found = [path for path in runs_named(folder.parent, folder.base) if (path / FILE).exists()]
    found = [path for path in found if launch_of(path / MARK) in (own, None)]  # of several that begin at a time
    if not found or (found[-1] / FILE).stat().st_mtime < since - START:
        raise NotYet(f"{folder.parent} has no folder of rank 0 yet")
    return found[-1]


def launch_of(mark: Path) -> str | None:
    """Return which launch a run's mark tells of, None where it tells of none."""
    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", about).get("launch") if isinstance(about, dict) else None
