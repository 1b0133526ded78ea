"""Random generators that data carries with it, besides the global ones: found and set back."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

DEPTH = 7  # loader, subset, data set, composed transforms, their list, one of them, its generator
LONGEST = 64  # a longer list holds samples, not parts


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
    found = [one for thing in things for one in generators(thing, DEPTH, seen)]
    undo = [remembered(one) for one in found]

    def restore() -> None:
        for call in undo:
            call()

    return restore


def generators(thing: object, depth: int, seen: dict[int, object]) -> Iterator[Any]:
    """Yield every random generator that can be reached from a thing."""
    if id(thing) in seen or depth < 0 or isinstance(thing, (str, bytes, int, float, type, type(sys))):
        return
    seen[id(thing)] = thing
    if is_generator(thing):
        yield thing
        return
    for inner in parts(thing):
        yield from generators(inner, depth - 1, seen)


def parts(thing: object) -> list[Any]:
    """Return what a thing is made of."""
    if isinstance(thing, Mapping):
        values = list(cast("Mapping[Any, Any]", thing).values())
    elif isinstance(thing, (list, tuple)):
        values = cast("list[Any]", thing)
    else:
        return list(getattr(thing, "__dict__", {}).values())
    return list(values) if len(values) <= LONGEST else []


def is_generator(thing: Any) -> bool:
    """Say whether this is a random generator of python, numpy or torch."""
    return (
        (hasattr(thing, "getstate") and hasattr(thing, "setstate") and hasattr(thing, "random"))
        or (hasattr(thing, "get_state") and hasattr(thing, "set_state"))
        or hasattr(thing, "bit_generator")
    )


def remembered(generator: Any) -> Callable[[], None]:
    """Return a call that sets one generator back to where it is now."""
    if hasattr(generator, "bit_generator"):
        bits, state = generator.bit_generator, copy.deepcopy(generator.bit_generator.state)
        return lambda: setattr(bits, "state", state)
    if hasattr(generator, "getstate"):
        state = generator.getstate()
        return lambda: generator.setstate(state)
    state = generator.get_state()
    return lambda: generator.set_state(state)
