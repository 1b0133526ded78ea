"""The condition that a metric has jumped far above its recent values."""

from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from typing import final

from epochal.conditions.arguments import check_amount, check_count, check_metric
from epochal.conditions.of_metric import OfValues
from epochal.core.moment import Moment

MAD_TO_SIGMA = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation


@dataclass
class Recent:
    """The recent values of a metric, and what was found among them.

    >>> Recent()
    Recent(values=[], newest=None, high=False, spikes=0, blamed=None, median=None, limit=None)
    """

    values: list[float] = field(default_factory=list[float])
    newest: float | None = None
    high: bool = False  # the newest value belongs to a spike
    spikes: int = 0  # begun so far
    blamed: float | None = None  # the last value that belongs to one, and what was known then
    median: float | None = None
    limit: float | None = None

    @property
    def seen(self) -> bool:
        """Whether there was a value."""
        return self.newest is not None


def middle(values: list[float]) -> float:
    """Return the median.

    >>> middle([3.0, 1.0]), middle([5.0, 1.0, 2.0])
    (2.0, 2.0)
    """
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


@final
@dataclass(frozen=True, eq=False, repr=False)
class Spike(OfValues):
    """Hold at a moment that brought a value far above the recent ones, or one that is no finite number.

    >>> spike = Spike("train/loss", window=8)
    >>> losses = [1.0, 1.1, 0.9, 1.0, 1.1, 9.0, 1.0, float("nan")]
    >>> [spike.ask(Moment("batch", epoch=0, arrived={"train/loss": (x,)})) for x in losses]
    [False, False, False, False, False, True, False, True]

    metric
        What is watched; it looks at every value that reached the host, on CUDA one batch after it was logged.
    window
        How many recent finite values a new one is compared with; finite spikes are among them afterwards, so that a
        level that stays is no spike for long. Nothing but NaN and infinities is a spike before half of them are there.
    factor
        A spike is further above their median than so many standard deviations, which are estimated as 1.4826 times
        the median absolute deviation: up to half of the values may be anything without misleading it.
    min_rise
        It is also above the median by more than this share of the median's absolute value: where losses hardly vary,
        a small rise is no spike.

    Source: Hampel, "The influence curve and its role in robust estimation" (1974); Leys et al., "Detecting outliers: do
    not use standard deviation around the mean, use absolute deviation around the median" (2013).
    """

    metric: str
    _: KW_ONLY
    window: int = 50
    factor: float = 8.0
    min_rise: float = 0.5
    state: Recent = field(init=False, repr=False, default_factory=Recent)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="Spike")
        check_count(self.window, owner="Spike", argument="window")
        check_amount(self.factor, owner="Spike", argument="factor")
        check_amount(self.min_rise, owner="Spike", argument="min_rise", zero=True)

    def holds(self, now: Moment) -> bool:
        """Judge every value that arrived."""
        answers = [self.judge(float(value)) for value in now.arrived.get(self.metric, ())]
        return any(answers)

    def judge(self, value: float) -> bool:
        """Say whether a value is part of a spike, and remember it."""
        state = self.state
        limit = self.limit()
        high = not isfinite(value) or (limit is not None and value > limit)
        if high:
            state.spikes += not state.high
            state.blamed, state.limit = value, limit
            state.median = middle(state.values) if state.values else None
        state.high, state.newest = high, value
        if isfinite(value):
            state.values.append(value)
            del state.values[: -self.window]
        return high

    def limit(self) -> float | None:
        """Return above what a value is a spike, or None while too few are known."""
        values = self.state.values
        if 2 * len(values) < self.window:
            return None
        median = middle(values)
        deviation = MAD_TO_SIGMA * middle([abs(value - median) for value in values])
        return median + max(self.factor * deviation, self.min_rise * abs(median))

    def reason(self, now: Moment) -> str:
        """Name the last value of a spike."""
        state = self.state
        if state.blamed is None or not isfinite(state.blamed) or state.median is None or state.limit is None:
            return f"{self.metric} is {state.blamed}"
        return (
            f"{self.metric} {state.blamed:.6g} is far above its recent values"
            f" (median {state.median:.6g}, limit {state.limit:.6g})"
        )
