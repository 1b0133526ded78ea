"""Where a run keeps its files: a folder with a name of its own, made when the first file is written."""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from epochal.core.errors import ArgumentError, CheckpointError
from epochal.core.log import log
from epochal.runs.command import holds_secret, recorded
from epochal.runs.process import launch, this_process

MARK = "run.json"
making = threading.Lock()  # one for all folders: they are copied and pickled


def default_name() -> str:
    """Return the name of a run nobody named: the script's stem, "notebook" in one."""
    if "ipykernel" in sys.modules:
        return "notebook"
    script = Path(sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python")
    return script.parent.name if script.stem == "__main__" else script.stem or "python"


def is_taken(path: Path) -> bool:
    """Say whether something lies there already."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def free_file(folder: Path, stem: str, suffix: str) -> Path:
    """Return the path of a file that is not there yet: ``stem-1``, ``stem-2`` ...

    >>> free_file(Path("runs-of-nobody"), "hang", ".txt").name
    'hang-1.txt'
    """
    number = 1
    while (path := folder / f"{stem}-{number}{suffix}").exists():
        number += 1
    return path


class RunFolder:
    """A run's folder ``parent/name``, with -2, -3 ... when that is taken; ``make`` creates and marks it.

    >>> RunFolder(Path("runs-of-nobody"), "digits").path.name
    'digits'
    """

    def __init__(self, parent: str | os.PathLike[str] = "runs", name: str | None = None, *, fresh: bool = True) -> None:
        if name is not None and (not name or name == ".." or Path(name).name != name):
            raise ArgumentError(f"name={name!r} must be one folder's name, without a path; the path goes into dir=")
        self.parent, self.fresh = Path(parent).absolute(), fresh
        self.command = recorded()  # now: a script may change its directory before the first file is written
        self.base = name or default_name()
        self.path = self.parent / self.base
        self.made = False
        if fresh:
            self.choose()

    def claim(self) -> None:
        """Write the mark, which only one process can; one that comes second goes on to the next free name.

        The mark of a run that goes on stays and tells of this process from now on.
        """
        import json
        from datetime import UTC, datetime

        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            about = {"name": self.name, "base": self.base, "created": datetime.now(UTC).isoformat()}
            about |= this_process() | self.command | {"launch": launch()}
            try:
                with open(self.path / MARK, "x", encoding="utf-8", opener=self.opener) as mark:
                    mark.write(json.dumps(about, indent=2) + "\n")
            except FileExistsError:
                if self.fresh and not self.made and self.choose():
                    continue
                self.rewrite(this_process())
            return

    def opener(self, name: str, flags: int) -> int:
        """Open the mark, for others to read unless the command line, which resuming needs, holds a secret."""
        return os.open(name, flags, 0o600 if holds_secret(self.command["command"]) else 0o666)

    def leave(self) -> None:
        """Write down that this process trains the run no more: who resumes it need not wait for the process' end."""
        if self.made:
            self.rewrite({"started": None}, of=os.getpid())

    def rewrite(self, changes: Mapping[str, Any], *, of: int | None = None) -> None:
        """Change what the mark says, if it can be read and, where ``of`` names one, tells of that process."""
        import json

        from epochal.checkpointing.commit import write_pointer

        mark = self.path / MARK
        try:
            about = json.loads(mark.read_text(encoding="utf-8"))
            if isinstance(about, dict) and of in (None, cast("dict[str, Any]", about).get("pid")):
                write_pointer(mark, json.dumps({**about, **changes}, indent=2), mode=mark.stat().st_mode & 0o777)
        except (OSError, ValueError) as error:  # it is gone, torn or not ours to write: no reason to end a training
            log().debug("%s stays as it is: %s", mark, error)

    def choose(self) -> bool:
        """Go on to the next free name if this one is taken by now, and say whether that was so."""
        before, number = self.path, 1
        while is_taken(self.path):
            number += 1
            self.path = self.parent / f"{self.base}-{number}"
        return self.path != before

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def make(self) -> Path:
        """Make the folder and its mark, if they are not there, and return it; CheckpointError where it cannot be."""
        with making:  # the run's store makes it on a thread of its own
            if self.made and (self.path / MARK).exists():  # somebody may have cleared it away meanwhile
                return self.path
            try:
                self.claim()
            except OSError as error:
                raise CheckpointError(
                    f"the run's folder {self.path} cannot be written: {error.strerror or error};"
                    " choose another with dir=, or free the way"
                ) from error
            self.made = True
            return self.path


def runs_named(parent: Path, name: str) -> list[Path]:
    """Return the folders of runs that were given this name, oldest first."""
    import json

    found: list[tuple[str, Path]] = []
    for mark in Path(parent).glob(f"*/{MARK}"):
        try:
            about = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(about, dict):
            continue
        about = cast("dict[str, Any]", about)
        if about.get("base") == name or mark.parent.name == name:
            found.append((str(about.get("created", "")), mark.parent))
    return [path for _, path in sorted(found)]
