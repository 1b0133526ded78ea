"""The steps that a Keras optimizer really does, and what the model returned in them."""

from collections.abc import Callable
from typing import Any

from epochal.core.engine import Engine
from epochal.integrations.entry import wrap
from epochal.integrations.keras_rates import beside, innermost, number


class Steps:
    """Counts a training's steps, without reading the optimizer's own count in each batch where that can be foreseen.

    Of several optimizers the first that steps counts. On torch each step is an event, and what the model returned is
    shown.
    """

    def __init__(self, engine: Engine, model: Any) -> None:
        import keras

        compiled = getattr(model, "optimizer", None)
        self.engine = engine
        self.optimizers = [one for one in (compiled, *beside(model).values()) if one is not None]
        self.shown = keras.backend.backend() == "torch"
        self.per_call = int(getattr(model, "steps_per_execution", 1) or 1)
        self.group = accumulation(compiled)
        own_step = type(model).train_step is not keras.Model.train_step
        self.unforeseen = own_step or hasattr(compiled, "inner_optimizer")  # it leaves steps out that overflow
        self.before = self.read() - engine.step  # steps of earlier trainings
        self.batches = self.applied()
        self.outputs: Any = None
        engine.groups.planned = lambda _epoch: max(self.group // self.per_call, 1)
        self.remove: Callable[[], None] = lambda: None
        if self.shown and not model.jit_compile:
            self.remove = wrap(model, "compute_metrics", self.showing_outputs)

    def read(self) -> int:
        """Return the optimizer's own count of its steps."""
        counts = (int(number(one.iterations)) for one in self.optimizers)
        return next((count for count in counts if count), 0)

    def applied(self) -> int:
        """Return how many batches' gradients the optimizer has taken."""
        return int(number(innermost(self.optimizers[0])._iterations)) if self.optimizers else 0

    def ended(self, batch: int, planned: int | None) -> int:
        """Count what a call of the training function did from this batch on, and return the number of its batches."""
        if planned is not None:
            size = max(min(self.per_call, planned - batch), 1)
        else:  # the data may have ended inside the call
            size = self.per_call if self.per_call == 1 else max(self.applied() - self.batches, 1)
        self.batches += size
        done = self.read() if self.unforeseen else self.batches // self.group
        self.count(done - self.before if self.optimizers else self.engine.step + size)
        return size

    def count(self, steps: int) -> None:
        """Let the run stand at so many steps."""
        engine = self.engine
        if self.shown:
            while engine.step < steps:
                engine.stepped()
        elif steps > engine.step:
            engine.step = steps
            engine.groups.stepped()

    def end_epoch(self) -> None:
        """Compare with the optimizer's own count; if it is another, that is read from now on."""
        if self.optimizers and self.read() - self.before != self.engine.step:
            self.unforeseen = True
            self.engine.step = self.read() - self.before

    def showing_outputs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Keep what the model returned until the batch ends."""

        def compute_metrics(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            self.outputs = y_pred
            return original(x, y, y_pred, sample_weight=sample_weight)

        return compute_metrics

    def take_outputs(self) -> Any:
        """Return what the model returned in the batch that ends, where that is shown."""
        outputs, self.outputs = self.outputs, None
        return outputs


def accumulation(optimizer: Any) -> int:
    """Return how many batches make one step of an optimizer."""
    return int(getattr(innermost(optimizer), "gradient_accumulation_steps", None) or 1)
