"""What lies in a checkpoint folder: names of files, the format version, and the manifest."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Required, Self, TypedDict, cast

from epochal.core.errors import CheckpointError

FORMAT = 2  # 2: a part's tensors may lie in several files. 1 is read as well
MANIFEST = "manifest.json"
FOLDER = "checkpoints"  # inside a run's folder
STATE = "state.json"
COMMIT = "COMMIT"
TENSORS = ".safetensors"
BAD = ".bad-"
LEFT = ".left-"  # what a run left behind when it went on from an earlier checkpoint

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TENSORS = re.compile(rf"(?P<part>{_PART.pattern})(\.[0-9]+)?{re.escape(TENSORS)}")


def folder_name(*, epoch: int, batch: int | None, step: int) -> str:
    """Return the folder name of a moment; a moment inside an epoch carries its batch.

    >>> folder_name(epoch=3, batch=None, step=120), folder_name(epoch=3, batch=17, step=120)
    ('epoch-0003-step-000120', 'epoch-0003-batch-000017-step-000120')
    """
    inside = "" if batch is None else f"-batch-{batch:06d}"
    return f"epoch-{epoch:04d}{inside}-step-{step:06d}"


def is_part_name(name: str) -> bool:
    """Tell whether a part can be named so: letters, digits, ``_`` and ``-``, since it becomes a file's name.

    >>> is_part_name("model"), is_part_name("../model")
    (True, False)
    """
    return _PART.fullmatch(name) is not None


def tensor_file(part: str, number: int = 1) -> str:
    """Return the name of a part's first, second ... tensor file.

    >>> tensor_file("model"), tensor_file("model", 2)
    ('model.safetensors', 'model.2.safetensors')
    """
    return f"{part}{TENSORS}" if number == 1 else f"{part}.{number}{TENSORS}"


def part_of(file: str) -> str | None:
    """Return the part whose tensors a file holds; None for any other file.

    >>> part_of("model.2.safetensors"), part_of("state.json")
    ('model', None)
    """
    found = _TENSORS.fullmatch(file)
    return found["part"] if found else None


def now() -> str:
    """Return the present moment as ISO 8601 text in UTC, to the millisecond.

    >>> now().endswith("+00:00")
    True
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class FileRecord:
    """One file: its size in bytes, and a checksum that names its algorithm.

    >>> FileRecord(size=3, checksum="crc32:352441c2").size
    3

    ``linked``: nothing was written, the file is a hard link to that of the checkpoint before, which had the same bytes.
    """

    size: int
    checksum: str
    linked: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the record as it stands in a manifest.

        >>> FileRecord(3, "crc32:352441c2").to_json()
        {'size': 3, 'checksum': 'crc32:352441c2'}
        """
        return {"size": self.size, "checksum": self.checksum, **({"linked": True} if self.linked else {})}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Read a record of a manifest; KeyError when something is missing.

        >>> FileRecord.from_json({"size": 3, "checksum": "crc32:352441c2", "linked": True}).linked
        True
        """
        return cls(int(told["size"]), str(told["checksum"]), bool(told.get("linked", False)))


class About(TypedDict, total=False):
    """What a save is told of its moment; all but ``epoch`` and ``step`` may be left out, as in a `Manifest`."""

    epoch: Required[int]
    step: Required[int]
    batch: int | None
    reason: str
    asked_by: Sequence[str]
    pinned: bool
    resume_point: bool
    metrics: Mapping[str, float] | None
    fitness: float | None
    order: str | None


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself; written last but for ``COMMIT``, and the only truth about it.

    >>> one = Manifest(name="epoch-0003-step-000120", epoch=3, step=120, metrics={"val/loss": float("inf")})
    >>> Manifest.from_bytes(one.to_bytes()) == one
    True

    ``batch`` is None at the end of an epoch. ``serial`` counts the saves of a folder and gives their order: clocks and
    steps can go back, it cannot. ``asked_by`` holds the labels of those who asked, ``order`` the fingerprint of the
    data order, where a trainer has one.
    """

    name: str
    epoch: int
    step: int
    batch: int | None = None
    serial: int = 0
    reason: str = ""
    asked_by: tuple[str, ...] = ()
    pinned: bool = False
    resume_point: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    fitness: float | None = None
    created: str = ""
    files: Mapping[str, FileRecord] = field(default_factory=dict[str, FileRecord])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    order: str | None = None
    format: int = FORMAT

    @classmethod
    def of(cls, about: About, *, free: Callable[[str], str], serial: int) -> Self:
        """Return the manifest of a save of now, its files not told yet; ``free`` makes a folder's name unique."""
        told: dict[str, Any] = {**about, "asked_by": tuple(about.get("asked_by", ()))}
        told["metrics"] = dict(about.get("metrics") or {})
        name = folder_name(epoch=about["epoch"], batch=about.get("batch"), step=about["step"])
        return cls(name=free(name), serial=serial, created=now(), **told)

    @property
    def done(self) -> str:
        """How much of the training was done, in words.

        >>> Manifest("a", epoch=3, step=120).done, Manifest("a", epoch=0, batch=16, step=4).done
        ('4 epochs, 120 steps', '0 epochs, 17 batches, 4 steps')
        """
        epochs, inside = (self.epoch + 1, "") if self.batch is None else (self.epoch, f", {self.batch + 1} batches")
        return f"{epochs} epochs{inside}, {self.step} steps"

    @property
    def size(self) -> int:
        """The bytes of all files of this checkpoint, the manifest and ``COMMIT`` left out."""
        return sum(record.size for record in self.files.values())

    @property
    def written(self) -> int:
        """The bytes of those files that this save wrote itself; the others are links."""
        return sum(record.size for record in self.files.values() if not record.linked)

    def to_bytes(self) -> bytes:
        """Return the text of ``manifest.json``; NaN and infinities become strings, as JSON has none."""
        content = {
            "format": self.format,
            "name": self.name,
            "serial": self.serial,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "reason": self.reason,
            "asked_by": list(self.asked_by),
            "pinned": self.pinned,
            "resume_point": self.resume_point,
            "metrics": {name: _number(value) for name, value in self.metrics.items()},
            "fitness": None if self.fitness is None else _number(self.fitness),
            "created": self.created,
            "files": {name: one.to_json() for name, one in self.files.items()},
            "versions": dict(self.versions),
            "order": self.order,
        }
        return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read the text of ``manifest.json``; `CheckpointError` says what in it cannot be read.

        >>> Manifest.from_bytes(b"{}")
        Traceback (most recent call last):
        epochal.core.errors.CheckpointError: manifest.json lacks 'files'
        """
        content = _object(data)
        version = content.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise NewerFormat(version)
        try:
            return _manifest(content)
        except KeyError as missing:
            raise CheckpointError(f"{MANIFEST} lacks {missing}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{MANIFEST} has a value of the wrong kind: {error}") from None


class NewerFormat(CheckpointError):
    """A checkpoint of a format that this version of Epochal does not know yet; it is not damaged.

    >>> raise NewerFormat(9)
    Traceback (most recent call last):
    epochal.checkpointing.layout.NewerFormat: written in checkpoint format 9, ...
    """

    def __init__(self, version: int) -> None:
        super().__init__(
            f"written in checkpoint format {version}, this Epochal reads up to {FORMAT}: pip install -U epochal"
        )


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{MANIFEST} is not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{MANIFEST} holds a {type(content).__name__}, not an object")
    return cast("dict[str, Any]", content)


def _manifest(content: Mapping[str, Any]) -> Manifest:
    files = {name: FileRecord.from_json(one) for name, one in content["files"].items()}
    outside = [name for name in files if not _FILE.fullmatch(name)]
    if outside:
        raise ValueError(f"{outside[0]!r} is no file name")
    batch, fitness = content["batch"], content["fitness"]
    return Manifest(
        format=int(content["format"]),
        name=str(content["name"]),
        serial=int(content["serial"]),
        epoch=int(content["epoch"]),
        batch=None if batch is None else int(batch),
        step=int(content["step"]),
        reason=str(content["reason"]),
        asked_by=tuple(str(one) for one in content["asked_by"]),
        pinned=bool(content["pinned"]),
        resume_point=bool(content["resume_point"]),
        metrics={str(name): float(value) for name, value in content["metrics"].items()},
        fitness=None if fitness is None else float(fitness),
        created=str(content["created"]),
        files=files,
        versions={str(name): str(value) for name, value in content["versions"].items()},
        order=content["order"],
    )


def _number(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else str(value)
