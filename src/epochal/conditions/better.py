"""The arithmetic of "better", once: which way a metric is good, and what an improvement is."""

import re
import sys
from dataclasses import dataclass
from typing import Literal

from epochal.conditions.arguments import check_amount, check_number
from epochal.conditions.habits import OURS, Habits, single
from epochal.core.errors import ArgumentError

Mode = Literal["min", "max"]

LOW_IS_GOOD = ("loss", "error", "nll", "perplexity", "mae", "mse", "rmse", "wer", "fid")
HIGH_IS_GOOD = (
    *("fitness", "acc", "accuracy", "map", "precision", "recall", "f1", "auc", "iou", "dice"),
    *("bleu", "rouge", "r2", "score", "reward"),
)

WORDS: dict[str, Mode] = {**dict.fromkeys(LOW_IS_GOOD, "min"), **dict.fromkeys(HIGH_IS_GOOD, "max")}
"""The one table of words from which the direction of a metric is inferred."""

WORD = re.compile(r"[A-Za-z0-9]+")
INSIDE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def infer_mode(metric: str, mode: Mode | None = None, *, owner: str = "") -> Mode:
    """Return ``mode``, or when it is None the direction that the name of the metric tells.

    The last word of the name that is in ``WORDS`` decides, as in English: a dice loss is a loss. Words end at anything
    that is no letter or digit and at a capital inside a word; digits behind a word do not count.

    >>> infer_mode("val/dice_loss"), infer_mode("metrics/mAP50-95(B)"), infer_mode("valLoss")
    ('min', 'max', 'min')

    Raises ``ArgumentError`` for a name without such a word, and for a mode that is neither "min" nor "max".
    """
    start = f"{owner}: " if owner else ""
    if mode == "min" or mode == "max":  # two tests, which a type checker follows
        return mode
    if mode is not None:
        raise ArgumentError(f'{start}mode must be "min" or "max", not {mode!r}')
    found: list[Mode] = [known for token in WORD.findall(metric) if (known := _mode_of_token(token))]
    if found:
        return found[-1]
    raise ArgumentError(
        f'{start}the name {metric!r} does not tell whether low or high is good: pass mode="min" or mode="max"'
    )


def _mode_of_token(token: str) -> Mode | None:
    # The whole token first, for mAP and IoU; then what begins at an inner capital, the last word first.
    starts = [0, *reversed([cut.start() for cut in INSIDE.finditer(token)])]
    ends = [len(token), *reversed([cut.start() for cut in INSIDE.finditer(token)])]
    for end in ends:
        for start in starts:
            word = token[start:end].lower()
            known = WORDS.get(word) or WORDS.get(word.rstrip("0123456789"))
            if known:
                return known
    return None


def better(value: float, other: float, mode: Mode) -> bool:
    """Return whether ``value`` is strictly better than ``other``; False when one of them is NaN.

    >>> better(0.1, 0.2, "min"), better(0.1, 0.1, "min"), better(float("nan"), 0.1, "max")
    (True, False, False)
    """
    return value < other if mode == "min" else value > other


def at_least_as_good(value: float, other: float, mode: Mode) -> bool:
    """Return whether ``value`` is as good as ``other`` or better; False when one of them is NaN.

    >>> at_least_as_good(0.9, 0.9, "max"), at_least_as_good(0.89, 0.9, "max")
    (True, False)
    """
    return value <= other if mode == "min" else value >= other


@dataclass
class Track:
    """What is remembered of the checks of one metric: all that an improvement rule needs, and that a restart must keep.

    >>> Track()
    Track(best=None, best_epoch=None, checks=0, bad=0)

    ``bad`` counts the checks since the best one, or since the first when none was an improvement.
    """

    best: float | None = None
    best_epoch: int | None = None
    checks: int = 0
    bad: int = 0

    @property
    def seen(self) -> bool:
        """Whether there was a check."""
        return self.checks > 0


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """What counts as an improvement; the one rule behind stopping, checkpointing and learning rate.

    >>> rule, track = Improvement(mode="min", min_delta=0.1), Track()
    >>> [rule.check(track, value, epoch) for epoch, value in enumerate([1.0, 0.95, 0.8, float("nan")])]
    [True, False, True, False]
    >>> track
    Track(best=0.8, best_epoch=2, checks=4, bad=1)

    A value must be better than the best by more than ``min_delta``, or with ``relative`` by more than that share of
    the best's absolute value. ``baseline`` stands in for the best until a value has beaten it. A tie is no improvement,
    NaN never is one, nor is the worst infinity. Arithmetic is in float64. ``habits`` are another library's, which
    decides otherwise; then ``min_delta`` may be negative.
    """

    mode: Mode
    min_delta: float = 0.0
    relative: bool = False
    baseline: float | None = None
    habits: Habits = OURS
    owner: str = "Improvement"

    def __post_init__(self) -> None:
        if self.habits is OURS:
            check_amount(self.min_delta, owner=self.owner, argument="min_delta", zero=True)
        else:
            check_number(self.min_delta, owner=self.owner, argument="min_delta")
        if not isinstance(self.relative, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{self.owner}: relative must be True or False, not {self.relative!r}")
        if self.baseline is not None:
            check_number(self.baseline, owner=self.owner, argument="baseline")

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether ``value`` is an improvement on ``best``, or on the baseline when there is no best yet.

        >>> Improvement(mode="max", min_delta=0.01, relative=True).improves(101.5, 100.0)
        True
        """
        habits = self.habits
        reference = self.baseline if best is None and not habits.apart else best
        if habits.first != "worst" and (reference is None or (habits.first == "zero" and reference == 0)):
            return True
        if reference is None and habits.margin != "best":
            return self.beats(value, worst(self.mode))
        if reference is None:
            reference = worst(self.mode)
        if habits.margin == "gap":
            return self.beats(value, reference) and abs(value - reference) > self.min_delta
        return self.beats(*self.shifted(value, reference))

    def shifted(self, value: float, reference: float) -> tuple[float, float]:
        """Return the two numbers to compare: ``min_delta`` makes one of them worse or better.

        >>> Improvement(mode="min", min_delta=0.5).shifted(1.0, 2.0)
        (1.5, 2.0)
        """
        toward = 1.0 if self.mode == "min" else -1.0
        if self.habits.margin == "best":
            if self.relative:
                return value, reference * (1.0 - toward * self.min_delta)
            return value, reference - toward * self.min_delta
        # Kept finite: an infinite share of an infinite best would turn every comparison into one with NaN.
        share = min(abs(reference), sys.float_info.max) if self.relative else 1.0
        delta = min(self.min_delta * share, sys.float_info.max)
        if self.habits.single == "all":
            value, delta = single(value), single(delta)
        return value + toward * delta, reference

    def beats(self, value: float, other: float) -> bool:
        """Return whether a value is better than another, or with such habits as good, after rounding.

        >>> near = 1.0 + 1e-9
        >>> [Improvement(mode="max", habits=Habits(single=one)).beats(near, 1.0) for one in ("nothing", "compared")]
        [True, False]
        """
        if self.habits.single != "nothing":
            value, other = single(value), single(other)
        return at_least_as_good(value, other, self.mode) if self.habits.ties else better(value, other, self.mode)

    def check(self, track: Track, value: float, epoch: int) -> bool:
        """Take one check into account and return whether it was an improvement."""
        track.checks += 1
        gained = improved = self.improves(value, track.best)
        anew = improved and (self.baseline is None or not self.habits.apart or self.improves(value, self.baseline))
        if self.habits.moving:
            track.best = worst(self.mode) if track.best is None else track.best
            gained = better(value, track.best, self.mode)
        if gained:
            track.best, track.best_epoch = float(value), epoch
        track.bad = 0 if anew else track.bad + 1
        return improved


def worst(mode: Mode) -> float:
    """Return the worst that a value can be.

    >>> worst("min")
    inf
    """
    return float("inf") if mode == "min" else float("-inf")
