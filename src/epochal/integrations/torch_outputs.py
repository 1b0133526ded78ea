"""What a model returns, shown to those who require it: a hook on the whole model, for the time of a training."""

from typing import Any

from epochal.core.engine import Engine
from epochal.hooks.hook import Hook


class OutputsHook:
    """Keeps what the model returned last in a batch, as ``run.outputs``."""

    def __init__(self, engine: Engine, model: Any) -> None:
        self.engine = engine
        self.handle = model.register_forward_hook(Hook(self.show))

    def show(self, _module: Any, _args: Any, outputs: Any) -> None:
        """Take the model's output, in a batch only."""
        if self.engine.in_batch or self.engine.in_val_batch:
            self.engine.outputs = outputs

    def remove(self) -> None:
        """Take the hook out."""
        self.handle.remove()
