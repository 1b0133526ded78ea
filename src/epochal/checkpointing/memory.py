"""A store in memory, for simulations that run thousands of trainings."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from epochal.checkpointing.layout import About, Manifest
from epochal.checkpointing.retention import Keep, kept
from epochal.checkpointing.view import Checkpoints
from epochal.core.errors import CheckpointError


@dataclass(frozen=True)
class MemoryCheckpoint:
    """A checkpoint in memory; what is loaded is a copy, as from a disk.

    >>> MemoryCheckpoint(Manifest(name="a", epoch=0, step=1), {"run": {"lr": 0.1}}).load("run")
    {'lr': 0.1}
    """

    manifest: Manifest
    content: Mapping[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts."""
        return tuple(self.content)

    def load(self, part: str) -> Any:
        """Return the state tree of one part; `CheckpointError` when there is none of that name."""
        if part not in self.content:
            raise CheckpointError(f"{self.manifest.name} has no part {part!r}, only {', '.join(self.parts)}")
        return copy.deepcopy(self.content[part])


class MemoryStore:
    """The interface of `CheckpointStore` and its retention, without a disk.

    >>> store = MemoryStore()
    >>> store.keep("each epoch", Keep(last=2))
    >>> for epoch in range(5):
    ...     _ = store.save({"run": {}}, epoch=epoch, step=epoch, asked_by=["each epoch"])
    >>> [one.manifest.epoch for one in store.checkpoints]
    [3, 4]
    """

    in_memory = True

    def __init__(self) -> None:
        self._rules: dict[str, Keep] = {}
        self._protected: set[str] = set()
        self._saved: list[MemoryCheckpoint] = []
        self._serial = 0

    @property
    def rules(self) -> Mapping[str, Keep]:
        """The rule of each asker."""
        return self._rules

    @property
    def checkpoints(self) -> Checkpoints[MemoryCheckpoint]:
        """The kept checkpoints, oldest first, read-only."""
        return Checkpoints(lambda: self._saved, self._rules)

    def place(self, directory: Path) -> None:
        """Take no note: this store lies nowhere."""

    def keep(self, label: str, rule: Keep) -> None:
        """Set what one asker keeps, from the next save on."""
        self._rules[label] = rule

    def protect(self, name: str) -> None:
        """Keep one checkpoint until a newer resume point is there."""
        self._protected.add(name)

    def save(
        self,
        parts: Mapping[str, Any],
        **about: Unpack[About],
    ) -> MemoryCheckpoint:
        """Keep a copy of the parts, then apply the rules."""
        self._serial += 1
        manifest = Manifest.of(about, free=self._free, serial=self._serial)
        saved = MemoryCheckpoint(manifest, copy.deepcopy(dict(parts)))
        self._saved.append(saved)
        if manifest.resume_point:
            self._protected.clear()
        self.retain()
        return saved

    def retain(self) -> None:
        """Apply the rules now."""
        staying = kept([one.manifest for one in self._saved], self._rules, protected=self._protected)
        self._saved = [one for one in self._saved if one.manifest.name in staying]

    def newest_resume_point(self) -> MemoryCheckpoint | None:
        """Return the newest checkpoint from which a training can go on exactly."""
        return next((one for one in reversed(self._saved) if one.manifest.resume_point), None)

    def go_on_from(self, name: str) -> None:
        """Forget what was saved after one checkpoint."""
        names = [one.manifest.name for one in self._saved]
        del self._saved[names.index(name) + 1 :]

    def _free(self, name: str) -> str:
        taken = {one.manifest.name for one in self._saved}
        names = (name if count == 1 else f"{name}-{count}" for count in range(1, len(taken) + 2))
        return next(one for one in names if one not in taken)
