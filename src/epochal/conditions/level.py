"""Conditions about level: a metric at or beyond a value, worse than one, or no number at all."""

from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from typing import final

from epochal.conditions.arguments import check_metric, check_number
from epochal.conditions.better import Mode, at_least_as_good, better, infer_mode
from epochal.conditions.of_metric import OfChecks, OfValues
from epochal.core.moment import Moment


@dataclass
class Newest:
    """The newest value of a metric that a condition has seen; None before the first.

    >>> Newest()
    Newest(value=None)
    """

    value: float | None = None

    @property
    def seen(self) -> bool:
        """Whether there was a value."""
        return self.value is not None


@final
@dataclass(frozen=True, eq=False, repr=False)
class Target(OfChecks):
    """Hold while the newest settled value of a metric is at or beyond a value.

    >>> target = Target("fitness", 0.9)
    >>> [target.ask(Moment("epoch", epoch=e, settled={"fitness": x})) for e, x in enumerate([0.8, 0.9, 0.89])]
    [False, True, False]

    ``mode`` "max" means at or above, "min" at or below; it is inferred from the name, with ``ArgumentError`` when the
    name does not tell. NaN is not at any value.
    """

    metric: str
    value: float
    _: KW_ONLY
    mode: Mode | None = None
    direction: Mode = field(init=False, repr=False)
    state: Newest = field(init=False, repr=False, default_factory=Newest)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="Target")
        check_number(self.value, owner="Target", argument="value")
        object.__setattr__(self, "direction", infer_mode(self.metric, self.mode, owner="Target"))

    def holds(self, now: Moment) -> bool:
        """Compare the newest settled value."""
        value = now.settled.get(self.metric)
        state = self.state
        if value is not None:
            state.value = float(value)
        return state.value is not None and at_least_as_good(state.value, self.value, self.direction)

    def reason(self, now: Moment) -> str:
        """Name the value and the target."""
        return f"{self.metric} {_shown(self.state.value)} reached {self.value:.6g}"


@dataclass
class Watched(Newest):
    """The newest value of a watched metric, and the one that the last answer is about.

    >>> Watched()
    Watched(value=None, blamed=None)
    """

    blamed: float | None = None


@final
@dataclass(frozen=True, eq=False, repr=False)
class Diverged(OfValues):
    """Hold at a moment that brought a value worse than a threshold, and on while the newest value is.

    >>> diverged = Diverged("train/loss", 100)
    >>> [diverged.ask(Moment("batch", epoch=0, arrived={"train/loss": (x,)})) for x in (2.0, 1e6, 3.0)]
    [False, True, False]

    It looks at every value that reached the host, not only at settled ones. Worse means above for ``mode`` "min",
    below for "max"; the mode is inferred from the name, with ``ArgumentError`` when the name does not tell. NaN is not
    worse than a number: ``Diverged(...) | NonFinite(...)`` covers both.
    """

    metric: str
    threshold: float
    _: KW_ONLY
    mode: Mode | None = None
    direction: Mode = field(init=False, repr=False)
    state: Watched = field(init=False, repr=False, default_factory=Watched)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="Diverged")
        check_number(self.threshold, owner="Diverged", argument="threshold")
        object.__setattr__(self, "direction", infer_mode(self.metric, self.mode, owner="Diverged"))

    def holds(self, now: Moment) -> bool:
        """Compare each value that arrived, or else the newest."""
        state, values = self.state, now.arrived.get(self.metric) or _settled(now, self.metric)
        if values:
            state.value = float(values[-1])
        for value in values or (state.value,):
            if value is not None and better(self.threshold, value, self.direction):
                state.blamed = float(value)
                return True
        return False

    def reason(self, now: Moment) -> str:
        """Name the value and the threshold."""
        side = "above" if self.direction == "min" else "below"
        return f"{self.metric} {_shown(self.state.blamed)} is {side} {self.threshold:.6g}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class NonFinite(OfValues):
    """Hold at a moment that brought NaN or an infinity, and on while the newest value is one.

    >>> broken = NonFinite("train/loss")
    >>> [broken.ask(Moment("batch", epoch=0, arrived={"train/loss": (x,)})) for x in (2.0, float("nan"), 3.0)]
    [False, True, False]

    It looks at every value that reached the host: on CUDA one batch after it was logged.
    """

    metric: str
    state: Watched = field(init=False, repr=False, default_factory=Watched)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="NonFinite")

    def holds(self, now: Moment) -> bool:
        """Look at each value that arrived, or else at the newest."""
        state, values = self.state, now.arrived.get(self.metric) or _settled(now, self.metric)
        if values:
            state.value = float(values[-1])
        for value in values or (state.value,):
            if value is not None and not isfinite(value):
                state.blamed = float(value)
                return True
        return False

    def reason(self, now: Moment) -> str:
        """Name the value."""
        return f"{self.metric} is {_shown(self.state.blamed)}"


def _settled(now: Moment, metric: str) -> tuple[float, ...]:
    # A value that arrives and settles at once is one value: the settled one counts only when nothing arrived.
    value = now.settled.get(metric)
    return () if value is None else (value,)


def _shown(value: float | None) -> str:
    return "has no value yet" if value is None else f"{value:.6g}"
