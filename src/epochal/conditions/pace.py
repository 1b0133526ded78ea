"""As often as a share of the time allows: a condition that is told what its deed has cost."""

from dataclasses import dataclass, field
from typing import Any, final

from epochal.conditions.arguments import check_number
from epochal.conditions.base import Condition
from epochal.conditions.state import dump
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment

RETRY = 60.0  # seconds until the next attempt while nobody has told what one costs


@dataclass
class Spent:
    """What the deed cost the last time, in seconds, and when it was over.

    ``pending``: it is not over yet; ``batches``: it may be done at the end of a batch, not of an epoch only.

    >>> Spent(stall=0.1, durable=2.0).stall
    0.1
    """

    stall: float | None = None
    durable: float = 0.0
    over: float | None = None
    pending: bool = False
    batches: bool = True


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pace(Condition):
    """Hold as often as what a deed costs stays within a share of the training's time; first at the first opportunity.

    >>> pace = Pace(0.02)
    >>> pace.ask(Moment("batch", epoch=0, seconds=1.0))
    True
    >>> pace.told(stall=0.1, durable=2.0, over=1.1)
    >>> [pace.ask(Moment("batch", epoch=0, seconds=s)) for s in (2.0, 6.0, 6.2)]
    [False, False, True]

    ``overhead`` is that share, above 0 and below 1. A stall of s seconds is made up for by s / overhead seconds of
    training, and nothing begins before the last is durable. With steps of t seconds these are
    ceil(max(s / overhead, durable) / t) steps: the interval of CheckFreq (Mohan et al., FAST'21), tuned anew each time,
    since it is always the last cost that counts.
    """

    overhead: float
    state: Spent = field(init=False, repr=False, default_factory=Spent)

    def __post_init__(self) -> None:
        if not 0 < check_number(self.overhead, owner="Pace", argument="overhead") < 1:
            raise ArgumentError(f"Pace: overhead must be above 0 and below 1, such as 0.02, not {self.overhead!r}")

    def told(self, *, stall: float, durable: float, over: float) -> None:
        """Take what the deed cost: seconds of standing still, and until it was durable; ``over`` is on the clock."""
        state = self.state
        state.stall, state.durable, state.over, state.pending = stall, durable, over, False

    def interval(self) -> float:
        """Return how many seconds of training lie between the end of one deed and the beginning of the next."""
        state = self.state
        if state.stall is None:
            return 0.0 if state.over is None else RETRY
        return max(state.stall / self.overhead, state.durable - state.stall)

    def holds(self, now: Moment) -> bool:
        """Compare the time since the last with the interval."""
        if now.ended == "validation" or (now.ended == "batch" and not self.state.batches) or self.state.pending:
            return False
        if now.seconds - (self.state.over or 0.0) < self.interval():
            return False
        self.state.over = now.seconds
        return True

    def reason(self, now: Moment) -> str:
        """Say what it keeps."""
        return f"within {self.overhead:.2%} of the time"

    def state_dict(self) -> dict[str, Any]:
        """Return the costs; a restarted training counts seconds from 0 again, and waits a whole interval."""
        return dump(Spent(self.state.stall, self.state.durable))
