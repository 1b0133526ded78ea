"""The states of python's and NumPy's global generators, Mersenne Twisters both, fast enough to take in every batch."""

from collections.abc import Callable
from functools import cache
from typing import Any

SIZE = 4 + 4 * 624  # bytes of a Mersenne Twister: its words and where it stands in them


class Twister:
    """The state of a Mersenne Twister, taken out anew only when the bytes that hold it have changed.

    To take it out takes 15 us (python) and 70 us (NumPy), more when it has left the cache; a training does it in each
    batch.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self.view = memoryview(b"")
        self.forget()

    def forget(self) -> None:
        """Take it out the next time."""
        self.seen = b""
        self.last: Any = None

    def state(self, owner: object, address: int, take: Callable[[], Any], normal: int) -> Any:
        """Return what ``take`` returns; its ``normal``-th item is a second normal number that waits, or says so."""
        import ctypes

        if owner is not self.owner:
            self.owner, self.view = owner, memoryview((ctypes.c_ubyte * SIZE).from_address(address)).cast("B")
            self.forget()
        seen = self.view.tobytes()
        # A number that waits may be taken without a change of these bytes; none can come to wait so.
        if seen != self.seen or self.last[normal]:
            self.seen, self.last = seen, take()
        return self.last


_python, _numpy = Twister(), Twister()


def python_state() -> Any:
    """Return what ``random.getstate()`` returns.

    >>> import random
    >>> python_state() == random.getstate(), python_state() is python_state()
    (True, True)
    """
    import random

    owner: Any = getattr(random.getstate, "__self__", None)  # None: somebody has put a function of theirs there
    if owner is None or not _inline(type(owner)):
        return random.getstate()
    return _python.state(owner, id(owner) + object.__basicsize__, random.getstate, 2)


@cache
def _inline(kind: type) -> bool:
    """Say whether a generator's words lie in the object itself, as in CPython, behind where it stands in them."""
    import ctypes
    import struct

    one = kind(0)
    if kind.__basicsize__ < object.__basicsize__ + SIZE:
        return False
    words, place = ctypes.string_at(id(one) + object.__basicsize__, SIZE), one.getstate()[1]
    return words == struct.pack("625I", place[-1], *place[:-1])


def numpy_state(random: Any) -> Any:
    """Return what ``numpy.random.get_state()`` returns.

    >>> import numpy
    >>> numpy.random.seed(0)
    >>> numpy_state(numpy.random) is numpy_state(numpy.random)
    True
    """
    generator: Any = random.get_bit_generator() if hasattr(random, "get_bit_generator") else None
    if type(generator).__name__ != "MT19937":
        return random.get_state()
    return _numpy.state(generator, generator.ctypes.state_address, random.get_state, 3)


def forget() -> None:
    """Take both states out the next time: one was set, and maybe to another second normal number only."""
    _python.forget()
    _numpy.forget()
