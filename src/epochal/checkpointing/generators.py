"""Random generators that data carries with it, besides the global ones: found and set back."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

DEPTH = 7  # loader, subset, data set, composed transforms, their list, one of them, its generator
LONGEST = 64  # a longer list holds samples, not parts
PLAIN = (
    list.__iter__,
    tuple.__iter__,
)  # one with an iteration of its own may do anything in it: fetch data, be used up


def restorer(*things: object) -> Callable[[], None]:
    """Remember the random generators inside these things; what is returned sets them back.

    >>> import random
    >>> class Noisy:
    ...     def __init__(self):
    ...         self.source = random.Random(3)
    >>> data = Noisy()
    >>> back = restorer(data)
    >>> first = data.source.random()
    >>> back()
    >>> data.source.random() == first
    True

    Generators of python, numpy and torch are found in attributes, lists and mappings, as deep as data sets inside data
    loaders keep them.
    """
    seen: dict[int, object] = {}
    undo = [(one, state_of(one)) for thing in things for _, one in generators(thing, DEPTH, seen)]

    def restore() -> None:
        for one, state in undo:
            set_state(one, state)

    return restore


def named_generators(thing: object) -> dict[str, Any]:
    """Return the random generators inside a thing by where they are, each once.

    >>> import random
    >>> list(named_generators([random.Random(1), {"noise": random.Random(2)}]))
    ['.0', '.1.noise']
    """
    return dict(generators(thing, DEPTH, {}))


def generators(thing: object, depth: int, seen: dict[int, object], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every random generator that can be reached from a thing, and its path."""
    if id(thing) in seen or depth < 0 or isinstance(thing, (str, bytes, int, float, type, type(sys))):
        return
    seen[id(thing)] = thing
    if is_generator(thing):
        yield path, thing
        return
    for name, inner in parts(thing):
        yield from generators(inner, depth - 1, seen, f"{path}.{name}")


def parts(thing: object) -> list[tuple[Any, Any]]:
    """Return what a thing is made of, with its names."""
    if isinstance(thing, Mapping) or getattr(type(thing), "__iter__", None) in PLAIN:
        several = cast("Mapping[Any, Any] | list[Any]", thing)
        if len(several) > LONGEST:
            return []
        return list(several.items() if isinstance(several, Mapping) else enumerate(several))
    # A data loader's workers are no part of it.
    return [(name, one) for name, one in getattr(thing, "__dict__", {}).items() if name != "_iterator"]


def is_generator(thing: Any) -> bool:
    """Say whether this is a random generator of python, numpy or torch."""
    return (
        (hasattr(thing, "getstate") and hasattr(thing, "setstate") and hasattr(thing, "random"))
        or (hasattr(thing, "get_state") and hasattr(thing, "set_state"))
        or hasattr(thing, "bit_generator")
    )


def state_of(generator: Any) -> Any:
    """Return the state of a random generator, sharing nothing with it.

    >>> import random
    >>> source = random.Random(3)
    >>> state = state_of(source)
    >>> first = source.random()
    >>> set_state(source, state)
    >>> source.random() == first
    True
    """
    if hasattr(generator, "bit_generator"):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if hasattr(generator, "getstate") else generator.get_state()


def set_state(generator: Any, state: Any) -> None:
    """Set a random generator back to a state."""
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    elif hasattr(generator, "setstate"):
        generator.setstate(state)
    else:
        generator.set_state(state)
