"""The condition that a metric has stopped improving."""

from dataclasses import KW_ONLY, dataclass, field
from typing import final

from epochal.conditions.arguments import check_count, check_metric
from epochal.conditions.better import Improvement, Mode, Track, infer_mode
from epochal.conditions.of_metric import OfChecks
from epochal.core.moment import Moment


@final
@dataclass(frozen=True, eq=False, repr=False)
class Plateau(OfChecks):
    """Hold from the p-th bad check since the best one until the next improvement.

    >>> plateau = Plateau("val/loss", patience=2)
    >>> losses = [0.5, 0.4, 0.4, 0.6, 0.3]
    >>> [plateau.ask(Moment("epoch", epoch=e, settled={"val/loss": loss})) for e, loss in enumerate(losses)]
    [False, False, False, True, False]

    A check is a settled value: once per validation for what validation logs, else once per epoch. A check is bad when
    it does not improve on the best by more than ``min_delta`` (in units of the metric, or with ``relative`` as a share
    of the best's absolute value); a tie and NaN are bad. ``baseline`` is a value to beat before anything counts as
    an improvement. ``mode`` is inferred from the name; ``ArgumentError`` when the name does not tell.
    """

    metric: str
    _: KW_ONLY
    patience: int
    min_delta: float = 0.0
    relative: bool = False
    mode: Mode | None = None
    baseline: float | None = None
    rule: Improvement = field(init=False, repr=False)
    state: Track = field(init=False, repr=False, default_factory=Track)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="Plateau")
        check_count(self.patience, owner="Plateau", argument="patience")
        rule = Improvement(
            mode=infer_mode(self.metric, self.mode, owner="Plateau"),
            min_delta=self.min_delta,
            relative=self.relative,
            baseline=self.baseline,
            owner="Plateau",
        )
        object.__setattr__(self, "rule", rule)

    def holds(self, now: Moment) -> bool:
        """Count the check if there is one at this moment."""
        value = now.settled.get(self.metric)
        if value is not None:
            self.rule.check(self.state, value, now.epoch)
        return self.state.bad >= self.patience

    def reason(self, now: Moment) -> str:
        """Say for how many checks nothing improved, and what the best was."""
        state = self.state
        if state.best is not None:
            best = f"best {state.best:.6g} in epoch {(state.best_epoch or 0) + 1}"  # people count from 1
        else:
            best = "no best yet" if self.baseline is None else f"never better than the baseline {self.baseline:.6g}"
        return f"{self.metric} has not improved for {state.bad} check{'s' * (state.bad != 1)} ({best})"
