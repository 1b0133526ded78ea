"""How a state is taken while the training goes on, and what that cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, NamedTuple, cast

from epochal.core.moment import Ended
from epochal.core.requests import SaveRequest

Snapshot = Literal["eager", "lazy", "off"]


class Cost(NamedTuple):
    """What one checkpoint cost, in seconds: how long the training stood still, and until it was on the disk.

    ``over``: when the training went on, on the clock of a ``Moment``.
    """

    over: float
    stall: float
    durable: float


@dataclass
class Timing:
    """The times of one save as they become known: ``began`` on the clock of ``perf_counter``."""

    at: float
    began: float
    by: str | None = None
    stall: float | None = None
    durable: float | None = None

    def end(self) -> None:
        """The checkpoint is on the disk, or has failed; what comes after is not counted."""
        if self.durable is None:
            self.durable = perf_counter() - self.began

    def cost(self) -> Cost | None:
        """Return what it cost, when all of it is known.

        >>> Timing(at=5.0, began=0.0, stall=0.25, durable=1.0).cost()
        Cost(over=5.25, stall=0.25, durable=1.0)
        """
        if self.stall is None or self.durable is None:
            return None
        return Cost(self.at + self.stall, self.stall, self.durable)


def can_wait(asked: Iterable[SaveRequest], ended: Ended) -> bool:
    """Say whether saves may be taken at a later moment of the training, while the one before is still being written.

    >>> periodic, best = SaveRequest("every 10 batches", "a", patient=True), SaveRequest("best", "b")
    >>> can_wait([periodic], "batch"), can_wait([periodic, best], "batch"), can_wait([periodic], "epoch")
    (True, False, False)

    Inside an epoch, and if all of them are such that come again; else the training waits, so that nothing which was
    wanted of this very moment is lost.
    """
    return ended != "epoch" and all(one.patient for one in asked)


def safest(modes: Iterable[Snapshot]) -> Snapshot:
    """Return the mode that asks the least of the training's code; eager if nobody said.

    >>> safest(["lazy", "eager"]), safest(["lazy"]), safest([])
    ('eager', 'lazy', 'eager')
    """
    said = set(modes)
    return "off" if "off" in said else "lazy" if said == {"lazy"} else "eager"


def stepped_by(optimizers: Sequence[Any]) -> set[int]:
    """Return the addresses of all tensors that a step of these optimizers changes: parameters and their state.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> stepped_by([torch.optim.SGD([weight])]) == {weight.data_ptr()}
    True
    """
    found: set[int] = set()
    for optimizer in optimizers:
        for group in getattr(optimizer, "param_groups", ()):
            found |= {parameter.data_ptr() for parameter in group["params"]}
        for state in cast("dict[Any, Any]", getattr(optimizer, "state", {})).values():
            found |= {value.data_ptr() for value in state.values() if hasattr(value, "data_ptr")}
    return found - {0}


def before_any_step(call: Callable[[], None]) -> Callable[[], None]:
    """Have ``call`` called before each step of any torch optimizer; what is returned takes it back.

    >>> before_any_step(print)()
    """
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def hook(*_: Any) -> None:
        call()

    return register_optimizer_step_pre_hook(hook).remove
