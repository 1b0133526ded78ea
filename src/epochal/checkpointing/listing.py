"""The listing: what lies in a folder of checkpoints, read from its manifests."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from epochal.checkpointing.layout import COMMIT, MANIFEST
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.verify import Verdict, verify_commit


@dataclass(frozen=True)
class Listing:
    """The committed checkpoints, oldest first, and the folders that claim to be one and are not.

    >>> read_listing(Path("/no/such/folder"))
    Listing(saved=[], damaged={})
    """

    saved: list[SavedCheckpoint] = field(default_factory=list[SavedCheckpoint])
    damaged: dict[Path, Verdict] = field(default_factory=dict[Path, Verdict])


def read_listing(directory: Path) -> Listing:
    """Read the manifests of all checkpoint folders; temporary, set-aside and foreign folders are passed over."""
    listing = Listing()
    if not directory.is_dir():
        return listing
    for folder in directory.iterdir():
        if folder.name.startswith(".") or not is_checkpoint(folder):
            continue
        verdict = verify_commit(folder)
        if verdict.manifest is None:
            listing.damaged[folder] = verdict
        else:  # a folder that somebody copied or renamed goes by its new name
            listing.saved.append(SavedCheckpoint(folder, replace(verdict.manifest, name=folder.name)))
    listing.saved.sort(key=lambda one: (one.manifest.serial, one.manifest.created, one.manifest.name))
    return listing


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder claims to be a checkpoint."""
    return (folder / MANIFEST).is_file() or (folder / COMMIT).is_file()
