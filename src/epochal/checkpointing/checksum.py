"""A checksum computed on a second thread while the bytes are being written: both let other threads run meanwhile."""

import queue
import threading
import zlib
from types import TracebackType

AHEAD = 8  # pieces that may wait
ALONE = 1 << 20  # bytes from which on a thread is worth its start


class Checksum:
    """The crc32 of pieces added one after the other, ready when the ``with`` is left.

    >>> with Checksum() as checksum:
    ...     checksum.add(memoryview(b"a"))
    ...     checksum.add(memoryview(b"bc"))
    >>> str(checksum)
    'crc32:352441c2'
    """

    def __init__(self) -> None:
        self.value = 0
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(maxsize=AHEAD)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Checksum":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()

    def __str__(self) -> str:
        return f"crc32:{self.value:08x}"

    def add(self, piece: memoryview) -> None:
        """Count a piece in; its bytes must stay as they are until the end."""
        if self._thread is None and piece.nbytes < ALONE:
            self.value = zlib.crc32(piece, self.value)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="epochal checksum", daemon=True)
            self._thread.start()
        self._pieces.put(piece)

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self.value = zlib.crc32(piece, self.value)
