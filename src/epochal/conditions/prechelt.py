"""Prechelt's three classes of stopping rules: GL, PQ and UP.

L. Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade, Springer 1998. They were stated for
validation errors above 0; here a difference is divided by the absolute value of the optimum, which is the same for
those, and NaN counts as infinitely bad.
"""

from dataclasses import KW_ONLY, dataclass, field
from math import inf, isnan
from typing import final

from epochal.conditions.arguments import check_amount, check_count, check_metric
from epochal.conditions.base import Condition
from epochal.conditions.better import infer_mode
from epochal.conditions.of_metric import OfChecks
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment


@dataclass
class Errors:
    """The lowest and the newest of the validation errors, and how many there were.

    >>> Errors()
    Errors(lowest=None, newest=None)
    """

    lowest: float | None = None
    newest: float | None = None

    @property
    def seen(self) -> bool:
        """Whether there was an error."""
        return self.newest is not None

    def take(self, value: float) -> None:
        """Take in one more error."""
        self.newest = inf if isnan(value) else float(value)
        self.lowest = self.newest if self.lowest is None else min(self.lowest, self.newest)

    @property
    def loss(self) -> float:
        """The generalization loss GL(t) in percent: how far the newest error is above the lowest."""
        return 0.0 if self.newest is None or self.lowest is None else 100 * _above(self.newest, self.lowest)


@final
@dataclass(frozen=True, eq=False, repr=False)
class GeneralizationLoss(OfChecks):
    """Hold while the newest check is more than ``alpha`` percent above the lowest so far (Prechelt's GL).

    >>> gl = GeneralizationLoss("val/loss", alpha=5)
    >>> [gl.ask(Moment("epoch", epoch=e, settled={"val/loss": x})) for e, x in enumerate([1.0, 1.04, 1.06, 0.9])]
    [False, False, True, False]

    The metric is an error, low is good: ``ArgumentError`` when its name says otherwise.
    """

    metric: str
    _: KW_ONLY
    alpha: float
    state: Errors = field(init=False, repr=False, default_factory=Errors)

    def __post_init__(self) -> None:
        _check_error(self.metric, "GeneralizationLoss")
        check_amount(self.alpha, owner="GeneralizationLoss", argument="alpha", zero=True)

    def holds(self, now: Moment) -> bool:
        """Compare the newest check."""
        value = now.settled.get(self.metric)
        if value is not None:
            self.state.take(value)
        return self.state.loss > self.alpha

    def reason(self, now: Moment) -> str:
        """Name the loss and the lowest error."""
        state = self.state
        return f"{self.metric} is {state.loss:.6g} % above its lowest {state.lowest or 0:.6g} (alpha {self.alpha:g})"


@dataclass
class Progress(Errors):
    """What the progress quotient remembers: errors, the training values of the running strip, the last quotient.

    >>> Progress().quotient
    0.0
    """

    strip: list[float] = field(default_factory=list[float])
    trained: bool = False
    quotient: float = 0.0


@final
@dataclass(frozen=True, eq=False, repr=False)
class ProgressQuotient(Condition):
    """Hold when, at the end of a strip of ``k`` epochs, generalization loss over training progress exceeds ``alpha``.

    >>> pq = ProgressQuotient("val/loss", alpha=1, k=2)
    >>> curve = [(1.0, 1.0), (0.9, 0.99), (0.9, 0.98), (1.2, 0.979)]
    >>> [pq.ask(Moment("epoch", epoch=e, settled={"val/loss": v, "train/loss": t})) for e, (v, t) in enumerate(curve)]
    [False, False, False, True]

    Progress is 1000 times how far the mean of the training metric over the strip is above its minimum there. Prechelt's
    PQ; between the ends of strips the last verdict stands. ``train`` names the training metric, whose settled values
    count the epochs.
    """

    metric: str
    _: KW_ONLY
    alpha: float
    k: int = 5
    train: str = "train/loss"
    state: Progress = field(init=False, repr=False, default_factory=Progress)

    def __post_init__(self) -> None:
        _check_error(self.metric, "ProgressQuotient")
        check_metric(self.train, owner="ProgressQuotient", argument="train")
        check_amount(self.alpha, owner="ProgressQuotient", argument="alpha", zero=True)
        check_count(self.k, owner="ProgressQuotient", argument="k")

    def holds(self, now: Moment) -> bool:
        """Take in the newest error, and at the end of a strip compare."""
        state = self.state
        value, trained = now.settled.get(self.metric), now.settled.get(self.train)
        if value is not None:
            state.take(value)
        if trained is not None:
            state.trained = True
            state.strip.append(inf if isnan(trained) else float(trained))
            if len(state.strip) == self.k:
                state.quotient = _quotient(state.loss, 1000 * _above(sum(state.strip) / self.k, min(state.strip)))
                state.strip.clear()
        return state.quotient > self.alpha

    @property
    def known(self) -> bool:
        """True once both metrics had a value."""
        return self.state.newest is not None and self.state.trained

    @property
    def settles(self) -> frozenset[str]:
        """Both metrics."""
        return frozenset((self.metric, self.train))

    def missing(self) -> frozenset[str]:
        """Return those of both metrics that were asked about and never seen."""
        seen = {self.metric: self.state.newest is not None, self.train: self.state.trained}
        return frozenset(name for name in self.settles if self.asked and not seen[name])

    def reason(self, now: Moment) -> str:
        """Name the quotient."""
        return (
            f"{self.metric}: generalization loss over training progress is {self.state.quotient:.6g} "
            f"(alpha {self.alpha:g})"
        )


@dataclass
class Strips:
    """What successive increases remember: checks in the running strip, the error that ended the last, increases.

    >>> Strips()
    Strips(checks=0, end=None, increases=0)
    """

    checks: int = 0
    end: float | None = None
    increases: int = 0

    @property
    def seen(self) -> bool:
        """Whether there was a check."""
        return self.checks > 0


@final
@dataclass(frozen=True, eq=False, repr=False)
class SuccessiveIncreases(OfChecks):
    """Hold when the error at the ends of strips of ``k`` checks has increased ``s`` times in succession.

    >>> up = SuccessiveIncreases("val/loss", s=2, k=1)
    >>> [up.ask(Moment("epoch", epoch=e, settled={"val/loss": x})) for e, x in enumerate([1.0, 1.1, 1.2, 0.9])]
    [False, False, True, False]

    Prechelt's UP; between the ends of strips the last verdict stands.
    """

    metric: str
    _: KW_ONLY
    s: int
    k: int = 5
    state: Strips = field(init=False, repr=False, default_factory=Strips)

    def __post_init__(self) -> None:
        _check_error(self.metric, "SuccessiveIncreases")
        check_count(self.s, owner="SuccessiveIncreases", argument="s")
        check_count(self.k, owner="SuccessiveIncreases", argument="k")

    def holds(self, now: Moment) -> bool:
        """Count the check, and at the end of a strip compare with the end of the one before."""
        state = self.state
        value = now.settled.get(self.metric)
        if value is not None:
            state.checks += 1
            if state.checks % self.k == 0:
                end = inf if isnan(value) else float(value)
                state.increases = state.increases + 1 if state.end is not None and end > state.end else 0
                state.end = end
        return state.increases >= self.s

    def reason(self, now: Moment) -> str:
        """Say how many strips in succession ended higher."""
        return f"{self.metric} increased over {self.state.increases} strips of {self.k} checks in succession"


def _above(value: float, lowest: float) -> float:
    if value == lowest:
        return 0.0
    return (value - lowest) / abs(lowest) if lowest != 0 and abs(lowest) != inf else inf


def _quotient(loss: float, progress: float) -> float:
    if loss in (0.0, inf) or progress == 0.0:
        return inf if loss > 0 else 0.0
    return loss / progress


def _check_error(metric: str, owner: str) -> None:
    check_metric(metric, owner=owner)
    try:
        mode = infer_mode(metric)
    except ArgumentError:
        return  # A name that tells nothing is taken for what the rule is about: an error.
    if mode == "max":
        raise ArgumentError(f'{owner}: metric must be an error, low is good, such as "val/loss", not {metric!r}')
