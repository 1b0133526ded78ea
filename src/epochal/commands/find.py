"""RUN on the command line: a run's folder, its name below `runs`, or `latest`."""

import json
from pathlib import Path

from epochal.checkpointing.layout import FOLDER
from epochal.core.errors import CheckpointError, nearest
from epochal.integrations.ultralytics_resume import INNER
from epochal.runs.folder import MARK, runs_named

RUNS = Path("runs")


def run_folder(run: Path) -> Path:
    """Return the folder of a run that is told by its path, by its name below `runs`, or as `latest`.

    A path may also be the folder that YOLO made for the training: the run's lies in it.

    >>> run_folder(Path("nobody"))
    Traceback (most recent call last):
    epochal.core.errors.CheckpointError: there is no run nobody: neither a folder here nor a name among the 0 in runs/
    """
    if run.is_dir():
        return inner(run)
    marks = sorted(RUNS.rglob(MARK), key=lambda mark: mark.stat().st_mtime)
    if str(run) == "latest" and marks:
        return marks[-1].parent
    known = {name: mark.parent for mark in marks for name in (mark.parent.name, run_name(mark))}
    if run.name in known and run.name == str(run):
        return known[run.name]
    guess = nearest(run.name, known)
    hint = f"; did you mean {guess}?" if guess else f" among the {len(known)} in {RUNS}/"
    raise CheckpointError(f"there is no run {run}: neither a folder here nor a name{hint}")


def inner(folder: Path) -> Path:
    """Return the run's folder in one that YOLO made, the newest of several, else the folder itself."""
    is_run = (folder / MARK).exists() or (folder / FOLDER).is_dir()
    return folder if is_run else (runs_named(folder, INNER) or [folder])[-1]


def run_name(mark: Path) -> str:
    """Return a run's name as its mark tells it: the folder of a YOLO run is always called epochal."""
    try:
        return str(json.loads(mark.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return mark.parent.name


def store_folder(folder: Path) -> Path:
    """Return where a run's checkpoints lie; a folder of checkpoints is it itself."""
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder
