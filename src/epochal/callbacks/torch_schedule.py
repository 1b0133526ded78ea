"""PyTorch's own schedulers as schedules: they step an optimizer of ours, and only its rates are read."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

from epochal.callbacks.schedule import Schedule
from epochal.core.errors import ArgumentError


def is_factory(function: Callable[..., Any]) -> bool:
    """Say whether a function makes schedulers: its first parameter without a value is called ``optimizer``.

    >>> is_factory(lambda optimizer: None), is_factory(lambda epoch: 0.9**epoch)
    (True, False)
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return next(iter(parameters), None) == "optimizer"


@final
class TorchSchedule(Schedule):
    """The rates that a scheduler of PyTorch gives; ``factory`` makes it for an optimizer.

    >>> from torch.optim.lr_scheduler import StepLR
    >>> schedule = TorchSchedule(lambda optimizer: StepLR(optimizer, 2, gamma=0.5))
    >>> [schedule.rates({"pg0": 0.1}, done, None)["pg0"] for done in range(5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]

    The scheduler steps a shadow optimizer with the groups of yours, SGD with momentum 0.9 and one number in each, so
    that yours stays untouched. It holds nothing that must be saved: for an earlier place it is made and stepped anew.
    """

    def __init__(self, factory: Callable[[Any], Any]) -> None:
        self.factory = factory
        self.base: dict[str, float] | None = None
        self.done = 0
        self.shadow: Any = None
        self.scheduler: Any = None

    def __repr__(self) -> str:
        return f"TorchSchedule({getattr(self.factory, '__qualname__', self.factory)!s})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "base": None, "shadow": None, "scheduler": None}  # made anew when it is needed

    @property
    def needs_total(self) -> bool:
        """False: the scheduler has its own length, if it needs one."""
        return False

    def rates(self, base: Mapping[str, float], done: int, total: int | None) -> dict[str, float]:
        """Return the rate of every group."""
        if self.base != dict(base) or done < self.done:
            self.make(base)
        while self.done < done:
            self.shadow.step()
            self.scheduler.step()
            self.done += 1
        groups = zip(base, self.shadow.param_groups, strict=True)
        return {name: float(group["lr"]) for name, group in groups}

    def make(self, base: Mapping[str, float]) -> None:
        """Make the shadow optimizer and the scheduler on it."""
        import torch

        groups = [
            {"params": [torch.zeros((), requires_grad=True)], "lr": rate, "name": name} for name, rate in base.items()
        ]
        self.shadow = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
        scheduler = self.factory(self.shadow)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ArgumentError("LearningRate: that scheduler wants a metric; use epochal.ReduceLROnPlateau instead")
        if not hasattr(scheduler, "step") or not hasattr(scheduler, "get_last_lr"):
            raise ArgumentError(f"LearningRate: {self!r} must return a scheduler of PyTorch, not {scheduler!r}")
        self.scheduler, self.base, self.done = scheduler, dict(base), 0
