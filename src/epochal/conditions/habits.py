"""Habits: in what the libraries differ when they say that a value is better."""

from array import array
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How somebody decides that a value is better than the best; the defaults are ours.

    >>> Habits() == OURS
    True

    single
        What is rounded to float32: nothing, the two numbers that are "compared", or "all" numbers on the way there.
    margin
        What ``min_delta`` is: added to the "value" before it is compared, to the "best", or a "gap" that must lie
        between the two.
    first
        What the first value must beat: the "worst" infinity, or nothing, so that "any" value is the best, NaN too.
        "zero": any value, for as long as the best is 0.
    moving
        The best moves with every gain, also with one that is too small to be an improvement.
    ties
        A value as good as the best is an improvement.
    apart
        A baseline is no best to begin with: it must be beaten too before bad checks are counted anew.
    """

    single: Literal["nothing", "compared", "all"] = "nothing"
    margin: Literal["value", "best", "gap"] = "value"
    first: Literal["worst", "any", "zero"] = "worst"
    moving: bool = False
    ties: bool = False
    apart: bool = False


OURS = Habits()


def single(value: float) -> float:
    """Return the nearest float32; what is too large becomes infinite.

    >>> single(0.1), single(1e39)
    (0.10000000149011612, inf)
    """
    return array("f", (value,))[0]
