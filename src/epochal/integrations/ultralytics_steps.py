"""Which batch stepped last: what Ultralytics keeps in a local variable of its loop."""

from typing import Any


class LastStep:
    """Follows ``last_opt_step`` of Ultralytics' loop, and stands in for it while the loop's own is wrong.

    After a resume the loop thinks that no batch has stepped. What it compares with, ``trainer.accumulate``, is then
    set for one batch at a time, after the warm-up has, so that the right batch steps; from that step on it is right.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.last = self.now = -1  # batches of the whole training
        self.standing_in = False
        self.own: int | None = None  # the trainer's own accumulation while ours is in its place

    def resume(self, last: int) -> None:
        """Go on where ``last`` was the batch of the last step, while the loop begins with none."""
        self.last, self.standing_in = last, True

    def forget(self) -> None:
        """The loop gives the epoch up, and forgets its last step with it."""
        self.close()
        self.last, self.standing_in = -1, False

    def open(self, now: int) -> None:
        """A batch is about to be trained on: the warm-up has set what it sets."""
        self.now = now
        if self.standing_in:
            self.own = own = int(self.trainer.accumulate)
            due = now - self.last >= own
            self.trainer.accumulate = 1 if due else now + 2  # the loop compares it with now + 1

    def stepped(self) -> None:
        """The accumulation group of this batch is done."""
        self.last, self.standing_in = self.now, False

    def close(self) -> None:
        """The batch is done."""
        if self.own is not None:
            self.trainer.accumulate, self.own = self.own, None
