"""Keras 3: ``model.fit`` on the instance becomes an entry that lets a run see each training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

from epochal.core.callback import Callback
from epochal.core.errors import AttachError
from epochal.core.events import EVENT_NAMES
from epochal.core.run import Run
from epochal.integrations.entry import Entry, Options, enter

NOT_DELIVERED = frozenset({"on_pretrain_routine_start", "on_pretrain_routine_end"})
IN_A_STEP = frozenset({"optimizer_step", "on_before_zero_grad", "data", "outputs"})  # what only torch shows
PROVIDES = (frozenset(EVENT_NAMES) - NOT_DELIVERED - IN_A_STEP) | {
    "stop_in_batch", "save", "set_lr", "pause", "validate",
}  # fmt: skip
OWNS = {
    "accumulation": "Keras accumulates gradients itself: keras.optimizers.Adam(gradient_accumulation_steps=...)",
    "weight_average": "Keras averages the weights itself: keras.optimizers.Adam(use_ema=True)",
    "gradients": "Keras takes gradients and step in one and shows neither; its optimizers clip: Adam(clipnorm=...)",
    "rollback": "Keras cannot go back inside a fit(); stop, and attach(..., resume=True) again",
    "loss": "Keras does not show a loss that can be computed outside its own step",
}
IN_A_GRAPH = (
    "on TensorFlow Keras compiles a whole step into a graph, which shows nothing of its inside;"
    " on_train_batch_end comes after it, or use the torch backend (KERAS_BACKEND=torch)"
)
BACKENDS = ("tensorflow", "torch")


class FitEntry(Entry):
    """Stands at ``model.fit``: trains as before, and lets a run see it."""

    method = "fit"

    def train(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Train as ``Model.fit`` does, with its arguments."""
        from epochal.integrations.keras_training import Training, by_name

        training = Training(self.run, self.host, by_name(self.host, args, options))
        try:
            return self.watched(partial(training.fit, original, self.place, self.resume_point))
        finally:
            training.leave()


def bind(host: Any, callbacks: Sequence[Callback], **options: Unpack[Options]) -> Run:
    """Attach callbacks to a Keras model; all that can be wrong is said before the model is touched."""
    import keras

    backend = str(keras.backend.backend())
    if backend not in BACKENDS:
        raise AttachError(
            f"Keras runs on {backend} here, which is not supported; set KERAS_BACKEND to tensorflow or torch"
        )
    for one in callbacks:
        if isinstance(one, keras.callbacks.Callback):
            raise AttachError(f"{type(one).__name__} is Keras' own: give it to fit(callbacks=[...]), not to attach")
    shown = backend == "torch"
    provides = PROVIDES | IN_A_STEP if shown else PROVIDES
    owns = OWNS if shown else OWNS | dict.fromkeys(IN_A_STEP, IN_A_GRAPH)
    return enter(FitEntry, host, callbacks, "Keras", provides, owns, options)
