"""What a Transformers model returns, kept until the batch is over only where somebody may look at it."""

from typing import Any

from epochal.core.dispatch import BEFORE_STEP
from epochal.core.engine import Engine
from epochal.integrations.torch_outputs import OutputsHook

LOOKS = ("optimizer_step", "on_before_zero_grad", "on_train_batch_end", "on_val_batch_end", BEFORE_STEP)


class SeenOutputs(OutputsHook):
    """Keeps what the model returned where a callback requires it, or is called while it could be read.

    The trainer itself lets go of it before the backward pass; the scores of a large vocabulary are gigabytes.
    """

    def __init__(self, engine: Engine, model: Any, *, required: bool) -> None:
        super().__init__(engine, model)
        self.required = required
        self.slots = [engine.slot(event) for event in LOOKS]

    def show(self, module: Any, args: Any, outputs: Any) -> None:
        """Take the model's output, if somebody may look."""
        if self.required or any(slot.calls for slot in self.slots):
            super().show(module, args, outputs)
