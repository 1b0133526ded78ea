"""Ultralytics' own files, last.pt, best.pt and the like, written whole or not at all."""

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.atomic import replaced, write_atomically
from epochal.checkpointing.commit import remove_leftovers
from epochal.core.log import log

PLACES = ("last", "best", "wdir")
STRIP = "strip_optimizer"

if TYPE_CHECKING:
    Native = Path
else:
    Native = type(Path())  # until Python 3.12 only the system's own kind of path can be derived from


class AtomicPath(Native):
    """A path whose ``write_bytes`` replaces a file at once: a process killed in it leaves the old file or the new.

    >>> import tempfile
    >>> folder = AtomicPath(tempfile.mkdtemp())
    >>> (folder / "last.pt").write_bytes(b"weights"), (folder / "last.pt").read_bytes()
    (7, b'weights')

    Where the disk refuses, the file stays as it was, and it is logged: a training goes on.
    """

    def write_bytes(self, data: Any) -> int:
        """Write a temporary file beside it, force it to the disk, and give it the name."""
        try:
            return write_atomically(Path(self), data)
        except OSError as error:
            log().error(
                "%s could not be written: %s. It is as it was; the training goes on.", self, error.strerror or error
            )
            return 0


def own_files(trainer: Any) -> Callable[[], None]:
    """Let a trainer write its files so, and return what undoes it; what a killed one left half written goes."""
    with suppress(OSError):
        remove_leftovers(trainer.wdir)
    for name in PLACES:
        setattr(trainer, name, AtomicPath(getattr(trainer, name)))

    def leave() -> None:
        for name in PLACES:
            if isinstance(getattr(trainer, name), AtomicPath):
                setattr(trainer, name, Path(getattr(trainer, name)))

    return leave


def stripping(original: Any) -> Any:
    """Wrap ``final_eval``, which strips last.pt and best.pt, so that it replaces them at once."""

    def final_eval() -> Any:
        home = sys.modules[type(original.__self__).final_eval.__module__]
        strip = getattr(home, STRIP, None)
        if strip is None:
            return original()

        def strip_optimizer(f: Any = "best.pt", s: str = "", updates: dict[str, Any] | None = None) -> Any:
            def put(temporary: Path) -> Any:
                with unsaid(f" saved as {temporary},", f" saved as {s}," if s else ""):
                    return strip(f, s=str(temporary), updates=updates)

            return replaced(Path(s or f), put)

        setattr(home, STRIP, strip_optimizer)
        try:
            return original()
        finally:
            setattr(home, STRIP, strip)

    return final_eval


@contextmanager
def unsaid(words: str, better: str) -> Generator[None, None, None]:
    """Let Ultralytics' log say something better in the place of some words."""
    from ultralytics.utils import LOGGER

    def improve(record: logging.LogRecord) -> bool:
        record.msg = str(record.msg).replace(words, better)
        return True

    LOGGER.addFilter(improve)
    try:
        yield
    finally:
        LOGGER.removeFilter(improve)
