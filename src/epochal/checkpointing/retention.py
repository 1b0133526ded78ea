"""Retention: which checkpoints stay, decided from their manifests alone."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from epochal.conditions.habits import single
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.checkpointing.layout import Manifest

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Keep:
    """What one asker keeps of the checkpoints it asked for: the newest ``last`` and the ``best``.

    >>> Keep(last=2, best=1, metric="val/loss", mode="min").best
    1

    ``last=None`` (or -1) keeps all of them, ``best=None`` none as best. Best ranks by ``metric``, else by fitness.

    The rest is how other libraries keep: the epochs 0, ``every``, 2 ``every`` ... stay too; with ``shared`` the best
    are among the ``last`` and not beside them; ``over``: a training that is over keeps no point to go on from, where
    something else is kept; ``ranks`` says how the best are found.
    """

    last: int | None = 1
    best: int | None = None
    metric: str | None = None
    mode: Mode = "max"
    every: int | None = None
    shared: bool = False
    over: bool = False
    ranks: "Ranks | None" = None

    def __post_init__(self) -> None:
        if self.last is not None and self.last < -1:
            raise ArgumentError(f"last={self.last} keeps nothing that exists: a number, or None for all")
        if self.best is not None and self.best < 0:
            raise ArgumentError(f"best={self.best} keeps nothing that exists: a number, or None for none")
        if self.mode not in ("min", "max"):
            raise ArgumentError(f"mode={self.mode!r} is neither 'min' nor 'max'")


@dataclass(frozen=True)
class Ranks:
    """How the best are found; the defaults are ours.

    >>> Ranks().never
    'nan'

    ``never`` is what is not ranked: "nan"; the "worst" infinity and NaN; or "nothing", so that NaN ranks as the worst
    infinity. Of equal ones the earlier is better, or the ``later``; ``single``: values are rounded to float32 before.
    ``instead`` holds the values, by epoch, for what was saved in an epoch that did not measure the metric.
    """

    never: Literal["nan", "worst", "nothing"] = "nan"
    later: bool = False
    single: bool = False
    instead: Mapping[int, float] = field(default_factory=dict[int, float])

    def key(self, value: float, sign: float) -> float | None:
        """Return what is sorted by, the best first, or None where a value is not ranked."""
        key = sign * (single(value) if self.single else value)
        if math.isnan(key):
            return math.inf if self.never == "nothing" else None
        return None if key == math.inf and self.never == "worst" else key


OURS = Ranks()


def ranked(
    manifests: "Iterable[Manifest]", *, metric: str | None = None, mode: Mode = "max", ranks: Ranks = OURS
) -> "list[Manifest]":
    """Return those that have a value, best first; of equal ones the earlier is better, and NaN is no value.

    >>> from epochal.checkpointing.layout import Manifest
    >>> rates = {"a": 1.0, "b": float("nan"), "c": 2.0}
    >>> saves = [Manifest(name=name, epoch=0, step=0, fitness=rate) for name, rate in rates.items()]
    >>> [one.name for one in ranked(saves)]
    ['c', 'a']
    """
    sign = 1.0 if mode == "min" else -1.0
    rated = [(key, one) for one in manifests if (key := ranks.key(_value(one, metric, ranks), sign)) is not None]
    if ranks.later:
        rated.reverse()
    return [one for _, one in sorted(rated, key=lambda pair: pair[0])]


def kept(manifests: "Sequence[Manifest]", rules: Mapping[str, Keep], *, protected: Collection[str] = ()) -> set[str]:
    """Return the names of the checkpoints that stay; ``manifests`` come oldest first.

    >>> from epochal.checkpointing.layout import Manifest
    >>> saves = [Manifest(name=str(n), epoch=n, step=n, asked_by=("each epoch",)) for n in range(4)]
    >>> sorted(kept(saves, {"each epoch": Keep(last=2)}, protected={"0"}))
    ['0', '2', '3']

    Each rule applies to what its asker asked for. Always kept: what is pinned, protected, or asked for by somebody
    without a rule, and the newest resume point, unless it belongs to a training that is over.
    """
    staying = {one.name for one in manifests if one.pinned or one.name in protected}
    staying |= {one.name for one in manifests if not one.asked_by or any(label not in rules for label in one.asked_by)}
    wanted = {
        label: _kept_by(rule, [one for one in manifests if label in one.asked_by]) for label, rule in rules.items()
    }
    over = {label for label, rule in rules.items() if rule.over and wanted[label]}
    staying |= {one.name for one in [one for one in manifests if one.resume_point][-1:] if not over >= {*one.asked_by}}
    return staying.union(*wanted.values())


def surplus(
    manifests: "Sequence[Manifest]", rules: Mapping[str, Keep], *, protected: Collection[str] = ()
) -> list[str]:
    """Return the names of those that may go, oldest first, when there is no room for the next one.

    >>> from epochal.checkpointing.layout import Manifest
    >>> saves = [Manifest(name=str(n), epoch=n, step=n, asked_by=("each epoch",)) for n in range(4)]
    >>> surplus(saves, {"each epoch": Keep(last=3)})
    ['0', '1', '2']

    They are those that only a ``last`` above 1 keeps. Never: what `kept` keeps always, the best of a rule, the newest
    of each asker; nor any where ``last`` is None, since that is a promise and not a cushion.
    """
    lean = {
        label: rule if rule.last is None else replace(rule, last=min(rule.last, 1)) for label, rule in rules.items()
    }
    staying = kept(manifests, lean, protected=protected)
    return [one.name for one in manifests if one.name not in staying]


def _kept_by(rule: Keep, asked: "Sequence[Manifest]") -> set[str]:
    count = len(asked) if rule.last is None or rule.last < 0 else rule.last
    best = ranked(asked, metric=rule.metric, mode=rule.mode, ranks=rule.ranks or OURS)[: rule.best or 0]
    if rule.shared:
        older = {one.name for one in best if one is not asked[-1]}
        newest = [one for one in asked if one.name not in older]
        count = max(count - len(older), min(count, 1))
    else:
        newest = asked
    period = [one for one in asked if rule.every and one.epoch % rule.every == 0]
    return {one.name for one in (*newest[max(0, len(newest) - count) :], *best, *period)}


def _value(manifest: "Manifest", metric: str | None, ranks: Ranks) -> float:
    if metric in (None, "fitness") and manifest.fitness is not None:
        return manifest.fitness
    value = manifest.metrics.get(metric or "fitness")
    return ranks.instead.get(manifest.epoch, math.nan) if value is None else value
