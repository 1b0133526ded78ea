"""RUN on the command line: a run's folder, its name below `runs`, or `latest`."""

import json
from pathlib import Path

from epochal.checkpointing.layout import FOLDER
from epochal.core.errors import CheckpointError, nearest
from epochal.integrations.ultralytics_resume import INNER
from epochal.runs.folder import MARK, runs_named

RUNS = Path("runs")
LATEST = "latest"


def run_folder(run: Path) -> Path:
    """Return the folder of a run that is told by its path, by its name below `runs`, or as `latest`.

    A path may also be the folder that YOLO made for the training: the run's lies in it. A folder that is no run's does
    not hide a run of its name, and a name that several runs have is refused: nobody is to stop another's training.

    >>> run_folder(Path("nobody"))
    Traceback (most recent call last):
    epochal.core.errors.CheckpointError: there is no run nobody: neither a folder here nor a name among the 0 in runs/
    """
    is_folder = run.is_dir()
    if is_folder and is_run(folder := inner(run)):
        return folder
    marks = sorted(RUNS.rglob(MARK), key=lambda mark: mark.stat().st_mtime)
    found = named(str(run), [mark.parent for mark in marks])
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(map(str, found))
        raise CheckpointError(f"there are {len(found)} runs called {run}: {places}; tell its folder instead")
    if is_folder:
        return inner(run)
    if str(run) == LATEST and marks:
        return marks[-1].parent
    known = {name for mark in marks for name in (mark.parent.name, run_name(mark))}
    guess = nearest(run.name, [*known, LATEST] if marks else known)
    hint = f"; did you mean {guess}?" if guess else f" among the {len(known)} in {RUNS}/"
    raise CheckpointError(f"there is no run {run}: neither a folder here nor a name{hint}")


def named(name: str, folders: list[Path]) -> list[Path]:
    """Return the runs of a name, by their folders' or else as they say; of several in one YOLO folder the newest."""
    found = [one for one in folders if one.name == name] or [one for one in folders if run_name(one / MARK) == name]
    newest = {one.parent if one.name.startswith(INNER) else one: one for one in found}
    return list(newest.values())


def inner(folder: Path) -> Path:
    """Return the run's folder in one that YOLO made, the newest of several, else the folder itself."""
    return folder if is_run(folder) else (runs_named(folder, INNER) or [folder])[-1]


def is_run(folder: Path) -> bool:
    """Say whether a folder is a run's, or holds checkpoints as one does."""
    return (folder / MARK).exists() or (folder / FOLDER).is_dir()


def run_name(mark: Path) -> str:
    """Return a run's name as its mark tells it: the folder of a YOLO run is always called epochal."""
    try:
        return str(json.loads(mark.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return mark.parent.name


def store_folder(folder: Path) -> Path:
    """Return where a run's checkpoints lie; a folder of checkpoints is it itself."""
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder
