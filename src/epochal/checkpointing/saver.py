"""How a run's state becomes a checkpoint: what the engine calls when somebody asked for a save."""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from epochal.core.errors import CheckpointError
from epochal.core.moment import Moment
from epochal.core.requests import SaveRequest

if TYPE_CHECKING:
    from epochal.checkpointing.view import Saved, Store
    from epochal.core.run import Run


Resumes = Literal["no", "epoch", "batch"]


class Captured(NamedTuple):
    """A run's state at a moment, not written yet."""

    parts: Mapping[str, Any]
    about: Mapping[str, Any]


class RunSaver:
    """Captures a run's own state, its callbacks' and its host's, and writes them through one store.

    ``parts`` returns the host's state: a part's name -> a state tree. ``resumes`` says from where the host can go on
    exactly: "no", from the end of an "epoch" only, or also of a "batch".
    """

    def __init__(self, run: "Run", store: "Store", parts: Callable[[], Mapping[str, Any]], *, resumes: Resumes) -> None:
        self.run, self.store, self.parts, self.resumes = run, store, parts, resumes

    def capture(self, asked: Sequence[SaveRequest], moment: Moment) -> Captured:
        """Return the state of everything as of now; several requests of one moment make one checkpoint."""
        engine = self.run.engine
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
        }
        return Captured(parts, about)

    def is_resume_point(self) -> bool:
        """Say whether the host can go on exactly from the state of now."""
        engine = self.run.engine
        if engine.in_epoch:
            return self.resumes == "batch" and not engine.batches_done
        return self.resumes != "no" and not engine.epoch_cut

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all that was asked for is durable or has failed, or ``limit`` seconds; say whether it is."""
        return True

    def clean_point(self, before: int | None) -> "Saved | None":
        """Return the newest sound resume point in the current epoch, before one of its batches, to go back to."""
        from epochal.checkpointing.sound import sound_point

        return sound_point(self.store, self.run.engine.epoch, before)

    def write(self, captured: Captured) -> Exception | None:
        """Commit the checkpoint; return the error if it cannot be. The time is charged to who asked first."""
        start = perf_counter_ns()
        try:
            return self.commit(captured)
        finally:
            dispatcher, asked_by = self.run.engine.dispatcher, captured.about["asked_by"]
            if dispatcher.timing and asked_by:
                dispatcher.charge(asked_by[0], perf_counter_ns() - start, calls=0)

    def commit(self, captured: Captured) -> Exception | None:
        """Write the checkpoint through the store; return the error if it cannot be."""
        from epochal.checkpointing.layout import FOLDER  # brings json and datetime, which importing Loop need not

        try:
            if self.run.folder is not None:
                self.store.place(self.run.folder.make() / FOLDER)
            self.store.save(captured.parts, **captured.about)
        except CheckpointError as error:
            return error
        except Exception as error:  # what a user's state_dict holds must not end a training either
            failure = CheckpointError(f"the checkpoint could not be written: {error!r}")
            failure.__cause__ = error
            return failure
        return None
