"""What every trainer on torch shares: the true optimizer step, and learning rates that no schedule undoes."""

from collections.abc import Sequence
from typing import Any

from epochal.core.engine import Engine

WRAPPERS = frozenset({"accelerate", "lightning", "lightning_fabric", "pytorch_lightning"})


def group_name(group: dict[str, Any], index: int) -> str:
    """Return the name of a parameter group: its own, or pg0, pg1 ... by position.

    >>> group_name({"lr": 0.1}, 1)
    'pg1'
    """
    name = group.get("name")
    return name if isinstance(name, str) else f"pg{index}"


def inner_optimizer(optimizer: Any) -> Any:
    """Return torch's own optimizer inside the wrappers of Accelerate and Fabric, which have no step hooks.

    >>> inner_optimizer(3)
    3
    """
    while is_wrapper(optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def is_wrapper(optimizer: Any) -> bool:
    """Say whether an optimizer is another library's, with the one that steps inside."""
    homes = {kind.__module__.partition(".")[0] for kind in type(optimizer).__mro__}
    return bool(homes & WRAPPERS) and hasattr(optimizer, "optimizer")


class OptimizerHooks:
    """Counts the steps an optimizer really does, and is the last word on its learning rates.

    ``counts``: the steps of this optimizer are ``run.step``; ``prefix`` stands before the names of its groups. Once a
    rate was asked for, the rate in effect is written right before each step and the schedule's own value is put back
    right after it: warm-up and schedulers, which build on what they wrote last, run on unseen.
    """

    def __init__(self, engine: Engine, optimizer: Any, *, counts: bool = True, prefix: str = "") -> None:
        self.engine, self.optimizer, self.counts, self.prefix = engine, optimizer, counts, prefix
        self.own: list[Any] = []  # the schedule's rates while ours are in place
        self.handles = [optimizer.register_step_post_hook(self.after_step)]
        if engine.before_steps.wanted:
            self.handles.append(optimizer.register_step_pre_hook(self.show_gradients))

    def groups(self) -> dict[str, float]:
        """Return the rate the trainer's own schedule gives each parameter group."""
        groups = self.optimizer.param_groups
        rates = self.own or [group["lr"] for group in groups]
        return {self.name(group, index): float(rates[index]) for index, group in enumerate(groups)}

    def name(self, group: dict[str, Any], index: int) -> str:
        """Return the name under which a run knows a parameter group; one that has another's name gets its number."""
        name = group_name(group, index)
        before = self.optimizer.param_groups[:index]
        taken = any(group_name(one, place) == name for place, one in enumerate(before))
        return f"{self.prefix}{name}#{index}" if taken else self.prefix + name

    def take_over(self) -> None:
        """Write the rates in effect before every step from now on."""
        self.handles.append(self.optimizer.register_step_pre_hook(self.before_step))

    def show_gradients(self, *_: Any) -> None:
        """Ask whoever looks at gradients before a step; without gradients the optimizer changes nothing."""
        if self.overflowed():
            return
        self.unscale()
        if not self.engine.before_step(self.optimizer):
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def before_step(self, *_: Any) -> None:
        """Put the rates in effect in place of the schedule's."""
        if self.engine.requests.rates:
            self.engine.apply_rates()
        rates = self.engine.rates
        self.give_back()  # a step that raised had no after_step
        if not rates.active:
            return
        own = [rate.clone() if hasattr(rate, "clone") else rate for rate in self.rates_in_place()]
        for index, group in enumerate(self.optimizer.param_groups):
            self.write(group, rates.effective(self.name(group, index), float(own[index])))
        self.own = own

    def after_step(self, *_: Any) -> None:
        """Say that a step was done, then give the schedule its own rates back."""
        try:
            if not self.skipped():
                self.engine.stepped(counts=self.counts)
        finally:
            if self.own:
                self.give_back()

    def give_back(self) -> None:
        """Put the schedule's rates back in place of ours."""
        if self.own:
            for group, rate in zip(self.optimizer.param_groups, self.own, strict=False):
                self.write(group, rate)
            self.own = []

    def skipped(self) -> bool:
        """Say whether this step was left out: by a callback, or by AMP's scaler inside a fused optimizer."""
        if self.engine.step_skipped:
            self.engine.step_skipped = False
            return True
        return self.overflowed()

    def overflowed(self) -> bool:
        """Say whether AMP leaves this step out inside a fused optimizer; any other it does not even call."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf.item())

    def unscale(self) -> None:
        """Unscale the gradients of a fused optimizer, which would do it inside its step."""
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is not None:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(scale.to(parameter.grad.device))
            self.optimizer.grad_scale = None  # the scaler deletes it after the step

    def rates_in_place(self) -> list[Any]:
        """Return what the parameter groups hold."""
        return [group["lr"] for group in self.optimizer.param_groups]

    @staticmethod
    def write(group: dict[str, Any], rate: Any) -> None:
        """Write a rate; a tensor, as capturable optimizers hold, is filled in place."""
        if hasattr(group["lr"], "fill_"):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def remove(self) -> None:
        """Take the hooks out: the optimizer is as it was."""
        self.give_back()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


class SeveralOptimizers:
    """The learning rates of several optimizers as those of one."""

    def __init__(self, hooks: Sequence[OptimizerHooks]) -> None:
        self.hooks = hooks

    def groups(self) -> dict[str, float]:
        """Return the rates of all groups, by their names."""
        return {name: rate for hooks in self.hooks for name, rate in hooks.groups().items()}

    def take_over(self) -> None:
        """Write the rates in effect before every step of each."""
        for hooks in self.hooks:
            hooks.take_over()
