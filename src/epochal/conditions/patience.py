"""The condition that another library's early stopping stops here."""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import final

from epochal.conditions.arguments import check_metric, check_number, check_whole
from epochal.conditions.base import Condition
from epochal.conditions.better import Improvement, Mode, Track, infer_mode
from epochal.conditions.habits import single
from epochal.conditions.of_metric import AtChecks
from epochal.conditions.presets import STOPS, StopPreset, Stops, delta
from epochal.core.moment import Moment

OWNER = "EarlyStopping"


@dataclass
class Judged(Track):
    """A track that remembers the newest value, where it was judged, whether it is the best, and why to stop.

    ``validated`` is the epoch of the last validation; None: there was none.

    >>> Judged().why
    ''
    """

    value: float | None = None
    epoch: int | None = None
    renewed: bool = False
    why: str = ""
    validated: int | None = None

    @property
    def seen(self) -> bool:
        """Whether there was a value."""
        return self.value is not None


@final
@dataclass(frozen=True, eq=False, repr=False)
class Patience(AtChecks):
    """Hold at a check at which a library's own early stopping would stop (internal).

    >>> patience = Patience("val/loss", compat="keras", patience=2)
    >>> losses = [float("nan"), 0.5, 0.4, 0.3]
    >>> [patience.ask(Moment("epoch", epoch=e, settled={"val/loss": loss})) for e, loss in enumerate(losses)]
    [False, False, True, True]

    To Keras a first NaN is the best, which nothing beats. How each library decides is its row in ``STOPS``.
    """

    metric: str
    _: KW_ONLY
    compat: Stops
    patience: int | None
    min_delta: float = 0.0
    mode: Mode | None = None
    baseline: float | None = None
    start_from_epoch: int = 0
    check_finite: bool | None = None
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    preset: StopPreset = field(init=False, repr=False)
    rule: Improvement = field(init=False, repr=False)
    state: Judged = field(init=False, repr=False, default_factory=Judged)

    def __post_init__(self) -> None:
        check_metric(self.metric, owner=OWNER)
        preset = STOPS[self.compat]
        if not (preset.endless and self.patience is None):
            check_whole(self.patience, owner=OWNER, argument="patience")
        check_whole(self.start_from_epoch, owner=OWNER, argument="start_from_epoch")
        for name in ("stopping_threshold", "divergence_threshold"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), owner=OWNER, argument=name)
        rule = Improvement(
            mode="max" if preset.only_max else infer_mode(self.metric, self.mode, owner=OWNER),
            min_delta=delta(preset, self.min_delta, owner=OWNER),
            baseline=self.baseline,
            habits=preset.habits,
            owner=OWNER,
        )
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "rule", rule)

    def holds(self, now: Moment) -> bool:
        """Judge the check if there is one at this moment."""
        state, value = self.state, now.settled.get(self.metric)
        if now.ended == "validation":
            state.validated = now.epoch
        if value is None and self.preset.stale and self.looks_again(now):
            value = state.value
        if value is None:
            return False
        state.value, state.epoch = float(value), now.epoch
        if now.epoch < self.start_from_epoch:
            return False
        state.why = self.judge(state.value, now.epoch)
        return state.why != ""

    def looks_again(self, now: Moment) -> bool:
        """Say whether a library looks at an old value now: not in an epoch without a validation, if others have one."""
        state = self.state
        return now.ended == "epoch" and state.epoch != now.epoch and state.validated in (None, now.epoch)

    def judge(self, value: float, epoch: int) -> str:
        """Return why a library stops at this value, or nothing."""
        preset, rule, state = self.preset, self.rule, self.state
        state.renewed, before = False, (state.best, state.best_epoch)
        finite = preset.check_finite if self.check_finite is None else self.check_finite
        if finite and not math.isfinite(single(value)):
            return f"is {value:.6g}"
        if self.stopping_threshold is not None and rule.beats(value, self.stopping_threshold):
            return f"{value:.6g} reached {self.stopping_threshold:.6g}"
        if self.divergence_threshold is not None and rule.beats(self.divergence_threshold, value):
            return f"{value:.6g} is worse than {self.divergence_threshold:.6g}"
        improved = rule.check(state, value, epoch)
        state.renewed = (state.best, state.best_epoch) != before and state.best_epoch == epoch
        if preset.counts == "epochs":
            state.bad = epoch - (state.best_epoch or 0)
        patience = math.inf if preset.endless and not self.patience else self.patience or 0
        if (improved and not preset.at_best) or state.bad < patience or epoch < preset.from_epoch:
            return ""
        return self.out_of_patience()

    def out_of_patience(self) -> str:
        """Say for how long nothing improved, and what the best was."""
        state = self.state
        counted = self.preset.counts.removesuffix("s")
        best = "no best yet"
        if state.best_epoch is not None:
            best = f"best {state.best:.6g} in epoch {state.best_epoch + 1}"  # people count from 1
        return f"has not improved for {state.bad} {counted}{'s' * (state.bad != 1)} ({best})"

    def reason(self, now: Moment) -> str:
        """Say why the library stops."""
        return f"{self.metric} {self.state.why} (as {self.compat} counts)"


@final
class NewBest(Condition):
    """Hold at a check that a ``Patience`` found to be the best so far, whose weights it restores (internal).

    >>> patience = Patience("val/loss", compat="keras", patience=2)
    >>> best, answers = NewBest(patience), []
    >>> for epoch, loss in enumerate([0.5, 0.6, 0.4]):
    ...     now = Moment("epoch", epoch=epoch, settled={"val/loss": loss})
    ...     answers.append((patience.ask(now), best.ask(now))[1])
    >>> answers
    [True, False, True]

    The other is asked first.
    """

    at_batches = False

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    def holds(self, now: Moment) -> bool:
        """Look at what the other found."""
        state = self.patience.state
        return state.renewed and state.epoch == now.epoch and self.patience.metric in now.settled

    def reason(self, now: Moment) -> str:
        """Name the best."""
        return f"{self.patience.metric} {self.patience.state.best:.6g} is the best so far"

    def __repr__(self) -> str:
        return f"NewBest({self.patience!r})"
