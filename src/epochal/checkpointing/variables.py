"""Weights that are variables, as Keras has them: named, saved as arrays, and loaded back by name or by their order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epochal.checkpointing.difference import describe_difference
from epochal.core.errors import CheckpointError


def has_variables(model: Any) -> bool:
    """Say whether this is a model of Keras 3.

    >>> has_variables([1, 2])
    False
    """
    return any(kind.__module__.startswith("keras.src.models") for kind in type(model).__mro__)


def named(variables: Iterable[Any]) -> dict[str, Any]:
    """Return variables by their paths, in their order; one that has another's path gets a number."""
    found: dict[str, Any] = {}
    for variable in variables:
        path = name = str(getattr(variable, "path", variable.name))
        number = 1
        while name in found:
            number += 1
            name = f"{path}#{number}"
        found[name] = variable
    return found


def arrays(variables: Iterable[Any]) -> dict[str, Any]:
    """Return what variables hold now, as arrays of numpy that share nothing with them."""
    import numpy

    return {name: numpy.array(variable.numpy()) for name, variable in named(variables).items()}


def matched(saved: Mapping[str, Any], variables: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each variable with what was saved of it; CheckpointError, naming what differs, when they do not fit.

    A model made anew has other names than the one before it in the same process, so where names differ their order
    counts.
    """
    now = named(variables)
    if saved.keys() == now.keys():
        pairs = {name: (variable, saved[name]) for name, variable in now.items()}
    elif len(saved) == len(now):
        pairs = dict(zip(now, zip(now.values(), saved.values(), strict=True), strict=True))
    else:
        raise CheckpointError(
            describe_difference(saved, now) or "" if saved.keys() & now.keys() else by_place(saved, now)
        )
    held = {name: value for name, (_, value) in pairs.items()}
    differs = describe_difference(held, {name: variable for name, (variable, _) in pairs.items()})
    if differs:
        raise CheckpointError(differs)
    return list(pairs.values())


def by_place(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in how many variables two models differ, and from where on, where no name says it.

    >>> by_place({"dense": [[1.0]]}, {})
    '1 variables were saved, 0 are here; the first that differs is variable 0'
    """
    shapes = [[tuple(getattr(one, "shape", ())) for one in side.values()] for side in (saved, now)]
    same = next((place for place, (one, other) in enumerate(zip(*shapes, strict=False)) if one != other), None)
    place = min(map(len, shapes)) if same is None else same
    return f"{len(saved)} variables were saved, {len(now)} are here; the first that differs is variable {place}"


def load_variables(saved: Any, model: Any) -> None:
    """Load a checkpoint's weights into a model of Keras; CheckpointError, with nothing loaded, if it is another."""
    if not model.built and not model.weights:  # a GAN has no `call` that could build it, its networks may stand
        raise CheckpointError(f"{type(model).__name__} has no weights yet; call model.build(...) or train it first")
    try:
        pairs = matched(saved.load("model"), model.weights)
    except CheckpointError as error:
        raise CheckpointError(f"{saved.path} belongs to another model; nothing was loaded:\n{error}") from None
    for variable, value in pairs:
        variable.assign(value)
