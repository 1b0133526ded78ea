"""The arena: one flat piece of memory into which a state is copied, so that the training can go on while it is written.

It is made at the first save and used again at each further one, so all snapshots together never need more memory than
one state. Source: snapshot and persist as two phases, CheckFreq (Mohan et al., FAST'21).
"""

import ctypes
import mmap
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from epochal.checkpointing.blob import Blob
from epochal.checkpointing.late import Late, Piece
from epochal.checkpointing.parts import Encoded
from epochal.checkpointing.spare import spare_memory
from epochal.checkpointing.streams import Pair, Streams

ALIGNED = 64
NOBODY: Collection[int] = frozenset()


class Place(NamedTuple):
    """Where one tensor of a state lies in the arena."""

    part: str
    name: str
    blob: Blob
    start: int


class Held(NamedTuple):
    """A state whose tensors lie in the arena: at once, those in ``late`` when these copies are made.

    ``await_devices`` waits until what GPUs copy has arrived; ``hold_back`` lets their next work come after that.
    """

    encoded: Encoded
    late: Late
    await_devices: Callable[[], None]
    hold_back: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        """Whether copies go on while the training does: ``join`` comes before anybody changes what is copied."""
        return bool(self.late) or self.hold_back is not None

    def join(self) -> None:
        """Make what is left of the copies; whatever changes from now on is in none of them."""
        self.late.copy()
        self.late.changed()
        if self.hold_back is not None:
            self.hold_back()


class Arena:
    """Memory for one state; ``hold`` copies a state into it, over the one before.

    >>> from epochal.checkpointing.parts import encode_parts
    >>> encoded = Encoded({}, {"a": {"b": Blob("U8", (3,), 3, lambda: memoryview(b"xyz"))}})
    >>> held = Arena().hold(encoded)
    >>> bytes(held.encoded.tensors["a"]["b"].data())
    b'xyz'
    """

    def __init__(self, spare: Callable[[], int | None] = spare_memory) -> None:
        self.spare = spare
        self.streams = Streams()
        self.size = 0
        self._buffer: mmap.mmap | None = None
        self._address = 0
        self._pinned = False

    def fits(self, encoded: Encoded) -> bool:
        """Say whether a state fits, with memory that is there or can be had: half of what is spare, at most."""
        more = _length(encoded) - self.size
        spare = self.spare() if more > 0 else None
        return spare is None or more <= spare // 2

    def reserve(self, encoded: Encoded) -> None:
        """Make the memory for a state and touch all of it, which is what takes the time; MemoryError as ``hold``."""
        if _length(encoded) > self.size:
            self._grow(_length(encoded))
            ctypes.memset(self._address, 0, self.size)

    def hold(self, encoded: Encoded, stepped: Collection[int] = NOBODY) -> Held:
        """Copy a state's tensors; those that begin at an address in ``stepped`` may be copied later.

        Raises MemoryError when there is no memory of that size.
        """
        places = list(_places(encoded))
        self._grow(_length(encoded))
        later: list[Piece] = []
        on_gpu: list[Pair] = []
        later_on_gpu: list[Pair] = []
        for place in places:
            start, blob, tensor = place.start, place.blob, place.blob.tensor
            if not blob.size:
                continue
            if tensor is None:
                self._memory()[start : start + blob.size] = blob.data()
                continue
            late = tensor.data_ptr() in stepped
            if is_plain(tensor):
                piece = _piece(place, self._address + start)
                later.append(piece) if late else piece.copy()
            elif tensor.is_cuda:
                (later_on_gpu if late else on_gpu).append((self._view(place), tensor))
                later += [_piece(place, None)] if late else []
            else:
                self._view(place).copy_(tensor)
        copied = self._copied(encoded.structures, places)
        if on_gpu or later_on_gpu:
            return self._held_on_gpu(copied, Late(later), on_gpu, later_on_gpu)
        return Held(copied, Late(later), _nothing)

    def _copied(self, structures: Mapping[str, Any], places: Iterable[Place]) -> Encoded:
        buffer = memoryview(self._memory())
        tensors: dict[str, dict[str, Blob]] = {}
        for part, name, blob, start in places:
            read = partial(buffer.__getitem__, slice(start, start + blob.size))
            tensors.setdefault(part, {})[name] = Blob(blob.dtype, blob.shape, blob.size, read)
        return Encoded(structures, tensors)

    def _held_on_gpu(self, copied: Encoded, late: Late, pairs: list[Pair], later: list[Pair]) -> Held:
        self._pin()
        events = self.streams.copy(pairs)
        self.streams.hold_back(events)
        open_events = self.streams.copy(later)

        def await_devices() -> None:
            for event in (*events, *open_events):
                event.synchronize()
            pairs.clear()  # until now the copies read from these tensors
            later.clear()

        return Held(copied, late, await_devices, partial(self.streams.hold_back, open_events) if later else None)

    def _memory(self) -> mmap.mmap:
        assert self._buffer is not None
        return self._buffer

    def _view(self, place: Place) -> Any:
        import torch

        tensor = place.blob.tensor
        count = tensor.numel()
        flat = torch.frombuffer(self._memory(), dtype=tensor.dtype, count=count, offset=place.start)
        return flat.view(tensor.shape)

    def _grow(self, size: int) -> None:
        if size <= self.size and self._buffer is not None:
            return
        self.release()
        self._buffer = _new_memory(max(size, mmap.PAGESIZE))
        self.size = len(self._buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    def _pin(self) -> None:
        """Let a GPU copy into this memory directly; where that is refused the copies only take longer."""
        if not self._pinned:
            import torch

            torch.cuda.cudart().cudaHostRegister(self._address, self.size, 0)  # pyright: ignore
            self._pinned = True

    def release(self) -> None:
        """Give the memory back, when the last state that lies in it is gone."""
        if self._pinned:
            import torch

            torch.cuda.cudart().cudaHostUnregister(self._address)  # pyright: ignore
            self._pinned = False
        self._buffer, self._address, self.size = None, 0, 0


def is_plain(tensor: Any) -> bool:
    """Say whether the bytes of a tensor are its memory on the host, as it stands.

    >>> import torch
    >>> is_plain(torch.zeros(2, 3)), is_plain(torch.zeros(2, 3).T)
    (True, False)
    """
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _piece(place: Place, address: int | None) -> Piece:
    tensor = place.blob.tensor
    version = 0 if tensor.is_inference() else tensor._version
    return Piece(f"{place.part}: {place.name}", tensor, version, address)


def _nothing() -> None:
    pass


def _places(encoded: Encoded) -> Iterator[Place]:
    start = 0
    for part, blobs in encoded.tensors.items():
        for name, blob in blobs.items():
            yield Place(part, name, blob, start)
            start += -(-blob.size // ALIGNED) * ALIGNED


def _length(encoded: Encoded) -> int:
    blobs = (blob for blobs in encoded.tensors.values() for blob in blobs.values())
    return sum(-(-blob.size // ALIGNED) * ALIGNED for blob in blobs)


def _new_memory(size: int) -> mmap.mmap:
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no {size} bytes for a snapshot") from error
    for name in ("MADV_HUGEPAGE", "MADV_DONTFORK"):  # fewer page faults; workers of a DataLoader need no copy of it
        advice = getattr(mmap, name, None)
        if advice is not None:
            try:
                memory.madvise(advice)
            except OSError:
                continue  # this kernel has none
    return memory
