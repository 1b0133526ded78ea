"""Accumulation groups: how many batches make one optimizer step, planned by somebody or seen."""

from collections.abc import Callable, Mapping
from typing import Any


class Groups:
    """The groups of batches whose gradients are added up before a step.

    >>> groups = Groups()
    >>> for _ in range(3):
    ...     for _ in range(4):
    ...         groups.since_step += 1
    ...     groups.stepped()
    >>> groups.since_step += 1
    >>> groups.size(epoch=0), groups.unfinished(epoch=0)
    (4, True)

    Whoever begins a batch adds 1 to ``since_step``. ``planned`` maps an epoch to the batches per
    step, where somebody plans it; ``held`` says that gradients wait for more batches, where somebody knows. Without
    both the usual size tells, whatever steps were skipped.
    """

    def __init__(self) -> None:
        self.since_step = 0
        self.seen: dict[int, int] = {}  # batches from one step to the next -> how often
        self.planned: Callable[[int], int] | None = None
        self.held = False

    def stepped(self) -> None:
        """The optimizer has stepped."""
        if self.since_step:
            self.seen[self.since_step] = self.seen.get(self.since_step, 0) + 1
            self.since_step = 0

    def give_up(self) -> None:
        """The running group is dropped with its epoch."""
        self.since_step, self.held = 0, False

    def unfinished(self, epoch: int) -> bool:
        """Say whether the gradients of the last batches wait for more batches, as far as is known."""
        return self.held or 0 < self.since_step < self.size(epoch)

    def size(self, epoch: int) -> int:
        """Return how many batches make an optimizer step in an epoch."""
        if self.planned is not None:
            return self.planned(epoch)
        return max(self.seen, key=lambda size: (self.seen[size], -size), default=1)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen."""
        return {"since_step": self.since_step, "seen": dict(self.seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.since_step, self.seen = state["since_step"], dict(state["seen"])
