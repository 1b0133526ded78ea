"""The commit: a folder that is either there wholly, on the disk itself, or not at all.

Write every file into a temporary folder beside its future place and fsync it; the manifest; ``COMMIT``; fsync the
folder; rename it; fsync the parent. At whatever instant the process or the machine dies, the folder under its final
name is complete, and what came before it is untouched.
"""

import errno
import itertools
import os
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from epochal.checkpointing.checksum import Checksum
from epochal.checkpointing.layout import COMMIT, MANIFEST, FileRecord, Manifest

CHUNK = 4 << 20
_COUNT = itertools.count(1)
_TEMPORARY = re.compile(r"\.tmp-epochal-(?P<pid>\d+)-(?P<token>[0-9a-f]+)-(?P<host>[A-Za-z0-9_.]*)-.*")

Content = Iterable[bytes | memoryview]


class Linked(NamedTuple):
    """A file that lies on this disk already, byte for byte; ``content`` is what is written where links are refused."""

    path: Path
    record: FileRecord
    content: Content


def commit(
    directory: Path, files: Mapping[str, Content | Linked], describe: Callable[[Mapping[str, FileRecord]], Manifest]
) -> Manifest:
    """Write a checkpoint folder into ``directory``, all or nothing; ``describe`` makes its manifest.

    Whatever goes wrong, no trace is left and the error is raised as it came (an OSError for disks and permissions).
    """
    make_folder(directory)
    temporary = directory / temporary_name("save")
    try:
        temporary.mkdir()
        with ExitStack() as written:  # the disk begins with the first file while the last is still being written
            records = {name: _put(temporary / name, content, written) for name, content in files.items()}
        manifest = describe(records)
        data = manifest.to_bytes()
        for name, text in ((MANIFEST, data), (COMMIT, commit_text(data))):
            with ExitStack() as written:
                _write(temporary / name, [text], written)
        sync_folder(temporary)
        final = directory / manifest.name
        if final.exists():  # rename would silently replace an empty folder
            raise FileExistsError(errno.EEXIST, "a folder of this name is there already", str(final))
        os.rename(temporary, final)
    except BaseException:
        _delete(temporary)
        raise
    try:
        sync_folder(directory)
    except OSError:  # whether the new name would survive a power cut is unknown: better no checkpoint than a maybe
        remove(final)
        raise
    return manifest


def commit_text(manifest: bytes) -> bytes:
    """Return what ``COMMIT`` holds for a manifest: its sha256, in hexadecimal, and a line end.

    >>> commit_text(b"")[:12]
    b'e3b0c44298fc'
    """
    import hashlib

    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def checksum(content: Content) -> str:
    """Return the checksum of some bytes as it stands in a manifest.

    >>> checksum([b"a", b"bc"])
    'crc32:352441c2'
    """
    value = 0
    for piece in content:
        value = zlib.crc32(piece, value)
    return f"crc32:{value:08x}"


def write_pointer(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Replace a small text file at once; it is a hint, so it is not forced to the disk. ``mode``: who may read it."""
    temporary = path.parent / temporary_name(path.name)
    try:
        with open(temporary, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove(folder: Path) -> None:
    """Delete a committed folder; it loses its name first, so that a half-deleted one never looks like a checkpoint."""
    doomed = folder.parent / temporary_name("delete")
    os.rename(folder, doomed)
    _delete(doomed)


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files of writers that died on this machine; those of living ones and other hosts are left."""
    for entry in os.scandir(directory):
        match = _TEMPORARY.fullmatch(entry.name)
        if match is None or _may_live(match["host"], int(match["pid"]), match["token"]):
            continue
        if entry.is_dir(follow_symlinks=False):
            _delete(entry.path)
        else:
            Path(entry.path).unlink(missing_ok=True)


def temporary_name(what: str) -> str:
    """Return a name no other writer uses, which tells who made it."""
    return f".tmp-epochal-{os.getpid()}-{_token()}-{_host()}-{next(_COUNT)}-{what}"


def make_folder(directory: Path) -> None:
    """Make a folder and those above it, and force their names to the disk."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk (Windows has no such call and needs none)."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(path: Path, content: Content | Linked, written: ExitStack) -> FileRecord:
    if not isinstance(content, Linked):
        return _write(path, content, written)
    try:
        os.link(content.path, path)
    except OSError:  # a file system without links, too many of them, or the file before is gone
        return _write(path, content.content, written)
    return replace(content.record, linked=True)


def _write(path: Path, content: Content, written: ExitStack) -> FileRecord:
    """Write a file that is forced to the disk when ``written`` is left, without an error."""
    size = 0
    file = written.enter_context(_synced(path))
    with Checksum() as checksum:
        for piece in content:
            whole = memoryview(piece)
            for start in range(0, len(whole), CHUNK):
                part = whole[start : start + CHUNK]
                checksum.add(part)
                file.write(part)
                size += len(part)
        file.flush()
    return FileRecord(size, str(checksum))


@contextmanager
def _synced(path: Path) -> Generator[BinaryIO, None, None]:
    with open(path, "wb", buffering=1 << 20) as file:
        yield file
        _sync_file(file.fileno())


def _sync_file(handle: int) -> None:
    os.fsync(handle)
    if sys.platform == "darwin":  # there fsync stops at the drive's cache
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)


def _delete(folder: str | os.PathLike[str]) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@cache
def _token() -> str:
    return os.urandom(6).hex()


@cache
def _host() -> str:
    import socket

    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())


def _may_live(host: str, pid: int, token: str) -> bool:
    if host == _host() and pid == os.getpid():  # a container starts again with the same process number
        return token == _token()
    if host != _host() or sys.platform == "win32":  # nobody can tell from here
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
