"""Lower the learning rate when a metric has stopped improving."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import nextafter
from typing import TYPE_CHECKING, ClassVar, final

from epochal.callbacks.policy import Policy
from epochal.conditions.arguments import check_amount, check_count, check_metric
from epochal.conditions.base import Condition
from epochal.conditions.better import Improvement, Mode, Track, infer_mode
from epochal.core.errors import ArgumentError, CapabilityError, nearest

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

logger = logging.getLogger("epochal")
Floors = float | Sequence[float] | Mapping[str, float]
ULP = nextafter(1.0, 2.0)


@dataclass
class Waiting(Track):
    """A track that begins to count anew after each cut; ``cooldown`` is the number of checks that do not count yet.

    >>> Waiting()
    Waiting(best=None, best_epoch=None, checks=0, bad=0, cooldown=0)
    """

    cooldown: int = 0


@final
@dataclass(frozen=True, eq=False, repr=False)
class CutDue(Condition):
    """Hold at a check with which the learning rate is to be cut (internal): the p-th bad one since the best or the cut.

    >>> from epochal.core.moment import Moment
    >>> due = CutDue("val/loss", patience=2)
    >>> [due.ask(Moment("epoch", epoch=e, settled={"val/loss": x})) for e, x in enumerate([1.0, 1.0, 1.0])]
    [False, False, True]
    """

    metric: str
    _: KW_ONLY
    patience: int
    min_delta: float = 0.0
    relative: bool = False
    mode: Mode | None = None
    cooldown: int = 0
    rule: Improvement = field(init=False, repr=False)
    state: Waiting = field(init=False, repr=False, default_factory=Waiting)

    def __post_init__(self) -> None:
        owner = "ReduceLROnPlateau"
        check_metric(self.metric, owner=owner)
        check_count(self.patience, owner=owner, argument="patience")
        if self.cooldown != 0:
            check_count(self.cooldown, owner=owner, argument="cooldown, when not 0,")
        mode = infer_mode(self.metric, self.mode, owner=owner)
        rule = Improvement(mode=mode, min_delta=self.min_delta, relative=self.relative, owner=owner)
        object.__setattr__(self, "rule", rule)

    def holds(self, now: "Moment") -> bool:
        """Count the check if there is one; the last check of a cool-down counts again, as in Keras."""
        value = now.settled.get(self.metric)
        if value is None:
            return False
        state = self.state
        state.cooldown = max(state.cooldown - 1, 0)
        self.rule.check(state, value, now.epoch)
        if state.cooldown:
            state.bad = 0
        return state.bad >= self.patience

    def done(self) -> None:
        """Begin to count anew: the rate was cut."""
        self.state.bad, self.state.cooldown = 0, self.cooldown

    @property
    def known(self) -> bool:
        """True from the first check on."""
        return self.state.checks > 0

    @property
    def settles(self) -> frozenset[str]:
        """The metric."""
        return frozenset((self.metric,))

    def reason(self, now: "Moment") -> str:
        """Say for how many checks nothing improved."""
        return f"{self.metric} has not improved for {self.state.bad} check{'s' * (self.state.bad != 1)}"


@final
class ReduceLROnPlateau(Policy):
    """Multiply the learning rate by ``factor`` when a metric has not improved for ``patience`` checks.

    >>> from epochal.testing import simulate
    >>> losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.9]
    >>> simulate([ReduceLROnPlateau("val/loss", factor=0.5, patience=2)], [{"val/loss": x} for x in losses]).lrs
    [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]

    metric, min_delta, relative, mode
        As for ``EarlyStopping``: a tie and NaN are bad checks, a value not measured anew is none.
    factor
        Above 0 and below 1; the default 0.1 is that of Keras and PyTorch.
    patience
        The number of bad checks, since the best or the last cut, that cuts; the default 10 is that of both.
    cooldown
        For so many checks after a cut bad ones are not counted; as in Keras the last of them counts again.
    min_lr
        The cuts never bring a rate below it: one number, a sequence (one per parameter group), or a mapping from group
        to number (groups left out have none). A rate that is below already is left alone.

    It counts as Keras' does; PyTorch's counts one check more: its (patience=P-1, threshold_mode="abs",
    threshold=min_delta, cooldown=max(C-1, 0), eps=0) is this one's (patience=P, min_delta=min_delta, cooldown=C).
    It acts through ``run.scale_lr``, so a schedule runs on below it, and the factors are saved with the run.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"set_lr"})

    def __init__(
        self,
        metric: str,
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        relative: bool = False,
        mode: Mode | None = None,
        cooldown: int = 0,
        min_lr: Floors = 0.0,
        name: str | None = None,
    ) -> None:
        self.due = CutDue(
            metric, patience=patience, min_delta=min_delta, relative=relative, mode=mode, cooldown=cooldown
        )
        super().__init__(self.due, name=name)
        if check_amount(factor, owner="ReduceLROnPlateau", argument="factor") >= 1:
            raise ArgumentError(f"ReduceLROnPlateau: factor must be below 1, since it lowers the rate, not {factor!r}")
        self.factor = float(factor)
        self.min_lr = check_floors(min_lr)

    def __repr__(self) -> str:
        return f"ReduceLROnPlateau({self.due.metric!r}, factor={self.factor:g}, patience={self.due.patience})"

    def on_train_start(self, run: "Run") -> None:
        """Refuse a training without a learning rate."""
        super().on_train_start(run)
        if run.engine.rate_host is None:
            raise CapabilityError(f"{self.name}: {run.host} shows no optimizer, so there is no learning rate to reduce")

    def act(self, run: "Run", now: "Moment") -> None:
        """Cut the rates that are above their floors."""
        before = run.lr
        floors = floor_of_groups(self.min_lr, before)
        above = [group for group, rate in before.items() if rate > floors.get(group, 0.0)]
        if not above:
            return
        if all(rate * self.factor >= floors.get(group, 0.0) for group, rate in before.items()):
            run.scale_lr(self.factor)
        else:
            for group in above:
                self.cut(run, group, before[group], floors.get(group, 0.0))
        reason = self.due.reason(now)
        self.due.done()
        after = run.lr
        changes = ", ".join(f"{group} {before[group]:.4g} -> {after[group]:.4g}" for group in above)
        logger.info("%s: learning rate of %s (%s)", run.label(self), changes, reason)

    def cut(self, run: "Run", group: str, rate: float, floor: float) -> None:
        """Cut one group's rate, at most to its floor, also after rounding."""
        run.scale_lr(max(self.factor, floor / rate), group)
        while run.lr[group] < floor:
            run.scale_lr(ULP, group)


def check_floors(min_lr: Floors) -> Floors:
    """Return ``min_lr`` if it can be one, else raise ArgumentError."""
    if isinstance(min_lr, Mapping):
        numbers: Sequence[object] = list(min_lr.values())
    elif isinstance(min_lr, Sequence) and not isinstance(min_lr, str):
        numbers = min_lr
    else:
        numbers = (min_lr,)
    for number in numbers:
        check_amount(number, owner="ReduceLROnPlateau", argument="min_lr", zero=True)
    return min_lr


def floor_of_groups(min_lr: Floors, groups: Mapping[str, float]) -> dict[str, float]:
    """Return the lowest rate of each parameter group.

    >>> floor_of_groups([0.01, 0.001], {"pg0": 0.1, "pg1": 0.1})
    {'pg0': 0.01, 'pg1': 0.001}
    """
    if isinstance(min_lr, Mapping):
        for group in min_lr:
            if group not in groups:
                guess = nearest(group, groups)
                hint = f"; did you mean {guess!r}?" if guess else "."
                raise ArgumentError(
                    f"ReduceLROnPlateau: min_lr names the parameter group {group!r}, which is not there{hint}"
                    f" Groups: {', '.join(groups)}"
                )
        return dict(min_lr)
    if isinstance(min_lr, Sequence):
        if len(min_lr) != len(groups):
            raise ArgumentError(
                f"ReduceLROnPlateau: min_lr has {len(min_lr)} numbers for {len(groups)} parameter groups"
                f" ({', '.join(groups)}); pass one each, or a mapping"
            )
        return dict(zip(groups, min_lr, strict=True))
    return dict.fromkeys(groups, min_lr)
