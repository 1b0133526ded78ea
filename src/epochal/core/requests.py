"""What is asked of a training: data, taken on the training thread at safe points, in order, never overwritten."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from epochal.core.tensors import Scalar


class StopRequest(NamedTuple):
    """Somebody wants the training to end."""

    reason: str
    by: str

    def __str__(self) -> str:
        return f"{self.by}: {self.reason}"


class SaveRequest(NamedTuple):
    """Somebody wants a checkpoint; ``pinned`` keeps it for good."""

    reason: str
    by: str
    pinned: bool = False


class RateRequest(NamedTuple):
    """Somebody wants another learning rate: set (a value, None gives it back) or scale (a factor)."""

    kind: str
    value: float | None
    group: str | None


class Requests:
    """The requests that wait; any thread may add, only the training thread takes (deque.append is atomic)."""

    def __init__(self) -> None:
        self.stops: list[StopRequest] = []
        self.saves: deque[SaveRequest] = deque()
        self.rates: deque[RateRequest] = deque()
        self.logs: deque[Mapping[str, Scalar]] = deque()

    def take_saves(self) -> list[SaveRequest]:
        """Take all save requests that wait, in order, each once."""
        taken: dict[SaveRequest, None] = {}
        while self.saves:
            taken[self.saves.popleft()] = None
        return list(taken)

    def stop_reason(self) -> str | None:
        """Return the texts of all stop requests in their order, each with who asked."""
        return "; ".join(map(str, self.stops)) or None
