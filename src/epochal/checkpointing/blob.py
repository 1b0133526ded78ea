"""A blob: the bytes of one tensor on their way into a tensor file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Blob:
    """One tensor to be written: its type in the safetensors' vocabulary, its shape, and where its bytes come from.

    >>> Blob("U8", (3,), 3, lambda: memoryview(b"abc")).data().tobytes()
    b'abc'

    ``data`` is called while the file is written, so that one tensor at a time needs memory on the host, and before that
    where it is compared with what lies on the disk. The bytes are little-endian, the last dimension contiguous.
    ``tensor`` is the torch tensor they are of, if any: it can be copied in other ways.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int
    data: Callable[[], memoryview]
    tensor: Any = field(default=None, compare=False, repr=False)
