"""What a logger may know of the run that it serves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochal.core.errors import ArgumentError
from epochal.runs.recorder import STATES

ENDS = {**{state: end for end, state in STATES.items()}, "crashed": "crashed"}  # a run's last state -> how it ended


@dataclass(frozen=True)
class About:
    """What a logger's ``open`` may know of a run: a snapshot, safe to read on another thread.

    ``dir`` is the run's folder, made already, or None; ``resumed`` says whether this training goes on where a
    checkpoint ended, ``history`` (one mapping per epoch) and ``step`` how far it had come. ``stored``: what comes is
    read from the run's store, where the last process stopped; ``told`` is what its writer remembered then. ``ended``:
    when the training ended, where it is over, in seconds since 1970.
    """

    name: str
    dir: Path | None
    host: str
    resumed: bool
    history: tuple[Mapping[str, float], ...]
    step: int
    started: float  # seconds since 1970
    stored: bool = False
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ended: float | None = None

    def place(self, given: Path | None, default: str, owner: str) -> Path:
        """Return where to write: the path the user gave, else ``default`` in the run's folder."""
        if given is not None:
            return given
        if self.dir is None:
            raise ArgumentError(f"{self.name} has no folder; give {owner} a path of its own")
        return self.dir / default
