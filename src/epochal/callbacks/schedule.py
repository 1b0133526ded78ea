"""The base of all schedules of the learning rate, and the arithmetic and checks they share."""

from collections.abc import Callable, Mapping
from math import cos, pi
from typing import Literal

from epochal.conditions.arguments import check_amount, check_count
from epochal.core.errors import ArgumentError

Shape = Literal["linear", "cosine"]
Span = int | float


class Schedule:
    """A learning rate per parameter group, given what is done of the training; subclass it and write ``rate``.

    >>> class Halving(Schedule):
    ...     def rate(self, base, done, total):
    ...         return base / 2**done
    >>> Halving().rates({"pg0": 0.1}, 3, None)
    {'pg0': 0.0125}

    ``base`` is a group's own rate at the start of training. ``done`` is the number of epochs, or of optimizer steps,
    done so far: 0 for the first. ``total`` is the planned number of them, None where nobody knows. Steps of training
    beyond the planned number keep the last rate.
    """

    @property
    def needs_total(self) -> bool:
        """Whether ``rate`` cannot do without ``total``: True unless the schedule has a length of its own."""
        return getattr(self, "length", None) is None

    def rate(self, base: float, done: int, total: int | None) -> float:
        """Return the rate of a group."""
        raise NotImplementedError(f"{type(self).__name__} has neither rate(base, done, total) nor rates of its own")

    def rates(self, base: Mapping[str, float], done: int, total: int | None) -> dict[str, float]:
        """Return the rate of every group."""
        return {group: self.rate(own, done, total) for group, own in base.items()}


def between(start: float, end: float, part: float, shape: Shape) -> float:
    """Return the value a share of the way from ``start`` to ``end``, along a line or half a cosine.

    >>> between(1.0, 0.0, 0.25, "linear"), between(1.0, 0.0, 0.5, "cosine")
    (0.75, 0.5)
    """
    if part >= 1:
        return end
    way = part if shape == "linear" else (1 - cos(pi * part)) / 2
    return start + (end - start) * way


def share(done: int, length: int | None) -> float:
    """Return which share of ``length`` is done, at most 1.

    >>> share(3, 4), share(9, 4)
    (0.75, 1.0)
    """
    return min(done / length, 1.0) if length else 1.0


def span(value: Span, total: int | None) -> int:
    """Return a number of epochs or steps that may have been given as a share of all.

    >>> span(5, None), span(0.1, 50)
    (5, 5)
    """
    return round(value * (total or 0)) if isinstance(value, float) else value


def ramp(done: int, length: int, start: float | None) -> float:
    """Return the factor of a linear warm-up: ``start`` at 0, 1 at ``length``.

    >>> [ramp(done, 3, None) for done in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    first = 1 / (length + 1) if start is None else start
    return first + (1 - first) * done / length


def number(value: object, done: int, function: Callable[[int], float]) -> float:
    """Return what a user's function gave as a float, or raise ArgumentError if it can be no rate."""
    what = getattr(function, "__qualname__", repr(function))
    if hasattr(value, "get_last_lr"):
        raise ArgumentError(
            f"LearningRate: {what} makes a scheduler; call its parameter `optimizer` to have it used as one"
        )
    return check_amount(value, owner="LearningRate", argument=f"what {what}({done}) returns", zero=True)


def check_length(length: int | None, owner: str) -> None:
    """Raise ArgumentError unless a length is None or a number of epochs or steps."""
    if length is not None:
        check_count(length, owner=owner, argument="length")


def check_span(value: Span, owner: str, argument: str) -> None:
    """Raise ArgumentError unless this is a whole number, or a share below 1."""
    if not isinstance(value, float):
        if value != 0:
            check_count(value, owner=owner, argument=argument)
    elif not 0 <= value < 1:
        raise ArgumentError(f"{owner}: {argument} is a whole number, or a share of the training below 1, not {value!r}")


def check_start(start: float | None, owner: str) -> None:
    """Raise ArgumentError unless a warm-up can begin there."""
    if start is not None:
        check_amount(start, owner=owner, argument="start", zero=True)


def check_shape(shape: object, owner: str) -> None:
    """Raise ArgumentError unless the shape is known."""
    if shape not in ("linear", "cosine"):
        raise ArgumentError(f'{owner}: shape must be "linear" or "cosine", not {shape!r}')
