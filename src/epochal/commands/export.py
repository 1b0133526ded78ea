"""`epochal export`: the weights of a checkpoint as one file of a usual kind."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from epochal.checkpointing.atomic import replaced
from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.core.errors import CheckpointError, MissingExtra


class Kind(StrEnum):
    """What an exported file is."""

    pt = "pt"
    safetensors = "safetensors"
    ultralytics = "ultralytics"


SUFFIX = {Kind.pt: ".pt", Kind.safetensors: ".safetensors", Kind.ultralytics: ".pt"}


def export(folder: Path, kind: Kind, *, which: str, part: str, out: Path | None, force: bool, name: str) -> str:
    """Write one part of a checkpoint as a file, whole or not at all, and say what was written.

    CheckpointError when the file is there already and ``force`` is off, or the part cannot be said in such a file.
    """
    saved = checkpoint(folder, which)
    target = Path(f"{name}-{which}{SUFFIX[kind]}") if out is None else out
    if target.is_dir() or (target.exists() and not force):
        raise CheckpointError(f"{target} is there already; choose another with --out, or --force to replace the file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[kind](saved, part, target)
    except OSError as error:
        raise CheckpointError(f"{target} could not be written: {error.strerror or error}") from error
    fitness = "" if saved.manifest.fitness is None else f", fitness {saved.manifest.fitness:.4g}"
    return f"{target}: {part} of {saved.manifest.name}{fitness}"


def write_pt(saved: SavedCheckpoint, part: str, target: Path) -> None:
    """Write a part as ``torch.save`` does; of weights it is what ``torch.load(..., weights_only=True)`` reads."""
    torch = _torch()
    tree = saved.load(part)

    def put(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save(tree, file)

    replaced(target, put)


def write_safetensors(saved: SavedCheckpoint, part: str, target: Path) -> None:
    """Write a part's tensors under their names; tied ones are written under each name, as any reader expects."""
    torch = _torch()
    tree = saved.load(part)
    others = [name for name, value in tree.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"{part}[{others[0]!r}] of {saved.path} is no tensor; safetensors files hold nothing else: use --to pt"
        )
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise MissingExtra("safetensors", "pytorch", "exporting safetensors") from None
    tensors = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tree.items()}
    replaced(target, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))


def write_yolo(saved: SavedCheckpoint, part: str, target: Path) -> None:
    """Write the averaged weights of a YOLO run as Ultralytics' own file."""
    from epochal.integrations.ultralytics_file import write_ultralytics

    if part != "model":
        raise CheckpointError(f"--to ultralytics writes the part model, not {part}: leave --part out, or use --to pt")
    write_ultralytics(saved, target)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "pytorch", "exporting weights") from None
    return torch


_WRITERS: dict[Kind, Callable[[SavedCheckpoint, str, Path], None]] = {
    Kind.pt: write_pt,
    Kind.safetensors: write_safetensors,
    Kind.ultralytics: write_yolo,
}
