"""The parts of a checkpoint to the contents of its files, and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from epochal.checkpointing.codec import Decoder, Encoder
from epochal.checkpointing.commit import Content
from epochal.checkpointing.layout import FORMAT, STATE, TENSORS, is_part_name
from epochal.checkpointing.tensorfile import TensorFile, stream
from epochal.core.errors import ArgumentError, CheckpointError


def encode_parts(parts: Mapping[str, Any]) -> dict[str, Content]:
    """Return the contents of all files: each part's tensors in a file of its own, the rest of all in ``state.json``.

    >>> list(encode_parts({"run": {"step": 3}}))
    ['state.json']
    """
    structures: dict[str, Any] = {}
    files: dict[str, Content] = {}
    for part, tree in parts.items():
        if not is_part_name(part):
            raise ArgumentError(f"a part cannot be named {part!r}: letters, digits, _ and - only, as it names a file")
        encoder = Encoder(part)
        structures[part] = encoder.encode(tree)
        if encoder.blobs:
            files[part + TENSORS] = stream(encoder.blobs)
    text = json.dumps({"format": FORMAT, "parts": structures}, separators=(",", ":"), allow_nan=False)
    files[STATE] = [text.encode()]
    return files


def read_structures(folder: Path) -> dict[str, Any]:
    """Return the JSON node of each part."""
    path = folder / STATE
    try:
        return dict(json.loads(path.read_bytes())["parts"])
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not what a checkpoint holds: {error!r}") from None


def decode_part(folder: Path, part: str, node: object) -> Any:
    """Return the state tree of one part, its tensors on the CPU."""
    path = folder / (part + TENSORS)
    try:
        if not path.exists():
            return Decoder(part, None).decode(node)
        with TensorFile(path) as tensors:
            return Decoder(part, tensors).decode(cast("Any", node))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
