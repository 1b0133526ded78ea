"""A trainer's own callbacks in a training: what they hear, which one of our loggers replaces, which stops it."""

from collections.abc import Callable
from typing import Any

from epochal.core.run import Run

HOME = "transformers.integrations"
CLASSES = {"mlflow": "MLflowCallback", "tensorboard": "TensorBoardCallback", "wandb": "WandbCallback"}
TITLES = {"mlflow": "MLflow", "tensorboard": "TensorBoard", "wandb": "Weights & Biases"}


def before(hear: Callable[[], None]) -> Callable[[Any], Any]:
    """Return what makes an event of a trainer's callbacks come to ``hear`` first."""

    def make(original: Any) -> Any:
        def event(*args: Any, **options: Any) -> Any:
            hear()
            return original(*args, **options)

        return event

    return make


def behind(hear: Callable[..., None]) -> Callable[[Any], Any]:
    """Return what makes an event of a trainer's callbacks come to ``hear`` last, with the arguments of the event."""

    def make(original: Any) -> Any:
        def event(args: Any, state: Any, control: Any, *more: Any, **options: Any) -> Any:
            control = original(args, state, control, *more, **options)
            hear(args, state, control, *more, **options)
            return control

        return event

    return make


def switch_off_replaced(run: Run, handler: Any) -> list[Callable[[], None]]:
    """Take the callbacks of replaced destinations out of a trainer; return what puts each back where it was.

    A logger says in ``replaces`` which destinations it serves, and in ``keep_native`` that Transformers' stays on.
    """
    undo: list[Callable[[], None]] = []
    for label, callback in run.roster.callbacks.items():
        if getattr(callback, "keep_native", False):
            continue
        for destination in sorted(getattr(callback, "replaces", frozenset[str]())):
            found = [one for one in handler.callbacks if is_of(one, CLASSES.get(destination))]
            undo += [taken_out(handler, one) for one in found]
            if found:
                run.engine.notes.append(
                    f"Transformers' own {TITLES.get(destination, destination)} logging was off in this training:"
                    f" {label} writes there. keep_native=True keeps both."
                )
    return undo


def is_of(callback: Any, name: str | None) -> bool:
    """Say whether a callback is Transformers' own of this class, or derived from it."""
    return any(kind.__name__ == name and kind.__module__.startswith(HOME) for kind in type(callback).__mro__)


def taken_out(handler: Any, callback: Any) -> Callable[[], None]:
    """Take a callback out of a trainer; return what puts it back."""
    index = next(place for place, one in enumerate(handler.callbacks) if one is callback)
    del handler.callbacks[index]
    return lambda: handler.callbacks.insert(index, callback)


def reason_of_stop(trainer: Any) -> str:
    """Return why Transformers' own side stops a training before its time."""
    for callback in trainer.callback_handler.callbacks:
        patience = getattr(callback, "early_stopping_patience", None)
        counter = getattr(callback, "early_stopping_patience_counter", 0)
        if patience is not None and counter >= patience:
            metric = trainer.args.metric_for_best_model
            return f"no better {metric} for {counter} evaluations ({type(callback).__name__})"
    return "a native callback set control.should_training_stop"
