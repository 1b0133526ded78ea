"""The arithmetic of learning rates: the trainer's schedule, a schedule of ours, overrides and factors."""

from collections.abc import Mapping
from typing import Any

from epochal.core.errors import ArgumentError, nearest


def check_rate(value: float, what: str) -> float:
    """Return the value if it can be a learning rate or a factor, else raise ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{what} must be a finite number >= 0, not {value!r}")
    return float(value)


class Rates:
    """What the learning rate of every group is, given what the trainer's own schedule says.

    An override replaces the schedule and all factors before it; a factor multiplies whatever is in effect, for good.

    >>> rates = Rates()
    >>> rates.scale(0.5)
    >>> rates.effective("pg0", 0.1)
    0.05
    >>> rates.override(0.2); rates.scale(0.5); rates.effective("pg0", 0.1)
    0.1
    >>> rates.override(None); rates.effective("pg0", 0.1)
    0.025
    """

    def __init__(self) -> None:
        self.scheduled: dict[str, float] = {}
        self.replaced: dict[str, float] = {}  # what stands in place of every schedule, ours too
        self.overrides: dict[str, float | None] = {}  # None: given back to the schedule, whatever all others are
        self.factors: dict[str, float] = {}
        self.factor_of_all = 1.0
        self.override_of_all: float | None = None
        self.active = False

    def effective(self, group: str, own: float) -> float:
        """Return the rate in effect for a group whose trainer says ``own``."""
        if not self.active:
            return own
        override = self.overrides.get(group, self.override_of_all)
        if override is not None:
            return override
        return self.replaced.get(group, self.own(group, own)) * self.factors.get(group, self.factor_of_all)

    def own(self, group: str, own: float) -> float:
        """Return what the schedule in charge gives a group, ours or else the trainer's ``own``."""
        return self.scheduled.get(group, own)

    def override(self, value: float | None, group: str | None = None) -> None:
        """Make the rate be ``value``; None gives it back to the schedule."""
        if group is None:
            self.overrides.clear()
            self.override_of_all = value
        else:
            self.overrides[group] = value
        self.active = True

    def scale(self, factor: float, group: str | None = None) -> None:
        """Multiply what is in effect, and what will be when an override is given back."""
        if group is None:
            self.factor_of_all *= factor
            self.factors = {name: value * factor for name, value in self.factors.items()}
            self.overrides = {name: value and value * factor for name, value in self.overrides.items()}
            if self.override_of_all is not None:
                self.override_of_all *= factor
        else:
            self.factors[group] = self.factors.get(group, self.factor_of_all) * factor
            override = self.overrides.get(group, self.override_of_all)
            if override is not None:
                self.overrides[group] = override * factor
        self.active = True

    def schedule(self, values: Mapping[str, float]) -> None:
        """Take the place of the trainer's own schedule for these groups; factors and overrides still count."""
        self.scheduled.update(values)
        self.active = True

    def replace(self, values: Mapping[str, float]) -> None:
        """Take the place of every schedule of these groups, whoever makes it; factors and overrides still count."""
        self.replaced.update(values)
        self.active = True

    def state_dict(self) -> dict[str, Any]:
        """Return overrides and factors; a schedule of ours is the state of the callback that computes it."""
        return {
            "overrides": dict(self.overrides),
            "override_of_all": self.override_of_all,
            "factors": dict(self.factors),
            "factor_of_all": self.factor_of_all,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.overrides = dict(state["overrides"])
        self.override_of_all = state["override_of_all"]
        self.factors = dict(state["factors"])
        self.factor_of_all = state["factor_of_all"]
        plain = self.override_of_all is None and self.factor_of_all == 1.0
        self.active = bool(self.overrides or self.factors) or not plain


def check_group(group: str | None, groups: Mapping[str, float]) -> None:
    """Raise ArgumentError unless the group exists."""
    if group is not None and groups and group not in groups:
        guess = nearest(group, groups)
        hint = f"; did you mean {guess!r}?" if guess else "."
        raise ArgumentError(f"there is no parameter group {group!r}{hint} Groups: {', '.join(groups)}")
