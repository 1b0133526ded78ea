"""What differs between a saved state and the one it should go into, in words."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

LINES = 8


def describe_difference(saved: Mapping[str, Any], current: Mapping[str, Any], *, limit: int = LINES) -> str | None:
    """Return what differs between two states, one line each, or None when one fits the other.

    >>> print(describe_difference({"fc.weight": [[1.0]], "old": 1}, {"fc.weight": [[1.0]], "new": 1}))
    new: missing in the checkpoint
    old: only in the checkpoint

    Names and shapes of a model's state are compared; for an optimizer's state (it has ``param_groups``) its class,
    where both sides tell it under ``"class"``, the number of groups, their sizes and their options.
    """
    if "param_groups" in saved and "param_groups" in current:
        return _few(_optimizers(saved, current), limit)
    return _few([*missing(saved, current), *unexpected(saved, current), *reshaped(saved, current)], limit)


def missing(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line for each name that the checkpoint lacks."""
    return [f"{name}: missing in the checkpoint" for name in current if name not in saved]


def unexpected(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line for each name that only the checkpoint has."""
    return [f"{name}: only in the checkpoint" for name in saved if name not in current]


def reshaped(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line for each name whose shape differs; what has no shape fits everything."""
    both = [(name, _shape(saved[name]), _shape(one)) for name, one in current.items() if name in saved]
    return [f"{name}: saved {old}, model {new}" for name, old, new in both if None not in (old, new) and old != new]


def few(lines: Iterable[str], limit: int = LINES) -> str:
    """Return the first lines, and how many more there are.

    >>> print(few(["a", "b", "c"], limit=2))
    a
    b
    and 1 more
    """
    every = list(lines)
    rest = [f"and {len(every) - limit} more"] if len(every) > limit else []
    return "\n".join([*every[:limit], *rest])


def _few(lines: list[str], limit: int) -> str | None:
    return few(lines, limit) if lines else None


def _optimizers(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    old_class, new_class = saved.get("class"), current.get("class")
    if old_class and new_class and old_class != new_class:
        return [f"optimizer: saved {old_class}, current {new_class}"]
    old, new = _groups(saved), _groups(current)
    if len(old) != len(new):
        return [f"parameter groups: saved {len(old)}, current {len(new)}"]
    lines: list[str] = []
    for index, (before, after) in enumerate(zip(old, new, strict=True)):
        sizes = len(before.get("params", ())), len(after.get("params", ()))
        if sizes[0] != sizes[1]:
            lines.append(f"parameter group {index}: saved {sizes[0]} parameters, current {sizes[1]}")
        lost = sorted(set(after) - set(before))
        if lost and set(before) - set(after) - {"initial_lr"}:  # a scheduler adds initial_lr
            lines.append(f"parameter group {index}: saved without {', '.join(lost)}: another kind of optimizer")
    return lines


def _groups(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(cast("Iterable[Mapping[str, Any]]", state["param_groups"]))


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        shape = getattr(value, "shape", None)
    except RuntimeError:  # a lazy parameter has none before its first batch
        return None
    return None if shape is None else tuple(shape)
