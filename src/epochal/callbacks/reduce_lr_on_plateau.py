"""Lower the learning rate when a metric has stopped improving."""

import logging
from collections.abc import Mapping, Sequence
from math import nextafter
from typing import TYPE_CHECKING, ClassVar, final

from epochal.callbacks.policy import Policy
from epochal.conditions.arguments import check_amount
from epochal.conditions.better import Mode
from epochal.conditions.cut_due import OWNER, CutDue
from epochal.conditions.habits import single
from epochal.conditions.presets import CUTS, Cuts, given, only_with_compat, preset
from epochal.core.errors import ArgumentError, CapabilityError, nearest

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

logger = logging.getLogger("epochal")
Floors = float | Sequence[float] | Mapping[str, float]
ULP = nextafter(1.0, 2.0)


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

    compat
        "keras" or "torch": decide exactly as that library's class of this name, which NaN, ties, float32 and its own
        defaults belong to; torch's threshold is ``min_delta``, its threshold_mode="rel" is ``relative=True``.
    eps
        With compat="torch" only: a rate is left alone where a cut would change it by no more than this.

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
        min_delta: float | None = None,
        relative: bool | None = None,
        mode: Mode | None = None,
        cooldown: int = 0,
        min_lr: Floors = 0.0,
        eps: float | None = None,
        compat: Cuts | None = None,
        name: str | None = None,
    ) -> None:
        options = given({"min_delta": min_delta, "relative": relative, "mode": mode, "eps": eps}, {"relative": False})
        if compat is None:
            only_with_compat(options, {"eps": "leave it out"}, owner=OWNER)
        self.row = None if compat is None else preset(CUTS, compat, options, owner=OWNER)
        usual = self.row.min_delta if self.row else 0.0
        usual_relative = self.row.relative if self.row else False
        self.due = CutDue(
            metric,
            patience=patience,
            min_delta=usual if min_delta is None else min_delta,
            relative=usual_relative if relative is None else relative,
            mode=mode,
            cooldown=cooldown,
            compat=compat,
        )
        super().__init__(self.due, name=name)
        self.compat = compat
        if check_amount(factor, owner=OWNER, argument="factor", zero=compat is not None) >= 1:
            raise ArgumentError(f"ReduceLROnPlateau: factor must be below 1, since it lowers the rate, not {factor!r}")
        self.factor = float(factor)
        self.min_lr = check_floors(min_lr)
        self.eps = self.row.eps if self.row and eps is None else eps
        if self.eps is not None:
            check_amount(self.eps, owner=OWNER, argument="eps", zero=True)

    def __repr__(self) -> str:
        return f"ReduceLROnPlateau({self.due.metric!r}, factor={self.factor:g}, patience={self.due.patience})"

    def on_train_start(self, run: "Run") -> None:
        """Refuse a training without a learning rate."""
        super().on_train_start(run)
        if run.engine.rate_host is None:
            raise CapabilityError(f"{self.name}: {run.host} shows no optimizer, so there is no learning rate to reduce")

    def act(self, run: "Run", now: "Moment") -> None:
        """Cut the rates that are above their floors."""
        before, reason = run.lr, self.due.reason(now)
        floors = floor_of_groups(self.min_lr, before)
        cut = self.cut_all(run, before, floors) if self.row is None else self.cut_as_they_do(run, before, floors)
        if cut or (self.row is not None and self.row.always_anew):
            self.due.done()
        if cut:
            after = run.lr
            changes = ", ".join(f"{group} {before[group]:.4g} -> {after[group]:.4g}" for group in cut)
            logger.info("%s: learning rate of %s (%s)", run.label(self), changes, reason)

    def cut_all(self, run: "Run", before: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
        """Cut every rate that is above its floor and return their groups."""
        above = [group for group, rate in before.items() if rate > floors.get(group, 0.0)]
        if above and all(rate * self.factor >= floors.get(group, 0.0) for group, rate in before.items()):
            run.scale_lr(self.factor)
            return above
        for group in above:
            self.cut(run, group, before[group], floors.get(group, 0.0))
        return above

    def cut_as_they_do(self, run: "Run", before: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
        """Cut the rates that the library cuts, to what it makes of them, and return their groups."""
        assert self.row is not None
        targets: dict[str, float] = {}
        for group, rate in before.items():
            floor = floors.get(group, 0.0)
            if self.row.single:
                rate = single(rate)
                lower, cuts = single(max(rate * self.factor, floor)), rate > single(floor)
            else:
                lower = max(rate * self.factor, floor)
                cuts = rate - lower > (self.eps or 0.0)
            if cuts:
                targets[group] = lower
        for group, lower in targets.items():
            run.scale_lr(lower / before[group], group)
        return list(targets)

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
