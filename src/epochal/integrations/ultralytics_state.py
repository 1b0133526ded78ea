"""What a checkpoint of a YOLO training holds."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from epochal.checkpointing.capture import random_state, state_of, unwrapped

if TYPE_CHECKING:
    from epochal.integrations.ultralytics_exact import ExactState


def parts(exact: "ExactState") -> dict[str, Any]:
    """Return the trainer's state, as far as it stands already.

    ``model`` holds the averaged weights (EMA): they are what Ultralytics validates and saves, so the fitness of a
    checkpoint is theirs. ``live`` holds the weights that the optimizer works on.
    """
    trainer = exact.trainer
    found: dict[str, Any] = {"rng": random_state()}
    ema, optimizer = getattr(trainer, "ema", None), getattr(trainer, "optimizer", None)
    if ema is None or optimizer is None:
        return found
    found["model"], found["live"] = ema.ema.state_dict(), state_of(trainer.model)
    found["optimizer"] = optimizer.state_dict()
    found["scaler"] = trainer.scaler.state_dict()
    if held := gradients(trainer):
        found["gradients"] = held
    found["loader"] = exact.loader_state()
    found["trainer"] = {**facts(trainer), "last_opt_step": exact.steps.last, "given": exact.given}
    return found


def facts(trainer: Any) -> dict[str, Any]:
    """Return where the trainer stands, as plain data."""
    stopper, now = trainer.stopper, time.time()
    return {
        "epoch": trainer.epoch,
        "epochs": trainer.epochs,
        "start_epoch": trainer.start_epoch,
        "seconds": now - getattr(trainer, "train_time_start", now),
        "ema_updates": trainer.ema.updates,
        "scheduler": trainer.scheduler.state_dict(),
        "accumulate": trainer.accumulate,
        "fitness": number(trainer.fitness),
        "best_fitness": number(trainer.best_fitness),
        "metrics": {name: number(value) for name, value in (trainer.metrics or {}).items()},
        "loss_names": list(trainer.loss_names),
        "nan_recovery_attempts": getattr(trainer, "nan_recovery_attempts", 0),
        "criterion_updates": getattr(getattr(unwrapped(trainer.model), "criterion", None), "updates", None),
        "stopper": {
            "best_fitness": number(stopper.best_fitness),
            "best_epoch": stopper.best_epoch,
            "possible_stop": stopper.possible_stop,
        },
        "images": len(trainer.train_loader.dataset),
        "args": plain(vars(trainer.args)),
        "architecture": architecture(unwrapped(trainer.model)),
    }


def architecture(model: Any) -> dict[str, Any]:
    """Return what a model is built from again: its class, its YAML, its names."""
    kind = type(model)
    names = getattr(model, "names", {})
    return {
        "class": kind.__name__,
        "module": kind.__module__,
        "yaml": plain(getattr(model, "yaml", None)),
        "names": dict(names) if isinstance(names, dict) else list(names),
    }


def gradients(trainer: Any) -> dict[str, Any]:
    """Return the gradients that wait for their optimizer step: an accumulation group may cross an epoch's end."""
    named = unwrapped(trainer.model).named_parameters()
    return {name: one.grad for name, one in named if one.grad is not None}


def number(value: Any) -> float | None:
    """Return a number of whatever type as a float."""
    return None if value is None else float(value)


def plain(value: Any) -> Any:
    """Return a value as plain data: what is neither a number, a text nor a collection becomes its text.

    >>> from pathlib import Path
    >>> plain({"data": Path("coco8.yaml"), "freeze": (1, 2)})
    {'data': 'coco8.yaml', 'freeze': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key if isinstance(key, (int, str)) else str(key): plain(one) for key, one in items}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in cast("list[Any]", value)]
    return plain(value.item()) if hasattr(value, "item") and getattr(value, "size", 0) == 1 else str(value)
