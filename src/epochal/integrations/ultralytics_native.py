"""Ultralytics' own integrations: switched off for a training in which a logger of ours serves the same destination."""

from typing import Any

from epochal.core.run import Run

HOME = "ultralytics.utils.callbacks."
MODULES = {"wandb": "wb"}  # destination -> the module's name, where it differs
TITLES = {"mlflow": "MLflow", "tensorboard": "TensorBoard", "wandb": "Weights & Biases"}


def switch_off_replaced(run: Run, trainer: Any) -> None:
    """Take the callbacks of replaced destinations out of this trainer, in place, and write a note for the summary.

    A logger says in ``replaces`` which destinations it serves, and in ``keep_native`` that Ultralytics' stays on.
    """
    for label, callback in run.roster.callbacks.items():
        if getattr(callback, "keep_native", False):
            continue
        for destination in sorted(getattr(callback, "replaces", frozenset[str]())):
            if switch_off(trainer.callbacks, HOME + MODULES.get(destination, destination)):
                run.engine.notes.append(
                    f"Ultralytics' own {TITLES.get(destination, destination)} logging was off in this training:"
                    f" {label} writes there. keep_native=True keeps both."
                )


def switch_off(natives: dict[str, list[Any]], module: str) -> bool:
    """Take every callback of a module out of the lists, in place: one of them is being called from."""
    found = False
    for calls in natives.values():
        for index in reversed(range(len(calls))):
            if getattr(calls[index], "__module__", None) == module:
                del calls[index]
                found = True
    return found
