"""The condition that a metric is better than ever before."""

from dataclasses import KW_ONLY, dataclass, field
from typing import final

from epochal.conditions.arguments import check_metric
from epochal.conditions.better import Improvement, Mode, Track, infer_mode
from epochal.conditions.of_metric import AtChecks
from epochal.core.moment import Moment


@final
@dataclass(frozen=True, eq=False, repr=False)
class Best(AtChecks):
    """Hold at a check that is strictly better than all before, and only at that moment.

    >>> best = Best("val/loss")
    >>> losses = [0.5, 0.5, 0.4, float("nan")]
    >>> [best.ask(Moment("epoch", epoch=e, settled={"val/loss": loss})) for e, loss in enumerate(losses)]
    [True, False, True, False]

    A check is a settled value. ``min_delta``, in units of the metric, is what it must be better by, more exactly by
    more than that. ``mode`` is inferred from the name; ``ArgumentError`` when the name does not tell.
    """

    metric: str
    _: KW_ONLY
    min_delta: float = 0.0
    mode: Mode | None = None
    rule: Improvement = field(init=False, repr=False)
    state: Track = field(init=False, repr=False, default_factory=Track)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner="Best")
        mode = infer_mode(self.metric, self.mode, owner="Best")
        object.__setattr__(self, "rule", Improvement(mode=mode, min_delta=self.min_delta, owner="Best"))

    def holds(self, now: Moment) -> bool:
        """Compare with the best if there is a check at this moment."""
        value = now.settled.get(self.metric)
        return value is not None and self.rule.check(self.state, value, now.epoch)

    def reason(self, now: Moment) -> str:
        """Name the best value."""
        best = self.state.best
        return f"{self.metric} {best:.6g} is the best so far" if best is not None else super().reason(now)
