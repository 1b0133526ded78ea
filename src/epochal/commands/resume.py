"""`epochal resume`: the command that started a training, once more, to go on from its newest resume point."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from epochal.checkpointing.listing import read_listing
from epochal.commands.find import store_folder
from epochal.core.errors import CheckpointError
from epochal.integrations.ultralytics_resume import ENDED
from epochal.runs.command import Recorded, read_recorded
from epochal.runs.folder import MARK, runs_named
from epochal.runs.process import refuse_if_trained
from epochal.runs.resume import VARIABLE


class Restart(NamedTuple):
    """What is run, where, and from which checkpoint the training goes on."""

    folder: Path
    command: Sequence[str]
    directory: Path
    point: str
    newer: Path | None  # a newer run of the same name: a script with resume=True would take that one

    @property
    def line(self) -> str:
        """The command as it would be typed into a shell."""
        return f"{VARIABLE}={shlex.quote(str(self.folder))} {shlex.join(self.command)}"


def restart(folder: Path) -> Restart:
    """Return how a run's training is started again; CheckpointError says what to do where it cannot be."""
    folder = folder.absolute()
    refuse_if_trained(folder / MARK)
    if (folder / ENDED).exists():
        raise CheckpointError(f"{folder} is done: all its epochs are trained, there is nothing to go on with")
    points = [one for one in read_listing(store_folder(folder)).saved if one.manifest.resume_point]
    if not points:
        raise CheckpointError(f"{folder} holds no checkpoint to go on from; start its script again")
    recorded = read_recorded(folder / MARK)
    why = _by_hand(recorded)
    if why is not None or recorded.command is None or recorded.directory is None:
        raise CheckpointError(
            f"{why}; start it yourself as you did then, with {VARIABLE}={shlex.quote(str(folder))} in its environment,"
            f" or with resume={str(folder)!r} in its code"
        )
    python = recorded.python if recorded.python and shutil.which(recorded.python) else sys.executable
    now = points[-1].manifest
    point = f"{now.name}, after {now.done}"
    newest = runs_named(folder.parent, recorded.base or folder.name)[-1:]
    newer = newest[0] if newest and newest[0] != folder else None
    return Restart(folder, [python, *recorded.command], recorded.directory, point, newer)


def start(again: Restart) -> NoReturn:
    """Become the training: its signals and its exit status are the command's."""
    environment = {**os.environ, VARIABLE: str(again.folder)}
    sys.stdout.flush()
    if sys.platform == "win32":  # where exec would return to the shell at once
        sys.exit(subprocess.run(again.command, cwd=again.directory, env=environment, check=False).returncode)
    os.chdir(again.directory)
    os.execvpe(again.command[0], list(again.command), environment)


def _by_hand(recorded: Recorded) -> str | None:
    """Return why the record does not say how to start the training again; None where it does."""
    if recorded.command is None:
        return "no command is recorded for this run: it was started from a notebook, a prompt, or by an older Epochal"
    if recorded.processes > 1:
        return f"this run had {recorded.processes} processes, which a launcher started"
    if recorded.directory is None or not recorded.directory.is_dir():
        return f"the directory {recorded.directory} that it was started in is gone"
    return None
