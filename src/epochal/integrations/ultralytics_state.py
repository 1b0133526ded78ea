"""What a checkpoint of a YOLO training holds."""

from typing import Any

from epochal.checkpointing.capture import random_state, state_of


def parts(trainer: Any) -> dict[str, Any]:
    """Return the trainer's state, as far as it stands already.

    ``model`` holds the averaged weights (EMA): they are what Ultralytics validates and saves, so the fitness of a
    checkpoint is theirs. ``live`` holds the weights that the optimizer works on.
    """
    found: dict[str, Any] = {"rng": random_state()}
    ema, optimizer = getattr(trainer, "ema", None), getattr(trainer, "optimizer", None)
    if ema is None or optimizer is None:
        return found
    found["model"], found["live"] = ema.ema.state_dict(), state_of(trainer.model)
    found["optimizer"] = optimizer.state_dict()
    found["scaler"] = trainer.scaler.state_dict()
    found["trainer"] = facts(trainer)
    return found


def facts(trainer: Any) -> dict[str, Any]:
    """Return where the trainer stands, as plain data."""
    stopper = trainer.stopper
    return {
        "epoch": trainer.epoch,
        "epochs": trainer.epochs,
        "ema_updates": trainer.ema.updates,
        "scheduler_epoch": trainer.scheduler.last_epoch,
        "accumulate": trainer.accumulate,
        "fitness": number(trainer.fitness),
        "best_fitness": number(trainer.best_fitness),
        "stopper": {"best_fitness": number(stopper.best_fitness), "best_epoch": stopper.best_epoch},
    }


def number(value: Any) -> float | None:
    """Return a number of whatever type as a float."""
    return None if value is None else float(value)
