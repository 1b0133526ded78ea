"""Schedules of the learning rate: pure functions of how much of the training is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast, final

from epochal.callbacks.schedule import (
    Schedule,
    Shape,
    Span,
    between,
    check_length,
    check_shape,
    check_span,
    check_start,
    number,
    ramp,
    share,
    span,
)
from epochal.callbacks.torch_schedule import TorchSchedule, is_factory
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.errors import ArgumentError

__all__ = [
    "Cosine",
    "Factor",
    "Linear",
    "OneCycle",
    "Rate",
    "Schedule",
    "Step",
    "TorchSchedule",
    "Warmup",
    "WarmupStableDecay",
    "as_schedule",
]


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the group's own rate to ``min_lr``, which stays; as PyTorch's ``CosineAnnealingLR``.

    >>> [round(Cosine().rate(0.1, done, 4), 4) for done in range(5)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]

    ``length`` is in epochs or steps; None is all of the training (behind a ``Warmup``, what that leaves).
    """

    _: KW_ONLY
    min_lr: float = 0.0
    length: int | None = None

    def __post_init__(self) -> None:
        check_amount(self.min_lr, owner="Cosine", argument="min_lr", zero=True)
        check_length(self.length, "Cosine")

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        return between(base, self.min_lr, share(done, self.length or total), "cosine")


@final
@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from ``start`` to ``end``, factors of the group's own rate; as PyTorch's ``LinearLR``.

    >>> [round(Linear(end=0.2).rate(0.1, done, 4), 4) for done in range(6)]
    [0.1, 0.08, 0.06, 0.04, 0.02, 0.02]
    """

    _: KW_ONLY
    start: float = 1.0
    end: float = 0.0
    length: int | None = None

    def __post_init__(self) -> None:
        check_amount(self.start, owner="Linear", argument="start", zero=True)
        check_amount(self.end, owner="Linear", argument="end", zero=True)
        check_length(self.length, "Linear")

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        return base * between(self.start, self.end, share(done, self.length or total), "linear")


@final
@dataclass(frozen=True)
class Step(Schedule):
    """Times ``gamma`` every so many epochs or steps, or at each of a list of them; as ``StepLR`` and ``MultiStepLR``.

    >>> [round(Step(2, gamma=0.1).rate(0.1, done, None), 6) for done in range(5)]
    [0.1, 0.1, 0.01, 0.01, 0.001]
    >>> [round(Step([1, 4], gamma=0.5).rate(0.1, done, None), 6) for done in range(5)]
    [0.1, 0.05, 0.05, 0.05, 0.025]
    """

    at: int | Sequence[int]
    _: KW_ONLY
    gamma: float = 0.1

    def __post_init__(self) -> None:
        for one in [self.at] if isinstance(self.at, int) else list(self.at):
            check_count(one, owner="Step", argument="at")
        check_amount(self.gamma, owner="Step", argument="gamma")

    @property
    def needs_total(self) -> bool:
        """False."""
        return False

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        times = done // self.at if isinstance(self.at, int) else sum(one <= done for one in self.at)
        return base * self.gamma**times


@final
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the peak and down to almost nothing in one cycle; as PyTorch's ``OneCycleLR``, without its momentum cycle.

    >>> [round(OneCycle(max_lr=1.0, warmup=0.5).rate(0.1, done, 4), 4) for done in range(4)]
    [0.04, 1.0, 0.5, 0.0]

    ``max_lr`` None: each group's own rate is its peak. The cycle starts at peak / ``div_factor``, is at its peak after
    the share ``warmup`` of the training, and ends at start / ``final_div_factor``. Smith & Topin 2017 is the source.
    """

    _: KW_ONLY
    max_lr: float | None = None
    warmup: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    shape: Shape = "cosine"
    length: int | None = None

    def __post_init__(self) -> None:
        if self.max_lr is not None:
            check_amount(self.max_lr, owner="OneCycle", argument="max_lr")
        if check_amount(self.warmup, owner="OneCycle", argument="warmup", zero=True) > 1:
            raise ArgumentError(f"OneCycle: warmup is a share of the training, between 0 and 1, not {self.warmup!r}")
        check_amount(self.div_factor, owner="OneCycle", argument="div_factor")
        check_amount(self.final_div_factor, owner="OneCycle", argument="final_div_factor")
        check_shape(self.shape, "OneCycle")
        check_length(self.length, "OneCycle")

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        length = self.length or total or 1
        peak = base if self.max_lr is None else self.max_lr
        start = peak / self.div_factor
        top, last = self.warmup * length - 1, length - 1  # the indices of the peak and of the last step
        if done <= top:
            return between(start, peak, done / top if top else 1.0, self.shape)
        return between(peak, start / self.final_div_factor, min((done - top) / (last - top), 1.0), self.shape)


@final
@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """A linear warm-up, the group's own rate for long, then a decay to ``min_lr``.

    >>> schedule = WarmupStableDecay(warmup=2, decay=2)
    >>> [round(schedule.rate(0.3, done, 6), 4) for done in range(7)]
    [0.1, 0.2, 0.3, 0.3, 0.3, 0.15, 0.0]

    ``warmup`` and ``decay`` are numbers of epochs or steps, or shares of the training (a float below 1). The warm-up
    begins at ``start`` times the rate, as in ``Warmup``. Hu et al. 2024 (MiniCPM) is the source.
    """

    _: KW_ONLY
    warmup: Span = 0.05
    decay: Span = 0.2
    start: float | None = None
    min_lr: float = 0.0
    shape: Shape = "linear"
    length: int | None = None

    def __post_init__(self) -> None:
        check_span(self.warmup, "WarmupStableDecay", "warmup")
        check_span(self.decay, "WarmupStableDecay", "decay")
        check_start(self.start, "WarmupStableDecay")
        check_amount(self.min_lr, owner="WarmupStableDecay", argument="min_lr", zero=True)
        check_shape(self.shape, "WarmupStableDecay")
        check_length(self.length, "WarmupStableDecay")

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        length = self.length or total or 1
        warmup, decay = span(self.warmup, length), span(self.decay, length)
        if done < warmup:
            return base * ramp(done, warmup, self.start)
        into = done - max(length - decay, warmup)
        return base if into <= 0 else between(base, self.min_lr, share(into, decay), self.shape)


@final
@dataclass(frozen=True)
class Warmup(Schedule):
    """Any schedule behind a linear warm-up to its first rate; without one the group's own rate stays.

    >>> schedule = Warmup(3, then=Cosine())
    >>> [round(schedule.rates({"pg0": 0.1}, done, 7)["pg0"], 4) for done in range(8)]
    [0.025, 0.05, 0.075, 0.1, 0.0854, 0.05, 0.0146, 0.0]

    ``length`` is a number of epochs or steps, or a share of the training (a float below 1). The warm-up begins at
    ``start`` times the rate; None is 1 / (length + 1), so that not even the first epoch trains with a rate of 0.
    """

    length: Span
    _: KW_ONLY
    then: "Schedule | Callable[[int], float] | None" = None
    start: float | None = None

    def __post_init__(self) -> None:
        check_span(self.length, "Warmup", "length")
        check_start(self.start, "Warmup")
        object.__setattr__(self, "then", as_schedule(self.then) if self.then is not None else None)

    @property
    def schedule(self) -> Schedule:
        """The schedule behind the warm-up."""
        return self.then if isinstance(self.then, Schedule) else Linear(end=1.0, length=1)

    @property
    def needs_total(self) -> bool:
        """True if the schedule behind it does, or the length is a share."""
        return self.schedule.needs_total or isinstance(self.length, float)

    def rates(self, base: Mapping[str, float], done: int, total: int | None) -> dict[str, float]:
        """Return the rate of every group."""
        warmup = span(self.length, total)
        left = None if total is None else max(total - warmup, 1)
        rates = self.schedule.rates(base, max(done - warmup, 0), left)
        factor = ramp(done, warmup, self.start) if done < warmup else 1.0
        return {group: rate * factor for group, rate in rates.items()}


@final
@dataclass(frozen=True)
class Factor(Schedule):
    """A function from the number of epochs or steps done to a factor of each group's own rate; as ``LambdaLR``.

    >>> Factor(lambda epoch: 0.5**epoch).rate(0.1, 2, None)
    0.025
    """

    function: Callable[[int], float]

    @property
    def needs_total(self) -> bool:
        """False."""
        return False

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        return base * number(self.function(done), done, self.function)


@final
@dataclass(frozen=True)
class Rate(Schedule):
    """A function from the number of epochs or steps done to the rate itself, the same for all groups.

    >>> Rate(lambda epoch: 0.1 / (epoch + 1)).rate(3.0, 1, None)
    0.05
    """

    function: Callable[[int], float]

    @property
    def needs_total(self) -> bool:
        """False."""
        return False

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        return number(self.function(done), done, self.function)


def as_schedule(one: object) -> Schedule:
    """Return a schedule as it is, a function as a ``Factor``, a factory of PyTorch schedulers as one of those.

    >>> as_schedule(Cosine())
    Cosine(min_lr=0.0, length=None)

    A function whose parameter is called ``optimizer`` is such a factory. Anything else: ``ArgumentError``.
    """
    if isinstance(one, Schedule):
        return one
    if isinstance(one, type) and issubclass(one, Schedule):
        raise ArgumentError(f"LearningRate: {one.__name__} is the class; pass an object, {one.__name__}(...)")
    if hasattr(one, "get_last_lr"):
        kind = type(one).__name__
        raise ArgumentError(
            "LearningRate: a scheduler that is made already steps your optimizer itself; pass a function that makes"
            f" one: lambda optimizer: {kind}(optimizer, ...)"
        )
    function = cast("Callable[..., Any]", one)
    if not callable(function):
        raise ArgumentError(
            "LearningRate: a schedule is one of epochal.callbacks.schedules, such as Cosine(), or a function,"
            f" not {one!r}"
        )
    return TorchSchedule(function) if is_factory(function) else Factor(function)
