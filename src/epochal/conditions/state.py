"""State objects to plain values and back: what ``state_dict`` returns can be written as strict JSON."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Any, cast

from epochal.core.errors import ArgumentError

INFINITE = ("nan", "inf", "-inf")


def dump(state: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values; NaN and infinities become strings.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Seen:
    ...     best: float | None = None
    >>> dump(Seen(float("inf")))
    {'best': 'inf'}
    """
    return {one.name: _encode(getattr(state, one.name)) for one in fields(state)}


def load(state: Any, saved: Mapping[str, Any], *, owner: str) -> None:
    """Fill a dataclass in place from what ``dump`` returned; ``owner`` is named in errors.

    Raises ``ArgumentError`` when the names or the kinds of the saved values do not fit; then nothing was changed.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Seen:
    ...     best: float | None = None
    >>> seen = Seen()
    >>> load(seen, {"best": "inf"}, owner="Best('fitness')"); seen
    Seen(best=inf)
    """
    names = [one.name for one in fields(state)]
    check_names(saved, names, owner=owner)
    fresh = type(state)()
    values = {name: _decode(saved[name], getattr(fresh, name), f"{owner}: {name}") for name in names}
    for name, value in values.items():
        setattr(state, name, value)


def check_names(saved: object, names: list[str], *, owner: str) -> None:
    """Raise ``ArgumentError`` unless ``saved`` is a mapping with exactly these names.

    >>> check_names({"a": 1}, ["b"], owner="Best('fitness')")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: the saved state does not belong to Best('fitness'): it has ['a'], needed is ['b']
    """
    if not isinstance(saved, Mapping):
        raise ArgumentError(f"the saved state does not belong to {owner}: it is {saved!r}, needed is a mapping")
    has = sorted(str(name) for name in cast("Mapping[object, object]", saved))
    if has != sorted(names):
        raise ArgumentError(f"the saved state does not belong to {owner}: it has {has}, needed is {sorted(names)}")


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_encode(one) for one in cast("list[Any]", value)]
    return value


def _decode(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, list) and isinstance(value, list):
        return [_decode(one, 0.0, where) for one in cast("list[Any]", value)]
    if isinstance(default, (bool, int, str)) and type(value) is type(default):
        return value
    if default is None and (value is None or type(value) is int):
        return value
    if (default is None or isinstance(default, float)) and type(value) in (int, float):
        return float(value)
    if (default is None or isinstance(default, float)) and value in INFINITE:
        return float(value)
    raise ArgumentError(f"{where}: the saved state has {value!r}, which does not fit")
