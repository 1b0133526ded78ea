"""Checks of the arguments that conditions share: names, whole numbers, plain numbers."""

from math import isfinite, isnan
from numbers import Integral, Real

from epochal.core.errors import ArgumentError


def check_metric(name: object, *, owner: str, argument: str = "metric") -> None:
    """Raise ``ArgumentError`` unless ``name`` can be the name of a metric.

    >>> check_metric(5, owner="Plateau")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Plateau: metric must be the name of a metric, such as "val/loss", not 5
    """
    if not isinstance(name, str) or not name.strip():
        raise ArgumentError(f'{owner}: {argument} must be the name of a metric, such as "val/loss", not {name!r}')


def check_count(value: object, *, owner: str, argument: str) -> None:
    """Raise ``ArgumentError`` unless ``value`` is a whole number of at least 1 (a bool is none).

    >>> check_count(0, owner="Plateau", argument="patience")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Plateau: patience must be a whole number of at least 1, not 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ArgumentError(f"{owner}: {argument} must be a whole number of at least 1, not {value!r}")


def check_whole(value: object, *, owner: str, argument: str) -> None:
    """Raise ``ArgumentError`` unless ``value`` is a whole number of at least 0 (a bool is none).

    >>> check_whole(-1, owner="EarlyStopping", argument="patience")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: EarlyStopping: patience must be a whole number of at least 0, not -1
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ArgumentError(f"{owner}: {argument} must be a whole number of at least 0, not {value!r}")


def check_number(value: object, *, owner: str, argument: str) -> float:
    """Return ``value`` as a float; raise ``ArgumentError`` when it is no number or NaN (infinities are allowed).

    >>> check_number(float("nan"), owner="Target", argument="value")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Target: value must be a number, not nan
    """
    if isinstance(value, bool) or not isinstance(value, Real) or isnan(value):
        raise ArgumentError(f"{owner}: {argument} must be a number, not {value!r}")
    return float(value)


def check_amount(value: object, *, owner: str, argument: str, zero: bool = False) -> float:
    """Return ``value`` as a float; raise ``ArgumentError`` unless it is finite and above 0 (or 0 when ``zero``).

    >>> check_amount(-1, owner="Plateau", argument="min_delta", zero=True)
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Plateau: min_delta must be a finite number of at least 0, not -1
    """
    number = check_number(value, owner=owner, argument=argument)
    if not isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ArgumentError(
            f"{owner}: {argument} must be a finite number {'of at least' if zero else 'above'} 0, not {value!r}"
        )
    return number
