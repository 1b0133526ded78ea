"""The steps of Lightning's optimizers: forward and backward run inside ``optimizer.step()``."""

from typing import Any

from epochal.integrations.torch_optimizer import OptimizerHooks


class StepHooks(OptimizerHooks):
    """Counts steps and rules rates as everywhere on torch; the gradients are there behind Lightning's closure only."""

    def show_gradients(self, *_: Any) -> None:
        """Do nothing: this is before the closure."""

    def show(self, trainer: Any) -> None:
        """Ask whoever looks at gradients, unless AMP leaves this step out."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and any(one.item() for one in scaler._found_inf_per_device(self.optimizer).values()):
            return
        super().show_gradients()
