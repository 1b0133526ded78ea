"""The writer: one thread that makes a copied state a checkpoint while the training goes on."""

import os
import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from epochal.checkpointing.arena import NOBODY, Arena, Held
from epochal.checkpointing.layout import About
from epochal.checkpointing.parts import Encoded
from epochal.core.background import Background

if TYPE_CHECKING:
    from epochal.checkpointing.store import CheckpointStore

Ended = Callable[[Exception | None], None]


class Changed(Exception):  # no error of anybody's: the copy is dropped
    """Tensors, by their names, were changed in place while they were being copied."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class Writer:
    """Writes one state at a time, from an arena into which it was copied; there is never a second one waiting.

    >>> import tempfile
    >>> from epochal.checkpointing.parts import encode_parts
    >>> from epochal.checkpointing.store import CheckpointStore
    >>> store = CheckpointStore(tempfile.mkdtemp())
    >>> writer = Writer(store)
    >>> _ = writer.write(encode_parts({"run": {"step": 3}}), {"epoch": 0, "step": 3}, print)
    >>> writer.flush(), writer.close(), store.checkpoints.last.load("run")
    None
    (True, None, {'step': 3})

    The thread begins with the first state and ends with ``close``. A process that was forked off has neither.
    """

    def __init__(self, store: "CheckpointStore") -> None:
        self.store = store
        self.arena = Arena()
        self.process = os.getpid()
        self._background: Background | None = None
        self._written: threading.Event | None = None  # of the state that is in the arena

    @property
    def busy(self) -> bool:
        """Whether a state is still being written."""
        return self._written is not None and not self._written.is_set()

    def fits(self, encoded: Encoded) -> bool:
        """Say whether there is memory for a copy of a state."""
        return self.arena.fits(encoded)

    def write(
        self,
        encoded: Encoded,
        about: About,
        ended: Ended,
        *,
        stepped: Collection[int] = NOBODY,
        committed: Callable[[], None] | None = None,
    ) -> Held:
        """Copy a state and write it from now on; ``ended`` is called on the thread, with the error if there is one.

        Call it when not ``busy``. Tensors at an address in ``stepped`` are copied in the background: until
        ``held.late.copy()`` has returned nobody may change them; somebody who does makes the error a `Changed`. Raises
        MemoryError when there is no room for a copy.
        """
        held = self.arena.hold(encoded, stepped)
        written = threading.Event()
        self._written = written
        try:
            self._start().do(partial(self._work, held, about, ended, committed, written), patience=60.0)
        except BaseException:  # it may be in the queue all the same: the arena is free behind it
            if self._background is None:
                written.set()
            else:
                self._background.do(written.set, patience=60.0)
            raise
        return held

    def reserve(self, encoded: Encoded) -> None:
        """Make the memory for a state of this size, on the thread; as long it is ``busy``."""
        made = threading.Event()
        self._written = made
        self._start().do(partial(self._reserve, encoded, made), patience=60.0)

    def flush(self, limit: float | None = None) -> bool:
        """Wait until nothing is being written, or so many seconds; say whether that is so."""
        return self._written is None or self._written.wait(limit)

    def close(self) -> None:
        """End the thread and give the memory back; what is still being written then is given up with the process."""
        background, self._background = self._background, None
        if background is not None and background.close(limit=5.0 if not self.busy else 0.0):
            self.arena.release()

    def _start(self) -> Background:
        if self._background is None:
            self._background = Background("checkpoints", waiting=2)
        return self._background

    def _reserve(self, encoded: Encoded, made: threading.Event) -> None:
        try:
            self.arena.reserve(encoded)
        except MemoryError:
            pass  # the save tells
        finally:
            made.set()

    def _work(
        self, held: Held, about: About, ended: Ended, committed: Callable[[], None] | None, written: threading.Event
    ) -> None:
        error: Exception | None = None

        def confirm() -> None:
            if changed := held.late.changed():
                raise Changed(changed)

        try:
            held.late.copy()
            held.await_devices()
            self.store.write(held.encoded, about, confirm=confirm, committed=committed)
        except Exception as failed:
            error = failed
        try:
            ended(error)
        finally:
            written.set()
