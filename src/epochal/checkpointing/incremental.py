"""What did not change since the checkpoint before is not written again: its files are linked.

A tensor file all of whose tensors are as they were gets a second name (a hard link). Where only some are as they
were, this save splits them off into a file of their own, which can be linked from the next save on. So each folder
holds everything, and deleting one takes nothing from another.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from epochal.checkpointing.blob import Blob
from epochal.checkpointing.commit import Content, Linked
from epochal.checkpointing.layout import FileRecord, part_of, tensor_file
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.tensorfile import TensorFile, stream
from epochal.core.errors import CheckpointError

WORTH = 1 << 20  # bytes; below, a copy costs no more than a link, and a copy is the safer
FILES = 8  # of one part; a model that is frozen layer by layer must not end in a file per layer
PATIENCE = 16  # saves

Blobs = Mapping[str, Blob]


class Incremental:
    """Decides for each save which tensor files are written and which are linked; remembers what keeps changing.

    >>> Incremental().files({"model": {"w": Blob("U8", (3,), 3, lambda: memoryview(b"abc"))}}, None).keys()
    dict_keys(['model.safetensors'])

    Unchanged means: of the same bytes as those on the disk, read again. A tensor that was found changed is not
    compared in the next save, then not in the next 2, 4, 8, 16: a training in which all changes pays next to nothing.
    """

    def __init__(self) -> None:
        self._moving: dict[tuple[str, str], tuple[int, int]] = {}  # saves still to wait, saves waited for this time

    def files(self, tensors: Mapping[str, Blobs], before: SavedCheckpoint | None) -> dict[str, Content | Linked]:
        """Return the tensor files of a save by their names; ``before`` is the checkpoint it is compared with."""
        files: dict[str, Content | Linked] = {}
        for part, blobs in tensors.items():
            files |= self._part(part, blobs, {} if before is None else _large(part, before))
        return files

    def _part(self, part: str, blobs: Blobs, there: Mapping[Path, FileRecord]) -> dict[str, Content | Linked]:
        whole: dict[Path, Blobs] = {}
        settled: dict[str, Blob] = {}
        for path, record in there.items():
            same = self._same(part, path, blobs)
            if _is_whole(path, record, same):
                whole[path] = same
            else:
                settled |= same
        moving = {
            name: blob for name, blob in blobs.items() if not any(name in one for one in (settled, *whole.values()))
        }
        if len(whole) + 2 > FILES:  # all that is settled goes into one file again
            settled, whole = {name: blob for one in (settled, *whole.values()) for name, blob in one.items()}, {}
        if sum(blob.size for blob in settled.values()) < WORTH:
            settled, moving = {}, {**moving, **settled}
        linked = {path.name: Linked(path, there[path], stream(same)) for path, same in whole.items()}
        return {**linked, **_written(part, (moving, settled), taken=linked.keys())}

    def _same(self, part: str, path: Path, blobs: Blobs) -> dict[str, Blob]:
        """Return those tensors of a file that would be written now as they lie there."""
        same: dict[str, Blob] = {}
        try:
            with TensorFile(path) as file:
                for name, entry in file.entries.items():
                    blob = blobs.get(name)
                    if blob is None or (blob.dtype, blob.shape) != (entry.dtype, entry.shape):
                        continue
                    if self._is_unchanged((part, name), partial(_lies_at, file, entry.start, blob)):
                        same[name] = blob
        except (OSError, CheckpointError):  # damaged or gone: all of it is written anew
            return {}
        return same

    def _is_unchanged(self, key: tuple[str, str], compare: Callable[[], bool]) -> bool:
        left, length = self._moving.get(key, (0, 0))
        if left:
            self._moving[key] = left - 1, length
            return False
        if compare():
            return True
        length = min(2 * length or 1, PATIENCE)
        self._moving[key] = length, length
        return False


def _large(part: str, before: SavedCheckpoint) -> dict[Path, FileRecord]:
    records = before.manifest.files.items()
    return {before.path / name: one for name, one in records if part_of(name) == part and one.size >= WORTH}


def _lies_at(file: TensorFile, start: int, blob: Blob) -> bool:
    return file.holds(start, blob.data())


def _is_whole(path: Path, record: FileRecord, same: Blobs) -> bool:
    """Say whether a file, whose tensors are compared already, would be written again to the last byte."""
    if not same:
        return False
    head = next(iter(stream(same)))
    if len(head) + sum(blob.size for blob in same.values()) != record.size:
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(head)) == head and file.seek(0, 2) == record.size
    except OSError:
        return False


def _written(part: str, groups: Sequence[Blobs], *, taken: Collection[str]) -> dict[str, Content | Linked]:
    names = (tensor_file(part, number) for number in count(1))
    free = (name for name in names if name not in taken)
    return {next(free): stream(group) for group in groups if group}
