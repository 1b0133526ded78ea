"""How a training was started: recorded in a run's mark, so that it can be started again."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from epochal.runs.environment import without_secrets

NAMES = ("command", "directory", "python", "processes", "base")


class Recorded(NamedTuple):
    """The arguments a training was started with, Python's own left out, in which directory, by which Python.

    ``command`` is None where no command started it (a notebook, a prompt), or none is recorded.
    """

    command: tuple[str, ...] | None = None
    directory: Path | None = None
    python: str | None = None
    processes: int = 1
    base: str | None = None  # the name that was asked for, before a number made it unique


def recorded() -> dict[str, Any]:
    """Return what a mark says of how this process was started.

    >>> sorted(recorded())
    ['command', 'directory', 'processes', 'python']
    """
    command = None if is_without_command(sys.orig_argv, sys.argv) else sys.orig_argv[1:]
    processes = os.environ.get("WORLD_SIZE", "1")
    return {
        "command": command,
        "directory": _directory(),
        "python": sys.executable,
        "processes": int(processes) if processes.isdecimal() else 1,
    }


def holds_secret(command: Sequence[str] | None) -> bool:
    """Say whether a command line holds what sounds like a secret, which only its owner may read then.

    >>> holds_secret(["train.py", "--token=abc"]), holds_secret(["train.py", "--tokenizer", "bert"])
    (True, False)
    """
    return command is not None and without_secrets(command) != list(command)


def is_without_command(original: Sequence[str], arguments: Sequence[str]) -> bool:
    """Say whether the same arguments would not start the same thing again.

    >>> is_without_command(["python", "train.py"], ["train.py"]), is_without_command(["python"], [""])
    (False, True)
    """
    if "ipykernel" in sys.modules or hasattr(sys, "ps1") or "--multiprocessing-fork" in original:
        return True
    return not arguments or arguments[0] in ("", "-")  # a prompt, or a script that came through a pipe


def read_recorded(mark: Path) -> Recorded:
    """Return what a run's mark says of how it was started; what cannot be read is left out.

    >>> read_recorded(Path("nowhere/run.json"))
    Recorded(command=None, directory=None, python=None, processes=1, base=None)
    """
    import json

    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Recorded()
    if not isinstance(about, dict):
        return Recorded()
    told = cast("dict[str, Any]", about)
    command, directory, python, processes, base = (told.get(name) for name in NAMES)
    return Recorded(
        tuple(map(str, cast("list[Any]", command))) if isinstance(command, list) else None,
        Path(directory) if isinstance(directory, str) else None,
        python if isinstance(python, str) else None,
        processes if isinstance(processes, int) else 1,
        base if isinstance(base, str) else None,
    )


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # somebody deleted it
        return None
