"""How a run's state becomes a checkpoint: what the engine calls when somebody asked for a save."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from epochal.checkpointing.snapshot import Cost, Snapshot, Timing, before_any_step, can_wait, safest, stepped_by
from epochal.core.errors import CheckpointError
from epochal.core.log import log
from epochal.core.moment import Moment
from epochal.core.preemption import for_checkpoints
from epochal.core.requests import Requests, SaveRequest

if TYPE_CHECKING:
    from epochal.checkpointing.arena import Held
    from epochal.checkpointing.layout import About
    from epochal.checkpointing.store import CheckpointStore
    from epochal.checkpointing.view import Saved, Store
    from epochal.checkpointing.writer import Writer
    from epochal.core.run import Run


Resumes = Literal["no", "epoch", "batch"]
WORTH = 16 << 20  # bytes from which on memory is made ahead


class Captured(NamedTuple):
    """A run's state at a moment, not written yet, and who asked for it."""

    parts: Mapping[str, Any]
    about: Mapping[str, Any]
    asked: Sequence[SaveRequest]


class RunSaver:
    """Captures a run's own state, its callbacks' and its host's, and writes them through one store.

    ``parts`` returns the host's state: a part's name -> a state tree. ``resumes`` says from where the host can go on
    exactly: "no", from the end of an "epoch" only, or also of a "batch". ``optimizers`` returns the optimizers whose
    steps change the model, where the run's own is not all of them.
    """

    def __init__(
        self,
        run: "Run",
        store: "Store",
        parts: Callable[[], Mapping[str, Any]],
        *,
        resumes: Resumes,
        optimizers: Callable[[], Sequence[Any]] | None = None,
    ) -> None:
        self.run, self.store, self.parts, self.resumes = run, store, parts, resumes
        self.optimizers = optimizers or (lambda: [run.optimizer])
        self.order: Callable[[], str | None] = lambda: None  # the fingerprint of the data's order
        self.half_done: Callable[[], bool] = lambda: False  # something of the host's, behind this batch
        self.snapshots: dict[str, Snapshot] = {}  # who -> how it wants states to be taken
        self.writer: Writer | None = None
        self.timing: Timing | None = None  # of the newest save
        self.told_no_room = self.told_changed = False
        self.captured_at = -1

    # -- what the engine calls --------------------------------------------------------------------------------------

    def ready(self, asked: Sequence[SaveRequest], moment: Moment) -> bool:
        """Say whether a checkpoint is taken now, once the one before is written; False: at a later safe point."""
        if self.busy and can_wait(asked, moment.ended):
            return False
        self.timing = Timing(moment.seconds, perf_counter())
        return self.flush()

    def capture(self, asked: Sequence[SaveRequest], moment: Moment) -> Captured:
        """Return the state of everything as of now; several requests of one moment make one checkpoint."""
        engine = self.run.engine
        self.captured_at = engine.batches
        metrics = engine.metrics.history_row()
        measured = engine.metrics.entries.get("fitness")
        fresh = measured is not None and measured.at.epoch == engine.epoch
        parts = {**self.parts(), "run": engine.state_dict(), "callbacks": self.run.roster.states()}
        about = {
            "epoch": engine.epoch,
            "step": engine.step,
            "batch": engine.batch if engine.in_epoch and not engine.batches_done else None,
            "reason": "; ".join(request.reason for request in asked),
            "asked_by": tuple(dict.fromkeys(request.by for request in asked)),
            "pinned": any(request.pinned for request in asked),
            "resume_point": self.is_resume_point(),
            "metrics": dict(metrics),
            "fitness": engine.fitness_rule.value if fresh else None,
            "order": self.order(),
        }
        return Captured(parts, about, asked)

    def is_resume_point(self) -> bool:
        """Say whether the host can go on exactly from the state of now."""
        engine = self.run.engine
        if engine.in_epoch:  # after an error in it a batch may be half done, and callbacks have seen the epoch's end
            whole = engine.error is None and not (engine.batches_done or engine.saves_wait)
            return whole and self.resumes_inside()
        return self.resumes != "no" and not engine.epoch_cut

    def resumes_inside(self) -> bool:
        """Say whether the host can go on exactly from the end of this batch."""
        return self.resumes == "batch" and not self.half_done()

    def write(self, captured: Captured) -> Exception | None:
        """Have the checkpoint written; return the error if one shows at once. The stall is charged to who asked."""
        timing = self.timing = self.timing or Timing(0.0, perf_counter())
        timing.by = next(iter(captured.about["asked_by"]), None)
        try:
            return self.commit(captured, timing)
        finally:
            self.charge(timing, perf_counter() - timing.began)

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all that was asked for is durable or has failed, or ``limit`` seconds; say whether it is.

        Without a limit it is what a signal leaves to the run.
        """
        writer = self.current()
        return writer is None or writer.flush(for_checkpoints(self.run.engine) if limit is None else limit)

    def close(self) -> None:
        """End the thread and give its memory back; the next training begins like the first."""
        writer, self.writer = self.current(), None
        if writer is not None:
            writer.close()
        self.snapshots.clear()
        self.timing = None
        self.told_no_room = self.told_changed = False

    def ends_well(self) -> bool:
        """Say whether a point to resume from is near that the run would keep: the end of an epoch, or of a body.

        The epoch's batches are done, or a batch behind which one may go on has ended, and its body has not.
        """
        engine, store = self.run.engine, self.store
        ends = engine.batches_done and not engine.epoch_cut
        near = engine.in_epoch and (ends or (engine.saves_wait and self.resumes_inside()))
        return near and self.resumes != "no" and bool(store.rules or store.checkpoints)

    def last_request(self, reason: str) -> SaveRequest | None:
        """Return what to ask for before the training is left, or None where that is not worth it."""
        from epochal.checkpointing.leaving import last_request

        return last_request(self.store, reason, resumable=self.is_resume_point())

    def clean_point(self, before: int | None) -> "Saved | None":
        """Return the newest sound resume point in the current epoch, before one of its batches, to go back to."""
        from epochal.checkpointing.sound import sound_point

        return sound_point(self.store, self.run.engine.epoch, before)

    def reserve(self) -> None:
        """Have the memory for a copy of the state made in the background: fresh memory costs ten copies, once."""
        from epochal.checkpointing.parts import encode_parts
        from epochal.checkpointing.writer import Writer

        if self.store.in_memory or safest(self.snapshots.values()) == "off" or self.current() is not None:
            return
        try:
            encoded = encode_parts(self.parts())
        except Exception:  # the first save says what is wrong
            return
        self.writer = Writer(cast("CheckpointStore", self.store))
        if encoded.size >= WORTH and self.writer.fits(encoded):
            self.writer.reserve(encoded)

    # -- how it is written ------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        writer = self.current()
        return writer is not None and writer.busy

    @property
    def cost(self) -> Cost | None:
        """What the newest checkpoint cost; None before it is known."""
        return None if self.timing is None else self.timing.cost()

    def current(self) -> "Writer | None":
        """Return the writer of this process; a process that was forked off has none."""
        if self.writer is not None and self.writer.process != os.getpid():
            self.writer = None
        return self.writer

    def commit(self, captured: Captured, timing: Timing) -> Exception | None:
        """Write the checkpoint through the store, mostly in the background; return the error if one shows at once."""
        from epochal.checkpointing.layout import FOLDER  # brings json and datetime, which importing Loop need not

        mode = safest(self.snapshots.values())
        try:
            if self.run.folder is not None:
                self.store.place(self.run.folder.make() / FOLDER)
            if not self.store.in_memory and mode != "off":
                self.hand_over(captured, timing, lazy=mode == "lazy")
                return None
            self.store.save(captured.parts, **captured.about)
        except Exception as error:  # what a user's state_dict holds must not end a training either
            return as_failure(error)
        finally:
            if not self.busy:
                timing.end()
        return None

    def hand_over(self, captured: Captured, timing: Timing, *, lazy: bool) -> None:
        """Copy the state and let the writer go on; where there is no room for a copy, write it at once."""
        from epochal.checkpointing.parts import encode_parts
        from epochal.checkpointing.writer import Writer

        encoded, about = encode_parts(captured.parts), cast("About", captured.about)
        store = cast("CheckpointStore", self.store)
        writer = self.writer = self.current() or Writer(store)
        stepped = stepped_by(self.optimizers()) if lazy and not self.told_changed else ()
        ended = partial(self.ended, captured.asked, timing, self.run.engine.requests)
        try:
            if writer.fits(encoded):
                self.leave_open(writer.write(encoded, about, ended, stepped=stepped, committed=timing.end))
                return
        except MemoryError:
            writer.close()
        if not self.told_no_room:
            self.told_no_room = True
            log().warning(
                "there is no memory for a copy of the state (%.1f GB): the training waits while it is written.",
                encoded.size / 1e9,
            )
        store.write(encoded, about, committed=timing.end)

    def ended(self, asked: Sequence[SaveRequest], timing: Timing, requests: Requests, error: Exception | None) -> None:
        """A checkpoint is committed or has failed: told by the writer, on its thread."""
        from epochal.checkpointing.writer import Changed

        timing.end()
        if error is None:
            return
        if not isinstance(error, Changed):
            requests.add_failure(as_failure(error))
            return
        for request in asked:
            requests.add_save(request)
        if not self.told_changed:
            self.told_changed = True
            log().warning(
                'snapshot="lazy": %s was changed in place before the optimizer\'s step; that checkpoint is taken anew,'
                " and states are copied at once from now on.",
                error,
            )

    # -- copies that are made while the training goes on ------------------------------------------------------------

    def leave_open(self, held: "Held") -> None:
        """Let copies go on until something may change the tensors: an optimizer's step, or what the engine tells."""
        if not held.open:
            return
        process, engine = os.getpid(), self.run.engine

        def join() -> None:
            leave()
            engine.copying = None
            if os.getpid() == process:
                began = perf_counter()
                held.join()
                self.charge(self.timing, perf_counter() - began)

        leave, engine.copying = before_any_step(join), join

    def charge(self, timing: Timing | None, seconds: float) -> None:
        """Count how long a save made the training stand still, for who asked."""
        if timing is None:
            return
        timing.stall = (timing.stall or 0.0) + seconds
        dispatcher = self.run.engine.dispatcher
        if dispatcher.timing and timing.by:
            dispatcher.charge(timing.by, round(seconds * 1e9), calls=0)


def as_failure(error: Exception) -> CheckpointError:
    """Return the error that says that a checkpoint could not be written.

    >>> as_failure(KeyError("x"))
    CheckpointError("the checkpoint could not be written: KeyError('x')")
    """
    if isinstance(error, CheckpointError):
        return error
    failure = CheckpointError(f"the checkpoint could not be written: {error!r}")
    failure.__cause__ = error
    return failure
