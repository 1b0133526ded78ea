"""The list as it was the last time: who starts again reads only the runs that have changed since."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from epochal.core.log import log
from epochal.dashboard.private_files import read_private, write_private

WORTH = 50  # runs; fewer are read as fast


class Remembered(NamedTuple):
    """What the list said of a run that was over: its JSON, its state, and the signature of its file."""

    id: str
    text: str
    state: str
    signature: tuple[int, ...]


def remember(file: Path, told: Iterable[Remembered]) -> None:
    """Write down what the list says, where it is worth it; a folder that cannot be written costs nothing but time.

    >>> remember(Path("nowhere/list.json"), [])
    """
    known = list(told)
    if len(known) < WORTH:
        return
    try:
        write_private(file, json.dumps({"epochal": version("epochal"), "runs": known}))
    except OSError as error:
        log().debug("%s is not written: %s", file, error)


def recall(file: Path) -> list[Remembered]:
    """Return what was written down; nothing where another version did, or it cannot be read.

    >>> recall(Path("nowhere/list.json"))
    []
    """
    try:
        about = json.loads(read_private(file))
        if about["epochal"] != version("epochal"):
            return []
        return [
            Remembered(str(one), str(text), str(state), tuple(map(int, at))) for one, text, state, at in about["runs"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
