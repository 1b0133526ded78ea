"""Going back before a spike: points that are kept for it, and how often and how it is done."""

from typing import TYPE_CHECKING

from epochal.checkpointing.retention import Keep
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

KEPT = 2  # the older of them is at least ``every`` batches old, where the newer may have the trouble in it already


class GoingBack:
    """How ``LossSpike(then="rollback")`` goes back; how often it did is in the run's memory, which stays as it is."""

    def __init__(self, *, at_most: int, lr_factor: float, skip_before: int, skip_after: int, every: int) -> None:
        check_count(at_most, owner="LossSpike", argument="at_most")
        check_count(every, owner="LossSpike", argument="every")
        check_amount(lr_factor, owner="LossSpike", argument="lr_factor")
        for name, value in (("skip_before", skip_before), ("skip_after", skip_after)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ArgumentError(f"LossSpike: {name} must be a whole number of batches >= 0, not {value!r}")
        self.at_most, self.lr_factor = at_most, lr_factor
        self.skip_before, self.skip_after, self.every = skip_before, skip_after, max(every, skip_before)
        self.saved_at: int | None = None  # the run's batches at the newest point

    def begin(self, run: "Run", label: str) -> None:
        """Say what is kept."""
        run.checkpoint_store.keep(label, Keep(last=KEPT))

    def done(self, run: "Run", label: str) -> int:
        """Return how often the run went back so far."""
        return run.engine.rollbacks.counts.get(label, 0)

    def ask(self, run: "Run", label: str, reason: str) -> None:
        """Ask for the rollback; stop where that did not help often enough."""
        done = self.done(run, label)
        if done >= self.at_most:
            run.stop(f"{reason}, after {done} rollback{'s' * (done > 1)}")
            return
        seen = run.batch
        stretch = (max(seen - self.skip_before, 0), seen + self.skip_after)
        run.roll_back(reason, lr_factor=self.lr_factor, skip=stretch)

    def keep_point(self, run: "Run", now: "Moment") -> None:
        """Ask for a point to go back to, when all is well: at an epoch's end, and inside where that works."""
        engine = run.engine
        inside = now.ended == "batch" and engine.saver is not None and engine.saver.is_resume_point()
        due = self.saved_at is None or engine.batches - self.saved_at >= self.every
        if now.ended == "epoch" or (inside and due):
            self.saved_at = engine.batches
            run.request_save("a point to go back to")
