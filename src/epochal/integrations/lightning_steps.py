"""The steps of Lightning's optimizers: forward and backward run inside ``optimizer.step()``."""

from typing import Any

from epochal.core.engine import Engine
from epochal.integrations.torch_optimizer import OptimizerHooks


class StepHooks(OptimizerHooks):
    """Counts steps and rules rates as everywhere on torch; the gradients are there behind Lightning's closure only."""

    def __init__(self, engine: Engine, optimizer: Any, *, counts: bool = True, prefix: str = "") -> None:
        super().__init__(engine, optimizer, counts=counts, prefix=prefix)
        self.used: list[Any] = []  # the rates of this epoch's newest step

    def after_step(self, *_: Any) -> None:
        """Note the rates of this step, before the schedule's own are put back."""
        self.used = [rate.clone() if hasattr(rate, "clone") else rate for rate in self.rates_in_place()]
        super().after_step()

    def last(self) -> dict[str, float]:
        """Return the rates of this epoch's newest step, if it had one."""
        groups = self.optimizer.param_groups[: len(self.used)]
        return {self.name(group, index): float(self.used[index]) for index, group in enumerate(groups)}

    def show_gradients(self, *_: Any) -> None:
        """Do nothing, this is before the closure; except for a fused optimizer, to which AMP hands scaled gradients."""
        if hasattr(self.optimizer, "grad_scale"):
            super().show_gradients()

    def show(self, trainer: Any) -> None:
        """Ask whoever looks at gradients, unless AMP leaves this step out or a fused optimizer unscales them itself."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            fused = getattr(self.optimizer, "_step_supports_amp_scaling", False)
            if fused or any(one.item() for one in scaler._found_inf_per_device(self.optimizer).values()):
                return
        super().show_gradients()
