"""The condition that another library would save here."""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import final

from epochal.conditions.arguments import check_number
from epochal.conditions.base import Condition
from epochal.conditions.better import Improvement, Mode, Track, infer_mode, worst
from epochal.conditions.habits import single
from epochal.conditions.presets import SAVES, SavePreset, Saves
from epochal.core.moment import Moment

OWNER = "Checkpoint"


@dataclass
class Chosen(Track):
    """A track that remembers the newest value, when it was measured and judged, how often was saved, and the top.

    ``validated`` is the epoch of the last validation, None before the first. ``old_epochs`` were saved by a value from
    before, which is in ``old_values``.

    >>> Chosen().top
    []
    """

    value: float | None = None
    measured: int | None = None
    judged: int | None = None
    validated: int | None = None
    saves: int = 0
    top: list[float] = field(default_factory=list[float])
    old_epochs: list[float] = field(default_factory=list[float])
    old_values: list[float] = field(default_factory=list[float])


@final
@dataclass(frozen=True, eq=False, repr=False)
class SaveDue(Condition):
    """Hold at a moment at which a library's own callback would save (internal).

    >>> due = SaveDue("val/loss", compat="lightning", keep_best=2)
    >>> losses = [0.5, 0.6, 0.7, 0.6, 0.55]
    >>> [due.ask(Moment("epoch", epoch=e, settled={"val/loss": loss})) for e, loss in enumerate(losses)]
    [True, True, False, False, True]

    Lightning saves what is among the ``keep_best`` best. How each library decides is its row in ``SAVES``.
    """

    at_batches = False
    metric: str | None
    _: KW_ONLY
    compat: Saves
    mode: Mode | None = None
    best_only: bool = False
    initial_best: float | None = None
    keep_best: int = 1
    every_n_epochs: int | None = None
    preset: SavePreset = field(init=False, repr=False)
    rule: Improvement = field(init=False, repr=False)
    state: Chosen = field(init=False, repr=False, default_factory=Chosen)

    def __post_init__(self) -> None:
        preset = SAVES[self.compat]
        if self.initial_best is not None:
            check_number(self.initial_best, owner=OWNER, argument="initial_best")
            self.state.best = float(self.initial_best)
        always = preset.only_max or self.metric is None
        mode = "max" if always else infer_mode(self.metric or "", self.mode, owner=OWNER)
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "rule", Improvement(mode=mode, habits=preset.habits, owner=OWNER))

    def holds(self, now: Moment) -> bool:
        """Decide at a check, where the library does that there, else at the epoch's end."""
        state, preset = self.state, self.preset
        value = None if self.metric is None else now.settled.get(self.metric)
        if now.ended == "validation":
            state.validated = now.epoch
        if value is not None:
            state.value, state.measured = float(value), now.epoch
        at_check = value is not None and preset.at_checks and (preset.ranked or self.best_only)
        if not at_check and (now.ended != "epoch" or state.judged == now.epoch):
            return False
        if preset.stale and value is None and state.validated not in (None, now.epoch):
            return False  # where only some epochs are validated, it decides in those
        state.judged = now.epoch
        fresh = preset.stale or state.measured == now.epoch
        due = self.chooses(state.value if fresh else None, now.epoch)
        state.saves += due
        if due and fresh and state.value is not None and state.measured != now.epoch:
            state.old_epochs.append(now.epoch)
            state.old_values.append(state.value)
        return due

    @property
    def instead(self) -> dict[int, float]:
        """The values by which epochs were saved that did not measure the metric."""
        return {int(epoch): value for epoch, value in zip(self.state.old_epochs, self.state.old_values, strict=True)}

    def chooses(self, value: float | None, epoch: int) -> bool:
        """Return whether a library saves an epoch with this value; None: the metric was not measured."""
        period, preset = self.every_n_epochs, self.preset
        if preset.period == "only" and (period == 0 or (epoch + 1) % (period or 1)):
            return False
        also = preset.period == "also" and (period or 0) > 0 and epoch % (period or 1) == 0
        improved = self.rule.check(self.state, value, epoch) if value is not None else preset.without
        if self.rule.habits.ties and value is not None:
            improved = improved and not math.isnan(value)
        if preset.ranked:
            return self.enters(value)
        return improved or also or not self.best_only

    def enters(self, value: float | None) -> bool:
        """Return whether a value is among the best, and let it take the place of the worst of them."""
        if self.metric is None or self.keep_best == 0 or value is None:
            return self.metric is None and self.keep_best != 0
        top, mode = self.state.top, self.rule.mode
        if self.keep_best == -1:
            return True
        if len(top) >= self.keep_best:
            last = max(top) if mode == "min" else min(top)
            if not self.rule.beats(value, last):
                return False
            top.remove(last)  # of equal ones the one saved first
        top.append(worst(mode) if math.isnan(value) else single(value))
        return True

    @property
    def known(self) -> bool:
        """True when there is nothing to wait for, else from the first value on."""
        return self.metric is None or self.state.value is not None or not (self.best_only or self.preset.ranked)

    @property
    def settles(self) -> frozenset[str]:
        """The metric, if there is one."""
        return frozenset(() if self.metric is None else (self.metric,))

    def reason(self, now: Moment) -> str:
        """Say whose decision it is."""
        value = self.state.value
        shown = "" if self.metric is None or value is None else f", {self.metric} {value:.6g}"
        return f"as {self.compat} saves (epoch {now.epoch + 1}{shown})"
