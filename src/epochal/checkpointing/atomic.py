"""One file, replaced at once: whoever is killed in it leaves the old file or the new, whole."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epochal.checkpointing.commit import sync_folder, temporary_name


def write_atomically(path: Path, data: Any) -> int:
    """Write a file whole or not at all, and return its length; OSError where the disk refuses.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
    >>> write_atomically(path, b"weights"), path.read_bytes()
    (7, b'weights')
    """
    return replaced(path, lambda temporary: temporary.write_bytes(data))


def replaced(path: Path, put: Callable[[Path], Any]) -> Any:
    """Let ``put`` write a temporary file, force it to the disk and give it a name; return what ``put`` returned."""
    temporary = path.parent / temporary_name(path.name)
    try:
        result = put(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return result
