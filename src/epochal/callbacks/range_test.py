"""The arithmetic of a learning-rate range test: rates that grow, a smoothed loss, where it falls fastest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf, isfinite, log
from typing import Literal, NamedTuple

Ended = Literal["all rates", "diverged", "not finite"]
WINDOW = 1 / 6  # of the planned rates: the loss of one batch says little
FEWEST = 5  # rates in a window
ROUNDING = 1e-6  # of a loss: a smaller fall is none


@dataclass
class RangeTest:
    """A range test as Smith (arXiv 1506.01186) proposed it and fastai made it known: one step per rate.

    >>> test = RangeTest(start=1e-6, end=10.0, steps=8, smooth=0.0, diverged=4.0)
    >>> [round(rate, 6) for rate in test.rates()]
    [1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]
    >>> losses = (2.0, 2.0, 2.0, 1.9, 1.4, 1.0, 0.9, 9.0)
    >>> [test.add(rate, loss) for rate, loss in zip(test.rates(), losses)][-2:]
    [True, False]
    >>> round(test.suggestion(), 6), test.ended
    (0.01, 'diverged')

    The loss is smoothed by an exponential moving average whose start is corrected: ``smooth`` is the weight of what was
    before. It has diverged when that average is more than ``diverged`` times its smallest value so far (which for a
    negative loss is as far above it as it would be for the positive one).

    The suggestion is the middle of the window, a sixth of the planned rates wide, over which the loss itself falls
    fastest. The slope of the average, which others take, lags: its steepest point is where the loss is near its minimum
    already, and a training at that rate often diverges.
    """

    start: float
    end: float
    steps: int
    smooth: float
    diverged: float
    tried: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    smoothed: list[float] = field(default_factory=list[float])
    ended: Ended = "all rates"
    average: float = 0.0
    best: float = inf

    def rates(self) -> list[float]:
        """Return the rates, growing by one factor from ``start`` to ``end``."""
        pace = log(self.end / self.start) / max(self.steps - 1, 1)
        return [self.start * exp(pace * step) for step in range(self.steps)]

    def add(self, rate: float, loss: float) -> bool:
        """Take the loss of a rate, and say whether to go on."""
        if not isfinite(loss):
            self.ended = "not finite"
            return False
        self.average = self.smooth * self.average + (1 - self.smooth) * loss
        smoothed = self.average / (1 - self.smooth ** (len(self.losses) + 1))
        self.tried.append(rate)
        self.losses.append(loss)
        self.smoothed.append(smoothed)
        self.best = min(self.best, smoothed)
        if smoothed - self.best > (self.diverged - 1) * abs(self.best):
            self.ended = "diverged"
        return self.ended == "all rates"

    def suggestion(self) -> float | None:
        """Return the rate at which the loss falls fastest; None if it does not."""
        fall = self.steepest()
        return None if fall is None else self.tried[fall.middle]

    def steepest(self) -> "Fall | None":
        """Return the steepest fall before the smoothed loss turns: the least-squares line over a window of rates."""
        width = max(round(WINDOW * self.steps), FEWEST) | 1  # odd: it has a middle
        turn = self.smoothed.index(self.best) + 1 if self.smoothed else 0
        falls = [fitted(self.tried, self.losses, first, width) for first in range(turn - width + 1)]
        steepest = min(falls, key=lambda fall: fall.slope, default=None)
        if steepest is None or steepest.slope > -ROUNDING * abs(steepest.level):
            return None
        return steepest


class Fall(NamedTuple):
    """A line through the losses of neighbouring rates: its slope by the logarithm of the rate, its level in the middle.

    >>> Fall(first=3, width=5, slope=-1.0, level=2.0).middle
    5
    """

    first: int
    width: int
    slope: float
    level: float

    @property
    def middle(self) -> int:
        """The index of the rate in the middle."""
        return self.first + self.width // 2


def fitted(rates: Sequence[float], losses: Sequence[float], first: int, width: int) -> Fall:
    """Fit a line to ``width`` losses; the rates grow by one factor.

    >>> fitted([1.0, 10.0, 100.0], [6.0, 5.0, 1.0], 0, 3).level
    4.0
    """
    step = log(rates[first + 1] / rates[first])
    middle = width // 2
    chosen = losses[first : first + width]
    rise = sum((place - middle) * loss for place, loss in enumerate(chosen))
    return Fall(first, width, rise / sum((place - middle) ** 2 for place in range(width)) / step, sum(chosen) / width)
