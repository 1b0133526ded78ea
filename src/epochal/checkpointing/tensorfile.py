"""Tensor files in the safetensors format, written as a stream of bytes and read back with the standard library alone.

Format: 8 bytes little-endian length of the header; the header, a JSON object name -> dtype, shape, data_offsets; then
the data without gaps. Source: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

from epochal.checkpointing.blob import Blob
from epochal.core.errors import CheckpointError

HEADER_LIMIT = 100_000_000
PIECE = 256 << 10  # so much is compared at once: it fits the processor's cache
ITEM_SIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


def stream(blobs: Mapping[str, Blob]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor file, its header first; the widest types come first, so that all are aligned.

    >>> content = b"".join(stream({"a": Blob("U8", (3,), 3, lambda: memoryview(b"abc"))}))
    >>> content[8:].strip()
    b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}        abc'
    """
    names = sorted(blobs, key=lambda name: (-ITEM_SIZE[blobs[name].dtype], name))
    places: dict[str, object] = {}
    end = 0
    for name in names:
        blob = blobs[name]
        places[name] = {"dtype": blob.dtype, "shape": list(blob.shape), "data_offsets": [end, end + blob.size]}
        end += blob.size
    text = json.dumps(places, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 64 or 64)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield blobs[name].data()


class Entry(NamedTuple):
    """Where one tensor lies in its file; offsets are bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """An open tensor file; tensors are read one by one into memory that the reader brings.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.safetensors"
    >>> _ = path.write_bytes(b"".join(stream({"a": Blob("U8", (3,), 3, lambda: memoryview(b"abc"))})))
    >>> with TensorFile(path) as file:
    ...     into = bytearray(3)
    ...     file.read_into("a", memoryview(into))
    >>> bytes(into)
    b'abc'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by __exit__
        try:
            self.entries = _entries(path, self._file.read)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def entry(self, name: str) -> Entry:
        """Return where a tensor lies; `CheckpointError` when the file has none of that name."""
        try:
            return self.entries[name]
        except KeyError:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}") from None

    def read_into(self, name: str, target: memoryview) -> None:
        """Fill ``target``, which is as long as the tensor, with its bytes."""
        entry = self.entry(name)
        if target.nbytes != entry.stop - entry.start:
            raise CheckpointError(f"{self.path}: tensor {name!r} has another size than state.json says")
        self._file.seek(entry.start)
        done = 0
        while done < target.nbytes:
            count = self._file.readinto(target[done:])
            if not count:
                raise CheckpointError(f"{self.path} ends inside tensor {name!r}")
            done += count

    def holds(self, start: int, data: memoryview | bytes) -> bool:
        """Say whether these very bytes lie at ``start``; the first piece that differs ends the reading."""
        self._file.seek(start)
        whole, piece = memoryview(data), bytearray(PIECE)
        for done in range(0, len(whole), PIECE):
            part: Any = whole[done : done + PIECE]
            if len(part) < PIECE:
                piece = bytearray(len(part))
            if self._file.readinto(piece) != len(part) or piece != part:  # a bytearray compares as memcmp does
                return False
        return True


def _entries(path: Path, read: Any) -> dict[str, Entry]:
    total = os.stat(path).st_size
    length = int.from_bytes(read(8), "little")
    if length > min(HEADER_LIMIT, total - 8):
        raise CheckpointError(f"{path} is no tensor file: its header would be {length} bytes long")
    try:
        header = cast("dict[str, Any]", json.loads(read(length)))
        header.pop("__metadata__", None)
        return {name: _entry(one, 8 + length, total) for name, one in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has an unreadable header: {error!r}") from None


def _entry(one: Any, base: int, total: int) -> Entry:
    dtype, shape = str(one["dtype"]), tuple(int(size) for size in one["shape"])
    start, stop = (base + int(offset) for offset in one["data_offsets"])
    if not (base <= start <= stop <= total and stop - start == math.prod(shape) * ITEM_SIZE[dtype]):
        raise ValueError(f"a tensor {dtype} {shape} at bytes {start} to {stop} of {total}")
    return Entry(dtype, shape, start, stop)
