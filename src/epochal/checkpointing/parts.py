"""The parts of a checkpoint to the contents of its files, and back."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from epochal.checkpointing.blob import Blob
from epochal.checkpointing.codec import Decoder, Encoder
from epochal.checkpointing.commit import Content
from epochal.checkpointing.layout import FORMAT, STATE, is_part_name, part_of
from epochal.checkpointing.tensorfiles import TensorFiles
from epochal.core.errors import ArgumentError, CheckpointError


class Encoded(NamedTuple):
    """A state tree taken apart: what JSON can say, copied, and the tensors, still where they were.

    ``structures`` maps a part to its JSON node, ``tensors`` a part to its blobs by their names.
    """

    structures: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Blob]]

    @property
    def size(self) -> int:
        """The bytes that all of it would take on a disk, file headers left out."""
        tensors = sum(blob.size for blobs in self.tensors.values() for blob in blobs.values())
        return tensors + sum(map(len, state_content(self)))


def encode_parts(parts: Mapping[str, Any]) -> Encoded:
    """Take all parts apart; Python values are copied, a tensor's bytes are read when its blob is asked for them.

    >>> encode_parts({"run": {"step": 3}})
    Encoded(structures={'run': {'step': 3}}, tensors={})
    """
    structures: dict[str, Any] = {}
    tensors: dict[str, Mapping[str, Blob]] = {}
    for part, tree in parts.items():
        if not is_part_name(part):
            raise ArgumentError(f"a part cannot be named {part!r}: letters, digits, _ and - only, as it names a file")
        encoder = Encoder(part)
        structures[part] = encoder.encode(tree)
        if encoder.blobs:
            tensors[part] = encoder.blobs
    return Encoded(structures, tensors)


def state_content(encoded: Encoded) -> Content:
    """Return the content of ``state.json``: all that is no tensor, of all parts.

    >>> state_content(encode_parts({"run": {"step": 3}}))
    [b'{"format":2,"parts":{"run":{"step":3}}}']
    """
    text = json.dumps({"format": FORMAT, "parts": encoded.structures}, separators=(",", ":"), allow_nan=False)
    return [text.encode()]


def read_structures(folder: Path) -> dict[str, Any]:
    """Return the JSON node of each part."""
    path = folder / STATE
    try:
        return dict(json.loads(path.read_bytes())["parts"])
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not what a checkpoint holds: {error!r}") from None


def decode_part(folder: Path, files: Iterable[str], part: str, node: object) -> Any:
    """Return the state tree of one part, its tensors on the CPU; ``files`` are the names of all files there."""
    paths = [folder / name for name in files if part_of(name) == part]
    try:
        if not paths:
            return Decoder(part, None).decode(node)
        with TensorFiles(paths) as tensors:
            return Decoder(part, tensors).decode(cast("Any", node))
    except OSError as error:
        raise CheckpointError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
