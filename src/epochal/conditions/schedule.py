"""Conditions about time: at each n-th step, batch, epoch or minute, and after so many hours."""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, final

from epochal.conditions.arguments import check_amount, check_count
from epochal.conditions.base import Condition
from epochal.conditions.state import dump
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment


@dataclass
class Counted:
    """How far an ``Every`` has counted: steps and batches seen, seconds at which it is due and was last asked.

    >>> Counted(due=600.0)
    Counted(step=None, batches=0, due=600.0, seconds=0.0)
    """

    step: int | None = None
    batches: int = 0
    due: float = 0.0
    seconds: float = 0.0


@final
@dataclass(frozen=True, eq=False, repr=False)
class Every(Condition):
    """Hold at each n-th step, batch or epoch, or each time so many minutes have passed; exactly one of the four.

    >>> every = Every(epochs=2)
    >>> [every.ask(Moment("epoch", epoch=epoch)) for epoch in range(6)]
    [False, True, False, True, False, True]

    ``steps`` are optimizer steps: it holds at the first moment at which a multiple of n is reached or passed, once.
    ``batches`` counts the batches at which it was asked. ``epochs=2`` is at the end of epochs 1, 3, 5 ... (0-based).
    ``minutes`` (fractions allowed) are a grid from the start of training; of a grid point missed nothing is made up
    for, and after a restart the rest of the running period is waited for.
    """

    _: KW_ONLY
    steps: int | None = None
    batches: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    state: Counted = field(init=False, repr=False, default_factory=Counted)

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "batches": self.batches, "epochs": self.epochs}
        given = [name for name, value in {**counts, "minutes": self.minutes}.items() if value is not None]
        if len(given) != 1:
            raise ArgumentError(
                f"Every takes exactly one of steps, batches, epochs and minutes, not {', '.join(given) or 'none'}; "
                "combine two with |"
            )
        for name, value in counts.items():
            if value is not None:
                check_count(value, owner="Every", argument=name)
        if self.minutes is not None:
            self.state.due = 60 * check_amount(self.minutes, owner="Every", argument="minutes")

    def holds(self, now: Moment) -> bool:
        """Count, and compare with n."""
        if self.steps is not None:
            return self._crossed(now, self.steps)
        if self.batches is not None:
            self.state.batches += now.ended == "batch"
            return now.ended == "batch" and self.state.batches % self.batches == 0
        if self.epochs is not None:
            return now.ended == "epoch" and (now.epoch + 1) % self.epochs == 0
        return self._due(now, 60 * (self.minutes or 0.0))

    def _crossed(self, now: Moment, steps: int) -> bool:
        last = self.state.step
        if last is None:
            # Asked from the first batch on, it counts from 0; begun later, it must not fire for what was before.
            last = 0 if now.epoch == 0 and not now.batch else now.step - 1
        self.state.step = now.step
        return now.step // steps > last // steps

    def _due(self, now: Moment, period: float) -> bool:
        state = self.state
        state.seconds = now.seconds
        if now.seconds < state.due:
            return False
        state.due += period * ((now.seconds - state.due) // period + 1)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the counts; the time as what is left, since a restarted training counts seconds from 0 again."""
        state = self.state
        return dump(Counted(state.step, state.batches, state.due - state.seconds))

    def reason(self, now: Moment) -> str:
        """Say which n-th it is."""
        if self.steps is not None:
            return f"{_every(self.steps, 'step')} (step {now.step})"
        if self.batches is not None:
            return f"{_every(self.batches, 'batch', 'batches')} (batch {(now.batch or 0) + 1} of epoch {now.epoch + 1})"
        if self.epochs is not None:
            return f"{_every(self.epochs, 'epoch')} (end of epoch {now.epoch + 1})"
        return _every(self.minutes or 0.0, "minute")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Elapsed(Condition):
    """Hold from so long after the start of training on, in this process, by a monotonic clock.

    >>> Elapsed(hours=1, minutes=30).ask(Moment("batch", epoch=0, seconds=5400.0))
    True

    Hours, minutes and seconds add up; at least one is given. A restarted training starts at 0 again.
    """

    _: KW_ONLY
    hours: float | None = None
    minutes: float | None = None
    seconds: float | None = None
    total: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        total = 0.0
        for name, unit in (("hours", 3600), ("minutes", 60), ("seconds", 1)):
            value: float | None = getattr(self, name)
            if value is not None:
                total += unit * check_amount(value, owner="Elapsed", argument=name, zero=True)
        if not total > 0:
            raise ArgumentError("Elapsed needs a time above 0: pass hours=, minutes= or seconds=, such as hours=8")
        object.__setattr__(self, "total", total)

    def holds(self, now: Moment) -> bool:
        """Compare the clock."""
        return now.seconds >= self.total

    def reason(self, now: Moment) -> str:
        """Name the time."""
        parts = ((self.hours, "hour"), (self.minutes, "minute"), (self.seconds, "second"))
        shown = [f"{value:g} {unit}{'s' * (value != 1)}" for value, unit in parts if value]
        return f"{' '.join(shown)} {'has' if shown[0].startswith('1 ') and len(shown) == 1 else 'have'} passed"


def _every(count: float, one: str, many: str = "") -> str:
    return f"every {one}" if count == 1 else f"every {count:g} {many or one + 's'}"
