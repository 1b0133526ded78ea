"""The condition that the learning rate is to be cut."""

from dataclasses import KW_ONLY, dataclass, field
from typing import final

from epochal.conditions.arguments import check_count, check_metric, check_whole
from epochal.conditions.better import Improvement, Mode, Track, infer_mode
from epochal.conditions.habits import OURS
from epochal.conditions.of_metric import AtChecks
from epochal.conditions.presets import CUTS, CutPreset, Cuts, delta
from epochal.core.moment import Moment

OWNER = "ReduceLROnPlateau"


@dataclass
class Waiting(Track):
    """A track that begins to count anew after each cut; ``cooldown`` is the number of checks that do not count yet.

    >>> Waiting()
    Waiting(best=None, best_epoch=None, checks=0, bad=0, cooldown=0)
    """

    cooldown: int = 0


@final
@dataclass(frozen=True, eq=False, repr=False)
class CutDue(AtChecks):
    """Hold at a check with which the learning rate is to be cut (internal): the p-th bad one since the best or the cut.

    >>> due = CutDue("val/loss", patience=2)
    >>> [due.ask(Moment("epoch", epoch=e, settled={"val/loss": x})) for e, x in enumerate([1.0, 1.0, 1.0])]
    [False, False, True]

    ``compat`` names a library that decides otherwise; how is its row in ``CUTS``.
    """

    metric: str
    _: KW_ONLY
    patience: int
    min_delta: float = 0.0
    relative: bool = False
    mode: Mode | None = None
    cooldown: int = 0
    compat: Cuts | None = None
    preset: CutPreset | None = field(init=False, repr=False)
    bad: int = field(init=False, repr=False)
    rule: Improvement = field(init=False, repr=False)
    state: Waiting = field(init=False, repr=False, default_factory=Waiting)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner=OWNER)
        preset = None if self.compat is None else CUTS[self.compat]
        if preset is None:
            check_count(self.patience, owner=OWNER, argument="patience")
        check_whole(self.patience, owner=OWNER, argument="patience")
        if self.cooldown != 0:
            check_count(self.cooldown, owner=OWNER, argument="cooldown, when not 0,")
        rule = Improvement(
            mode=infer_mode(self.metric, self.mode, owner=OWNER),
            min_delta=self.min_delta if preset is None else delta(preset, self.min_delta, owner=OWNER),
            relative=self.relative,
            habits=OURS if preset is None else preset.habits,
            owner=OWNER,
        )
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "bad", max(self.patience + (0 if preset is None else preset.patience_more), 1))
        object.__setattr__(self, "rule", rule)

    def holds(self, now: Moment) -> bool:
        """Count the check if there is one; the last check of a cool-down counts again, as in Keras, or does not."""
        value = now.settled.get(self.metric)
        if value is None:
            return False
        state = self.state
        cooling = state.cooldown > 1 or (
            state.cooldown == 1 and self.preset is not None and not self.preset.last_counts
        )
        state.cooldown = max(state.cooldown - 1, 0)
        self.rule.check(state, value, now.epoch)
        if cooling:
            state.bad = 0
        return state.bad >= self.bad

    def done(self) -> None:
        """Begin to count anew: the rate was cut."""
        self.state.bad, self.state.cooldown = 0, self.cooldown

    def reason(self, now: Moment) -> str:
        """Say for how many checks nothing improved."""
        return f"{self.metric} has not improved for {self.state.bad} check{'s' * (self.state.bad != 1)}"
