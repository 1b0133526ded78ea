"""What a checkpoint of a Transformers training holds, and how its trainer gets it back: by its own resume folder."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from epochal.checkpointing.capture import random_state, state_of
from epochal.checkpointing.difference import describe_difference
from epochal.core.errors import CheckpointError
from epochal.data.order import order_differences, order_of
from epochal.integrations.torch_optimizer import inner_optimizer

FOLDER = ".resume"  # in a run's folder, while the trainer reads it
SUMS = ("_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step", "_initial_num_input_tokens_seen")


def parts(trainer: Any) -> dict[str, Any]:
    """Return the trainer's state, of what stands."""
    found: dict[str, Any] = {
        "model": state_of(trainer.model),
        "optimizer": described(trainer.optimizer),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "rng": random_state(),
        "trainer": facts(trainer),
    }
    scaler = getattr(trainer.accelerator, "scaler", None)
    if scaler is not None:
        found["scaler"] = scaler.state_dict()
    return found


def described(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's state and class."""
    inner = inner_optimizer(optimizer)
    return {"class": type(inner).__name__, **inner.state_dict()}


def facts(trainer: Any) -> dict[str, Any]:
    """Return where the trainer stands: its ``trainer_state.json`` as text, and the sums it keeps to itself."""
    state = {one.name: getattr(trainer.state, one.name) for one in fields(trainer.state)}
    state["stateful_callbacks"] = native_states(trainer)
    return {
        "state": json.dumps(state, default=as_number),
        "sums": {name: getattr(trainer, name) for name in SUMS if hasattr(trainer, name)},
        "tr_loss": trainer._tr_loss.detach().clone(),
        "current_flos": float(trainer.current_flos),
    }


def as_number(value: Any) -> Any:
    """Return a number or array of another library as Python's own, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def stateful(trainer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the callbacks of Transformers' kind that have a state, and the control object, each with its name."""
    for one in (*trainer.callback_handler.callbacks, trainer.control):
        if any(kind.__name__ == "ExportableState" for kind in type(one).__mro__):
            yield type(one).__name__, one


def native_states(trainer: Any) -> dict[str, Any]:
    """Return the states of these callbacks as ``trainer_state.json`` has them: several of one class are a list."""
    found: dict[str, list[Any]] = {}
    for name, one in stateful(trainer):
        found.setdefault(name, []).append(one.state())
    return {name: states[0] if len(states) == 1 else states for name, states in found.items()}


# -- going on ---------------------------------------------------------------------------------------------------------


def write_folder(saved: Any, folder: Path) -> Path:
    """Write a checkpoint as a folder that the trainer resumes from, and return it."""
    import torch

    shutil.rmtree(folder, ignore_errors=True)
    state = saved.load("trainer")["state"]
    target = folder / f"checkpoint-{json.loads(state)['global_step']}"
    target.mkdir(parents=True)
    (target / "trainer_state.json").write_text(state, encoding="utf-8")
    for part, name in (("model", "pytorch_model.bin"), ("scheduler", "scheduler.pt"), ("scaler", "scaler.pt")):
        if part in saved.parts:
            torch.save(saved.load(part), target / name)
    optimizer = saved.load("optimizer")
    torch.save({name: one for name, one in optimizer.items() if name != "class"}, target / "optimizer.pt")
    return target


def check(saved: Any, trainer: Any) -> None:
    """Raise CheckpointError, while nothing is changed, where a checkpoint is another training's."""
    if "trainer" not in saved.parts or "state" not in saved.load("trainer"):
        raise CheckpointError(f"{saved.path} is no checkpoint of a Transformers training; nothing was trained")
    if trainer.model_init is None:
        found = describe_difference(saved.load("model"), state_of(trainer.model))
        if found:
            raise different(saved, found)


def check_optimizer(saved: Any, trainer: Any) -> None:
    """Raise CheckpointError where the optimizer is another one."""
    found = describe_difference(saved.load("optimizer"), described(trainer.optimizer))
    if found:
        raise different(saved, found)


def different(saved: Any, found: str) -> CheckpointError:
    """Return the error that names what differs."""
    listed = found.replace("\n", "\n  ")
    return CheckpointError(
        f"{saved.path} is the checkpoint of another training:\n  {listed}\n"
        "Nothing was trained. Give the Trainer what it was saved with, or start without resume=."
    )


def check_place(saved: Any, trainer: Any, loader: Any, epoch: int, steps_per_epoch: int) -> None:
    """Raise CheckpointError where the trainer, which counts optimizer steps, would go on in another place."""
    data, step = saved.load("data"), trainer.state.global_step
    place, group = data["place"], trainer.args.gradient_accumulation_steps
    there = epoch, 0 if place is None else place["taken"]
    here = step // steps_per_epoch, step % steps_per_epoch * group
    if here != there and not (trainer.args.ignore_data_skip and here[0] == epoch):
        found = [
            f"step {step} was behind batch {there[1]} of epoch {there[0]}, and would be behind batch {here[1]} of epoch"
            f" {here[0]}: Transformers counts the steps, with gradient_accumulation_steps={group}",
            *order_differences(data["order"], order_of(loader)),
        ]
        raise different(saved, "\n".join(found))


def put_back(saved: Any, trainer: Any) -> None:
    """Give the trainer what its own resume forgets: what it has summed up, and the states of its callbacks."""
    known = saved.load("trainer")
    for name, value in known["sums"].items():
        setattr(trainer, name, value)
    trainer._tr_loss.copy_(known["tr_loss"])
    trainer.current_flos = known["current_flos"]
    restore_callbacks(trainer, json.loads(known["state"])["stateful_callbacks"])


def restore_callbacks(trainer: Any, states: Mapping[str, Any]) -> None:
    """Give callbacks what they had learnt, as the patience they have used up; the control object begins anew."""
    waiting = {name: list(one) if isinstance(one, list) else [one] for name, one in states.items()}
    for name, callback in stateful(trainer):
        if callback is not trainer.control and waiting.get(name):
            for attribute, value in waiting[name].pop(0).get("attributes", {}).items():
                setattr(callback, attribute, value)
