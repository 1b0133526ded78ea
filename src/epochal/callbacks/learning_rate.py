"""Give the learning rate a schedule, in place of the trainer's own."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from epochal.callbacks.schedules import Schedule, as_schedule
from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, CapabilityError

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

Unit = Literal["epoch", "step"]


@final
class LearningRate(Callback):
    """Give every parameter group the rate that a schedule says; what the trainer's own schedule says is not used.

    >>> from epochal.callbacks.schedules import Cosine, Warmup
    >>> from epochal.testing import simulate
    >>> rates = simulate([LearningRate(Warmup(1, then=Cosine()))], [{}] * 5).lrs
    >>> [round(rate, 4) for rate in rates]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]

    schedule
        One of ``epochal.callbacks.schedules`` (``Cosine``, ``Linear``, ``Step``, ``OneCycle``, ``WarmupStableDecay``,
        ``Warmup`` before any other), a subclass of its ``Schedule``, or a function. A function is given the number of
        epochs (or steps) done, 0 at first, and returns a factor of each group's own rate, as for PyTorch's
        ``LambdaLR``; ``Rate(function)`` takes what it returns as the rate itself. A function whose parameter is called
        ``optimizer`` makes a scheduler of PyTorch: ``lambda optimizer: CosineAnnealingLR(optimizer, T_max=10)``.
    every
        "epoch" or "step": what is counted, and when the rate changes. Steps are the optimizer's (``run.step``).
    length
        The planned number of epochs or steps; None takes it from the run: ``num_epochs``, or for steps ``num_epochs``
        times ``num_batches``, less where gradients are accumulated (by as many as were seen in a step).

    A group's own rate is the one it has when the training starts. ``run.set_lr`` still overrides the schedule, the
    factors of ``run.scale_lr`` and ``ReduceLROnPlateau`` still multiply it. A resumed training goes on where the
    schedule was. ``ArgumentError`` at the start when the schedule needs a length that nobody knows.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"set_lr"})

    def __init__(
        self,
        schedule: "Schedule | Callable[..., Any]",
        *,
        every: Unit = "epoch",
        length: int | None = None,
        name: str | None = None,
    ) -> None:
        if every not in ("epoch", "step"):
            raise ArgumentError(f'LearningRate: every must be "epoch" or "step", not {every!r}')
        if length is not None:
            check_count(length, owner="LearningRate", argument="length")
        self.schedule = as_schedule(schedule)
        self.every: Unit = every
        self.length = length
        self.base: dict[str, float] = {}
        self.name = name
        self._waits = False  # for the first batch, at which a trainer knows their number

    def __repr__(self) -> str:
        return f"LearningRate({self.schedule!r}, every={self.every!r})"

    def on_train_start(self, run: "Run") -> None:
        """Note every group's own rate, unless a checkpoint brought it, and begin."""
        self._waits = False
        self.meet_groups(run)
        self.apply(run, run.engine.next_epoch if self.every == "epoch" else run.step)

    def on_train_epoch_start(self, run: "Run") -> None:
        """Set the rate again, for an epoch that is retried or gone back to and for groups that were added."""
        self.meet_groups(run)
        if not self._waits:
            self.apply(run, run.epoch if self.every == "epoch" else run.step)

    def on_train_batch_start(self, run: "Run") -> None:
        """Begin late if the number of batches was not known before the first."""
        if self._waits:
            self._waits = False
            self.apply(run, run.step, last_chance=True)

    @property
    def at_batches(self) -> bool:
        """Whether each step has its own rate."""
        return self.every == "step"

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Set the rate that the next epoch or step uses."""
        if self.every == "step":
            if now.ended == "batch":
                self.apply(run, run.step, last_chance=True)
        elif now.ended == "epoch":
            self.apply(run, now.epoch + 1)

    def meet_groups(self, run: "Run") -> None:
        """Note the own rate of groups that were not there before."""
        host = run.engine.rate_host
        if host is None:
            raise CapabilityError(
                f"{self.name}: {run.host} shows no optimizer, so there is no learning rate to schedule"
            )
        for group, rate in host.groups().items():
            self.base.setdefault(group, rate)

    def apply(self, run: "Run", done: int, *, last_chance: bool = False) -> None:
        """Put the schedule's rates in place of the trainer's; factors and overrides still count."""
        total = self.total(run)
        if total is None and self.schedule.needs_total:
            if self.every == "epoch" or run.num_epochs is None or last_chance:
                raise ArgumentError(self.unknown(run))
            self._waits = True
            return
        if total is not None:
            done = min(done, total)
        run.engine.rates.schedule(self.schedule.rates(self.base, done, total))
        run.engine.take_over_rates()

    def total(self, run: "Run") -> int | None:
        """Return the planned number of epochs or steps, or None."""
        if self.length is not None or run.num_epochs is None or self.every == "epoch":
            return self.length or run.num_epochs
        if run.num_batches is None:
            return None
        size_of = run.engine.groups.planned
        if size_of is not None:
            return sum(ceil(run.num_batches / size_of(epoch)) for epoch in range(run.num_epochs))
        return max(1, round(run.num_epochs * run.num_batches / run.engine.groups.size(run.epoch)))

    def unknown(self, run: "Run") -> str:
        """Say what is not known and what to do."""
        what = "epochs" if run.num_epochs is None else "batches per epoch"
        return (
            f"{self.name}: {self.schedule!r} needs to know how long the training is, but {run.host} does not tell the"
            f" number of {what}; pass length=, the number of {self.every}s: LearningRate(..., length=1000)"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return every group's own rate; where the schedule stands follows from the run."""
        return {"base": dict(self.base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back every group's own rate."""
        self.base = dict(state["base"])
