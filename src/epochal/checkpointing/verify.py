"""Verification: is a checkpoint folder what was written, to the last bit."""

from dataclasses import dataclass
from pathlib import Path

from epochal.checkpointing.commit import CHUNK, checksum, commit_text
from epochal.checkpointing.layout import COMMIT, MANIFEST, FileRecord, Manifest, NewerFormat
from epochal.core.errors import CheckpointError


@dataclass(frozen=True)
class Verdict:
    """What a verification found: nothing, or every problem as a sentence.

    >>> print(Verdict(("model.safetensors is missing",)))
    model.safetensors is missing
    >>> bool(Verdict())
    True

    ``newer`` marks a format that this Epochal does not read yet, which is no damage. ``manifest`` is there whenever
    it could be read.
    """

    problems: tuple[str, ...] = ()
    newer: bool = False
    manifest: Manifest | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "; ".join(self.problems) or "complete and undamaged"


def verify(folder: str | Path) -> Verdict:
    """Read every byte of a checkpoint folder and compare it with the manifest.

    >>> str(verify("/no/such/folder"))
    'there is no folder /no/such/folder'
    """
    folder = Path(folder)
    first = verify_commit(folder)
    if first.manifest is None or not first.ok:
        return first
    found = [_problem(folder / name, record) for name, record in first.manifest.files.items()]
    return Verdict(tuple(one for one in found if one), manifest=first.manifest)


def verify_commit(folder: Path) -> Verdict:
    """Look at the manifest and ``COMMIT`` alone: is the folder committed; its tensors are not read."""
    if not folder.is_dir():
        return Verdict((f"there is no folder {folder}",))
    try:
        data = (folder / MANIFEST).read_bytes()
        seal = (folder / COMMIT).read_bytes()
    except FileNotFoundError as missing:
        return Verdict((f"{Path(str(missing.filename)).name} is missing: it was never finished",))
    except OSError as error:
        return Verdict((f"{Path(str(error.filename)).name} cannot be read: {error.strerror}",))
    if seal != commit_text(data):
        return Verdict((f"{COMMIT} does not belong to {MANIFEST}: one of them was changed after the commit",))
    try:
        return Verdict(manifest=Manifest.from_bytes(data))
    except NewerFormat as newer:
        return Verdict((str(newer),), newer=True)
    except CheckpointError as error:
        return Verdict((str(error),))


def _problem(path: Path, record: FileRecord) -> str | None:
    if not record.checksum.startswith("crc32:"):
        return f"{path.name} has a checksum of an unknown kind, {record.checksum!r}"
    try:
        size = path.stat().st_size
        if size != record.size:
            return f"{path.name} has {size} bytes, {record.size} were written"
        with open(path, "rb", buffering=0) as file:
            found = checksum(iter(lambda: file.read(CHUNK), b""))
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None if found == record.checksum else f"{path.name} is damaged: {found} instead of {record.checksum}"
