"""The arithmetic of a learning-rate range test: rates that grow, a smoothed loss, where it falls fastest."""

from dataclasses import dataclass, field
from math import exp, inf, isfinite, log
from typing import Literal

Ended = Literal["all rates", "diverged", "not finite"]
LEFT_OUT = 0.1  # of the planned rates, at the beginning: an average of few losses says little
ROUNDING = 1e-6  # of a loss: a smaller fall is none


@dataclass
class RangeTest:
    """A range test as Smith (arXiv 1506.01186) proposed it and fastai made it known: one step per rate.

    >>> test = RangeTest(start=0.001, end=1.0, steps=4, smooth=0.0, diverged=4.0)
    >>> [round(rate, 3) for rate in test.rates()]
    [0.001, 0.01, 0.1, 1.0]
    >>> [test.add(rate, loss) for rate, loss in zip(test.rates(), (2.0, 1.9, 1.0, 9.0))]
    [True, True, True, False]
    >>> round(test.suggestion(), 3), test.ended
    (0.01, 'diverged')

    The loss is smoothed by an exponential moving average whose start is corrected: ``smooth`` is the weight of what was
    before. It has diverged when that average is more than ``diverged`` times its smallest value so far (which for a
    negative loss is as far above it as it would be for the positive one).
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
        """Return the rate at which the smoothed loss falls fastest, by the logarithm of the rate; None if it does not.

        The first tenth of the planned rates and the last that was tried are left out.
        """
        first, last = max(int(LEFT_OUT * self.steps), 1), len(self.tried) - 1
        slopes = {index: self.slope(index) for index in range(first, last)}
        if len(slopes) < 2:
            return None
        steepest = min(slopes, key=lambda index: slopes[index])
        return self.tried[steepest] if slopes[steepest] < -ROUNDING * abs(self.smoothed[steepest]) else None

    def slope(self, index: int) -> float:
        """Return how the smoothed loss changes at a rate, by its neighbours."""
        rates, losses = self.tried, self.smoothed
        return (losses[index + 1] - losses[index - 1]) / log(rates[index + 1] / rates[index - 1])
