"""Opening a checkpoint outside a training."""

from pathlib import Path
from typing import Any, Literal

from epochal.checkpointing.layout import BAD, FOLDER
from epochal.checkpointing.listing import Listing, is_checkpoint, read_listing
from epochal.checkpointing.retention import ranked
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.verify import verify
from epochal.core.errors import ArgumentError, CheckpointError, nearest

Which = Literal["best", "last"] | str  # or the name of one


def checkpoint(path_or_run: Any, which: Which = "best") -> SavedCheckpoint:
    """Open a checkpoint of a run, verified: the best by fitness, the last, or the one of a name.

    >>> import tempfile
    >>> from epochal.checkpointing.store import CheckpointStore
    >>> store = CheckpointStore(tempfile.mkdtemp())
    >>> for epoch, fitness in enumerate([0.5, 0.9, 0.7]):
    ...     _ = store.save({"model": {"w": epoch}}, epoch=epoch, step=epoch, fitness=fitness)
    >>> checkpoint(store.directory).load("model"), checkpoint(store.directory, "last").load("model")
    ({'w': 1}, {'w': 2})
    >>> checkpoint(store.directory, "epoch-0000-step-000000").load("model")
    {'w': 0}

    ``path_or_run`` is a run (anything with ``.dir``), the folder of a run, of its checkpoints, or of one checkpoint.
    `CheckpointError` when there is none, or when it is damaged.
    """
    if not isinstance(which, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"which={which!r} is neither 'best' nor 'last' nor the name of a checkpoint")
    path = _folder(path_or_run)
    if is_checkpoint(path):
        return _open(path)
    directory = path / FOLDER if (path / FOLDER).is_dir() else path
    listing = read_listing(directory)
    if not listing.saved:
        raise CheckpointError(_nothing(directory, listing))
    if which == "last":
        return _open(listing.saved[-1].path)
    return _open(_best(directory, listing) if which == "best" else _named(directory, listing, which))


def _folder(path_or_run: Any) -> Path:
    if not isinstance(path_or_run, str | Path) and not hasattr(path_or_run, "dir"):
        raise ArgumentError(f"checkpoint() takes a path or a run, not {type(path_or_run).__name__}")
    path = Path(path_or_run if isinstance(path_or_run, str | Path) else path_or_run.dir).expanduser()
    if not path.exists():
        raise CheckpointError(f"there is no folder {path}")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file; give the folder of a run or of one checkpoint")
    return path


def _open(path: Path) -> SavedCheckpoint:
    verdict = verify(path)
    if not verdict.ok or verdict.manifest is None:
        raise CheckpointError(f"{path} cannot be used: {verdict}")
    return SavedCheckpoint(path, verdict.manifest)


def _named(directory: Path, listing: Listing, name: str) -> Path:
    names = [one.path.name for one in listing.saved]
    if name in (*names, *(path.name for path in listing.damaged)):
        return directory / name
    guess = nearest(name, names) or ", ".join(names[-3:])
    raise ArgumentError(f"which={name!r} is neither 'best' nor 'last' nor in {directory}; did you mean {guess}?")


def _best(directory: Path, listing: Listing) -> Path:
    order = ranked([one.manifest for one in listing.saved])
    name = order[0].name if order else read_pointer(directory / "best")
    found = [one for one in listing.saved if one.manifest.name == name]
    if not found:
        raise CheckpointError(f"no checkpoint in {directory} has a fitness, so none is best: checkpoint(..., 'last')")
    return found[0].path


def read_pointer(path: Path) -> str | None:
    """Return the folder name that a pointer file holds; it is a hint, so none is no error."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _nothing(directory: Path, listing: Listing) -> str:
    lines = [f"there is no committed checkpoint in {directory}"]
    lines += [f"{path.name}: {verdict}" for path, verdict in listing.damaged.items()]
    lines += [f"{path.name}: set aside as damaged" for path in directory.glob(BAD + "*")]
    return "\n".join(lines)
