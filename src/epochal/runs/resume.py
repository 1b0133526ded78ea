"""From where a run goes on: the newest run of a name, or the run or checkpoint somebody names."""

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.layout import FOLDER
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import CheckpointError
from epochal.runs.folder import MARK, RunFolder, default_name, runs_named
from epochal.runs.process import refuse_if_trained

logger = logging.getLogger("epochal")
VARIABLE = "EPOCHAL_RESUME"


class ResumePoint(NamedTuple):
    """A run's folder, its checkpoints, and the one from which it goes on."""

    folder: RunFolder
    store: CheckpointStore
    saved: SavedCheckpoint
    chosen: bool = False  # somebody named this very checkpoint


def find_resume_point(
    parent: str | os.PathLike[str],
    name: str | None,
    resume: bool | str | os.PathLike[str] = False,
    *,
    seen: Collection[Path] = (),
) -> ResumePoint | None:
    """Return from where to go on, or None to start afresh, which is said when a resume was wanted.

    ``resume=True``: the newest run of this name in ``parent``; a path: that run or checkpoint, CheckpointError if
    there is none; False: what the environment variable EPOCHAL_RESUME says, if anything. ``seen``: the runs of this
    process, which ``resume=True`` leaves out.

    >>> find_resume_point(Path("runs-of-nobody"), "digits") is None
    True
    """
    wanted = os.environ.get(VARIABLE) or False if resume is False else resume
    if wanted is False:
        return None
    if wanted is not True:
        return at_path(Path(wanted).expanduser().absolute())
    base = name or default_name()
    runs = [run for run in runs_named(Path(parent), base) if run not in seen]
    point = at_run(runs[-1]) if runs else None
    if point is None:
        why = f"{runs[-1]} holds no checkpoint to go on from" if runs else f"there is no run {base!r} in {parent}"
        logger.warning("resume: %s; the training starts afresh.", why)
    return point


def at_run(folder: Path) -> ResumePoint | None:
    """Return the newest resume point of a run, or None; CheckpointError if a living process trains it."""
    refuse_if_trained(folder / MARK)
    store = CheckpointStore(folder / FOLDER)
    saved = store.newest_resume_point()
    return None if saved is None else found(folder, store, saved)


def at_path(path: Path) -> ResumePoint:
    """Return the resume point that a path names: of a run's newest checkpoint, or one checkpoint."""
    if not path.exists():
        raise CheckpointError(f"resume: there is no run or checkpoint at {path}")
    if path.parent.name == FOLDER:
        saved = checkpoint(path)
        if not saved.manifest.resume_point:
            raise CheckpointError(
                f"resume: {path} was taken inside an epoch, for export and rescue; resume its run, {path.parent.parent}"
            )
        refuse_if_trained(path.parent.parent / MARK)
        return found(path.parent.parent, CheckpointStore(path.parent), saved)._replace(chosen=True)
    point = at_run(path)
    if point is None:
        raise CheckpointError(f"resume: {path} holds no checkpoint to go on from")
    return point


def found(folder: Path, store: CheckpointStore, saved: SavedCheckpoint) -> ResumePoint:
    """Say from where the training goes on, and return it."""
    logger.info("resume: %s goes on after %s.", folder, saved.manifest.done)
    return ResumePoint(RunFolder(folder.parent, folder.name, fresh=False), store, saved)
