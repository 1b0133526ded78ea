"""What is asked of a training: data, taken on the training thread at safe points, in order, never overwritten."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from epochal.core.tensors import Scalar


class StopRequest(NamedTuple):
    """Somebody wants the training to end."""

    reason: str
    by: str

    def __str__(self) -> str:
        return f"{self.by}: {self.reason}"


class SaveRequest(NamedTuple):
    """Somebody wants a checkpoint; ``pinned`` keeps it for good.

    ``patient``: it is one of many, and inside an epoch a later moment will do while the one before is being written.
    """

    reason: str
    by: str
    pinned: bool = False
    patient: bool = False
    command: str = ""  # the id of the command that it comes from


class ValidationRequest(NamedTuple):
    """Somebody wants a validation now; ``counts``: policies look at it as at every other."""

    reason: str
    by: str
    counts: bool = True
    command: str = ""


class RateRequest(NamedTuple):
    """Somebody wants another learning rate: set (a value, None gives it back) or scale (a factor)."""

    kind: str
    value: float | None
    group: str | None

    def __str__(self) -> str:
        whose = "" if self.group is None else f" of {self.group}"
        if self.value is None:
            return f"learning rate{whose} given back to the schedule"
        return f"learning rate{whose} {'set to' if self.kind == 'set' else 'times'} {self.value:g}"


class RollbackRequest(NamedTuple):
    """Somebody wants the run back at an earlier point, and then without the batches ``skip``, the first to the last."""

    reason: str
    by: str
    lr_factor: float = 1.0
    skip: tuple[int, int] | None = None


class Command(NamedTuple):
    """What somebody outside wants of a running training: a verb's name and its arguments, as JSON values."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    by: str


class Requests:
    """The requests that wait; any thread may add, only the training thread takes (deque.append is atomic).

    ``waiting`` is set by whoever adds something that a safe point must take: one test tells that nothing is to do.
    """

    def __init__(self) -> None:
        self.waiting = False
        self.stops: list[StopRequest] = []
        self.saves: deque[SaveRequest] = deque()
        self.rates: deque[RateRequest] = deque()
        self.logs: deque[Mapping[str, Scalar]] = deque()
        self.rollbacks: list[RollbackRequest] = []
        self.validations: list[ValidationRequest] = []
        self.commands: deque[Command] = deque()
        self.paused = False  # a pause is asked for, or lasts
        self.failures: deque[Exception] = deque()  # of checkpoints that were written in the background
        self.signals: list[int] = []  # in the order in which they came
        self.deadline: float | None = None  # of the monotonic clock, after a signal
        self.left = False  # the training has been left because of one

    def add_signal(self, number: int, deadline: float) -> None:
        """Let a signal wait for the next end of a batch; the first one sets the time by which all is over."""
        self.signals.append(number)
        if self.deadline is None:
            self.deadline = deadline
        self.waiting = True

    def add_save(self, request: SaveRequest) -> None:
        """Let a save wait for the next safe point."""
        self.saves.append(request)
        self.waiting = True

    def add_failure(self, error: Exception) -> None:
        """Let the failure of a checkpoint be told at the next safe point."""
        self.failures.append(error)
        self.waiting = True

    def add_validation(self, request: ValidationRequest) -> None:
        """Let a validation wait for the next moment at which the trainer can do one."""
        self.validations.append(request)
        self.waiting = True

    def pause(self) -> None:
        """Let the training wait at the next safe point."""
        self.paused = True
        self.waiting = True

    def add_command(self, command: Command) -> None:
        """Let a command wait for the next safe point."""
        self.commands.append(command)
        self.waiting = True

    def add_rate(self, request: RateRequest) -> None:
        """Let a change of the learning rate wait for the next step or safe point."""
        self.rates.append(request)
        self.waiting = True

    def add_log(self, values: Mapping[str, Scalar]) -> None:
        """Let another thread's metrics wait for the next safe point."""
        self.logs.append(dict(values))
        self.waiting = True

    def take_saves(self) -> list[SaveRequest]:
        """Take all save requests that wait, in order, each once."""
        taken: dict[SaveRequest, None] = {}
        while self.saves:
            taken[self.saves.popleft()] = None
        return list(taken)

    def take_rollbacks(self) -> list[RollbackRequest]:
        """Take all rollbacks that were asked for, each once."""
        taken, self.rollbacks = self.rollbacks, []
        return list(dict.fromkeys(taken))

    def stop_reason(self) -> str | None:
        """Return the texts of all stop requests in their order, each with who asked."""
        return "; ".join(map(str, self.stops)) or None
