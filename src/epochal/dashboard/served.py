"""The served folder: which runs lie in it, and how one of them is opened; only what was found can be asked for."""

import os
import re
import sqlite3
import threading
from base64 import urlsafe_b64encode
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISLNK
from time import monotonic, time_ns
from typing import NamedTuple

from epochal.core.errors import EpochalError
from epochal.runs.catalog import DEEPEST
from epochal.runs.schema import BESIDE, FILE, StoreError
from epochal.runs.stored import StoredRun
from epochal.runs.summary import signature

__all__ = ["TROUBLE", "Served", "rank_of", "ranks", "reading", "refuse_links", "signature"]

LONGEST = 20.0  # seconds that reading a run may take: a file from elsewhere may hold views that never end
TROUBLE = (EpochalError, sqlite3.Error, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
RANK = re.compile(r"[1-9][0-9]{0,5}")
OF_RANK = re.compile(rf"run-({RANK.pattern})\.db")
FRESH = 2 * 10**9  # nanoseconds during which a folder may change again without a newer time


class Folder(NamedTuple):
    """What a folder held when it was last read."""

    modified: int
    fresh: bool  # it may have changed since then and look the same
    is_run: bool
    inside: tuple[Path, ...]


class Served:
    """The runs below a folder by their ids; a look again reads only the folders that have changed.

    >>> Served(Path("runs-of-nobody")).look()
    {}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.prefix = os.path.join(self.folder, "")
        self.known: dict[Path, Folder] = {}
        self.found: dict[str, Path] = {}
        self.lock = threading.Lock()

    def look(self) -> dict[str, Path]:
        """Return the runs' folders by their ids, as they are now; symbolic links are not followed."""
        with self.lock:
            before, self.known = self.known, {}
            self.found = {self.id_of(path): path for path in self.runs(self.folder, before, 0)}
            return self.found

    def runs(self, place: Path, before: dict[Path, Folder], depth: int) -> Iterator[Path]:
        """Yield the folders with a store, at ``place`` and below."""
        known = before.get(place)
        if known is None or not known.is_run:
            known = read(place, known)
        elif os.path.islink(place) or not os.path.exists(f"{place}/{FILE}"):
            known = read(place, None)
        if known is None:
            return
        self.known[place] = known
        if known.is_run:
            yield place
        elif depth < DEEPEST:
            for folder in known.inside:
                yield from self.runs(folder, before, depth + 1)

    def id_of(self, path: Path) -> str:
        """Return a run's id: its path below the served folder, in letters that no path has a meaning for.

        >>> served = Served(Path("runs"))
        >>> served.id_of(served.folder / "digits")
        'ZGlnaXRz'
        """
        return urlsafe_b64encode(os.fsencode(self.below(path))).rstrip(b"=").decode("ascii")

    def below(self, path: Path) -> str:
        """Return a path in the served folder as it is below it, "." for itself."""
        return str(path)[len(self.prefix) :].replace(os.sep, "/") or "."

    def run(self, id: str) -> StoredRun:  # noqa: A002  # the API's word
        """Return the run of an id; KeyError where none was found under it."""
        own, rank = rank_of(id)
        path = self.found.get(own) or self.look().get(own)
        if path is None:
            raise KeyError(id)
        return StoredRun(path, rank=rank)

    def path_of(self, run: StoredRun) -> str:
        """Return a run's path below the served folder, to be shown."""
        return self.below(run.path)


def rank_of(id: str) -> tuple[str, int]:  # noqa: A002  # the API's word
    """Return the id of a run and the rank that an id asks for; rank 0 where it names none.

    >>> rank_of("ZGlnaXRz.3"), rank_of("ZGlnaXRz")
    (('ZGlnaXRz', 3), ('ZGlnaXRz', 0))
    """
    own, dot, rank = id.partition(".")
    return (own, int(rank)) if dot and RANK.fullmatch(rank) else (id, 0)


def ranks(run: StoredRun) -> list[int]:
    """Return the ranks that keep a file in a run's folder, rank 0 first."""
    found = (OF_RANK.fullmatch(one.name) for one in run.path.glob("run-*.db"))
    return [0, *sorted(int(one[1]) for one in found if one)]


def read(place: Path, known: Folder | None) -> Folder | None:
    """Return what a folder holds, ``known`` if it has not changed; None where it cannot be read."""
    try:
        about = os.stat(place, follow_symlinks=False)
        if S_ISLNK(about.st_mode):
            return None
        modified = about.st_mtime_ns
        if known is not None and known.modified == modified and not known.fresh:
            return known
        with os.scandir(place) as found:
            inside = list(found)
        is_run = any(one.name == FILE and one.is_file(follow_symlinks=False) for one in inside)
        folders = [
            Path(one.path) for one in inside if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
        ]
    except OSError:
        return None
    return Folder(modified, time_ns() - modified < FRESH, is_run, tuple(folders))


@contextmanager
def reading(run: StoredRun, limit: float = LONGEST) -> Generator[sqlite3.Connection]:
    """Give a connection for reading a run for so many seconds; StoreError where that cannot be, or must not."""
    refuse_links(run.file)
    until = monotonic() + limit
    with run.reading() as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.set_progress_handler(lambda: monotonic() > until, 10_000)
        yield connection


def refuse_links(file: Path) -> None:
    """Raise StoreError if a file, one that SQLite opens with it, or a folder on the way, is a symbolic link."""
    folder = str(file.parent)
    if os.path.realpath(folder) != folder:
        raise StoreError(f"{folder} is reached through a symbolic link: those are not followed")
    for ending in BESIDE:
        if os.path.islink(f"{file}{ending}"):
            raise StoreError(f"{file.name}{ending} is a symbolic link: those are not followed")
