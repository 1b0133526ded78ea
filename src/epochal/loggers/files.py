"""Files that loggers append to: all or nothing, made again when they vanish, never overwritten by another training."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path


class LogFile:
    """A file that grows; no handle is kept, so a folder deleted in the middle of a training is noticed.

    Every change is all or nothing. When the file has vanished, the next change says so, once, with FileNotFoundError;
    the one after that begins it anew.

    >>> log = LogFile(Path("grows.txt"))
    >>> log.append(b"one line")
    >>> log.path.unlink()
    >>> log.append(b"another")
    Traceback (most recent call last):
    FileNotFoundError: grows.txt was deleted while it was written; what it held is gone, it is begun anew
    >>> log.append(b"another")
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = path.exists()

    def check(self) -> None:
        """Raise FileNotFoundError, once, when the file has vanished."""
        if self.began and not self.path.exists():
            self.began = False
            raise FileNotFoundError(
                f"{self.path} was deleted while it was written; what it held is gone, it is begun anew"
            )

    def append(self, data: bytes) -> None:
        """Add to the end."""
        self.check()
        append(self.path, data)
        self.began = True

    def replace(self, data: bytes) -> None:
        """Put ``data`` in the file's place."""
        self.check()
        replace(self.path, data)
        self.began = True


def append(path: Path, data: bytes) -> None:
    """Append all of ``data`` or nothing, making file and folder where they are missing; OSError leaves it as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def replace(path: Path, data: bytes) -> None:
    """Put ``data`` in the file's place, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def set_aside(path: Path) -> Path | None:
    """Rename the file of an earlier training to ``name.1.ext``, ``name.2.ext`` ...; return where it lies now."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return path.rename(aside)


def complete_lines(path: Path) -> list[str]:
    """Return the lines of a file, without a last one that a killed process left unfinished."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def keep_lines(path: Path, wanted: Callable[[str], bool]) -> None:
    """Leave only the complete lines that are wanted; the file is replaced in one step, and only if it changes."""
    if not path.exists():
        return
    kept = joined(line for line in complete_lines(path) if wanted(line))
    if kept != path.read_bytes():
        replace(path, kept)


def joined(lines: Iterable[str]) -> bytes:
    r"""Return lines as the bytes of a file.

    >>> joined(["a", "b"])
    b'a\nb\n'
    """
    return "".join(f"{line}\n" for line in lines).encode()
