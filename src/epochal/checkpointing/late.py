"""Copies that need not be made at once: of tensors that nothing but an optimizer's step changes."""

import ctypes
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """A contiguous tensor on the CPU, what it is called, its version, and the address that its bytes are copied to.

    Without an address somebody else copies it, and only its version counts.
    """

    name: str
    tensor: Any
    version: int
    address: int | None

    def copy(self) -> None:
        """Copy it; other threads run meanwhile."""
        if self.address is not None:
            ctypes.memmove(self.address, self.tensor.data_ptr(), self.tensor.numel() * self.tensor.element_size())


class Late:
    """Copies made by whoever comes first: the writer's thread, or the training's, when it must change the tensors.

    >>> late = Late([])
    >>> late.copy(), late.changed()
    (None, [])

    A copy is good if its tensor had the same version, which every change in place raises, from the snapshot until it
    was copied. ``changed`` says which were not, once for all: what comes after its first answer counts no more.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces: Sequence[Piece] = tuple(pieces)
        self.left = deque(self.pieces)
        self.lock = threading.Lock()
        self.verdict: list[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def copy(self) -> None:
        """Make what is left of the copies; when it returns all are made."""
        while True:
            with self.lock:
                if not self.left:
                    return
                self.left.popleft().copy()

    def changed(self) -> list[str]:
        """Return the names of tensors that somebody changed before their copies were wanted no more."""
        with self.lock:
            if self.verdict is None:
                self.verdict = [one.name for one in self.pieces if one.tensor._version != one.version]
                self.pieces = ()
            return self.verdict
