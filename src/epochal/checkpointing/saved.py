"""A checkpoint on disk, as it is read."""

from functools import cached_property
from pathlib import Path
from typing import Any

from epochal.checkpointing.capture import unwrapped
from epochal.checkpointing.difference import few, missing, reshaped, unexpected
from epochal.checkpointing.layout import Manifest
from epochal.checkpointing.parts import decode_part, read_structures
from epochal.checkpointing.variables import has_variables, load_variables
from epochal.checkpointing.verify import Verdict, verify
from epochal.core.errors import CheckpointError


class SavedCheckpoint:
    """One committed checkpoint folder: its manifest, its parts, and what loads them.

    >>> import tempfile
    >>> from epochal.checkpointing.store import CheckpointStore
    >>> store = CheckpointStore(tempfile.mkdtemp())
    >>> saved = store.save({"run": {"lr": 0.1}}, epoch=0, step=10)
    >>> saved.path.name, saved.parts, saved.load("run")
    ('epoch-0000-step-000010', ('run',), {'lr': 0.1})

    Nothing read from it is ever executed.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"<checkpoint {self.path}>"

    @cached_property
    def _structures(self) -> dict[str, Any]:
        return read_structures(self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts, such as ``model``, ``optimizer``, ``rng``, ``callbacks``, ``run``."""
        return tuple(self._structures)

    def load(self, part: str) -> Any:
        """Return the state tree of one part, tensors on the CPU; `CheckpointError` when there is none of that name."""
        if part not in self._structures:
            raise CheckpointError(f"{self.path} has no part {part!r}, only {', '.join(self.parts)}")
        return decode_part(self.path, self.manifest.files, part, self._structures[part])

    def verify(self) -> Verdict:
        """Read all its files and compare them with the manifest."""
        return verify(self.path)

    def load_into(self, model: Any, *, strict: bool = True) -> None:
        """Load weights into a Keras model or a torch module, wrapped by torch.compile or DistributedDataParallel too.

        Another model is a `CheckpointError` that names what differs, and nothing is loaded then. ``strict=False``
        allows names that only one side has; shapes have to agree always.
        """
        if has_variables(model):
            load_variables(self, model)
            return
        module = unwrapped(model)
        if not (hasattr(module, "state_dict") and hasattr(module, "load_state_dict")):
            raise CheckpointError(
                f"{type(module).__name__} has no load_state_dict(); take the weights from .load('model') yourself"
            )
        current = module.state_dict()
        saved = _renamed(self.load("model"), current)
        differs = reshaped(saved, current)
        if strict:
            differs = [*missing(saved, current), *unexpected(saved, current), *differs]
        if differs:
            cure = "" if not strict or reshaped(saved, current) else "\nstrict=False loads what both have"
            raise CheckpointError(f"{self.path} belongs to another model; nothing was loaded:\n{few(differs)}{cure}")
        module.load_state_dict(saved, strict=False)


def _renamed(saved: Any, current: Any) -> Any:
    """Give the saved weights the model's own names: wrappers at saving or now put a prefix before them."""
    own = {_plain(name): name for name in current}
    bare = all(name.startswith("module.") for name in saved) and not all(name.startswith("module.") for name in own)
    cut = len("module.") if bare else 0
    renamed = type(saved)()
    for name, value in saved.items():
        plain = _plain(name)[cut:]
        renamed[own.get(plain, plain)] = value
    if hasattr(saved, "_metadata"):
        renamed._metadata = saved._metadata
    return renamed


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")
