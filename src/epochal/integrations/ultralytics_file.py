"""Standard Ultralytics files, as ``YOLO(path)`` and Ultralytics' own resume read them, from a checkpoint of a run."""

import csv
import io
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epochal.checkpointing.atomic import write_atomically
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.core.errors import CheckpointError, MissingExtra
from epochal.integrations.ultralytics_safe import refusal


def write_ultralytics(saved: SavedCheckpoint, path: Path) -> None:
    """Write the averaged weights of a YOLO run's checkpoint as a file for ``YOLO(path)``, in full precision.

    The file is written whole or not at all. CheckpointError: the checkpoint is no YOLO run's, or its model's class is
    none of Ultralytics' own.
    """
    facts = facts_of(saved)
    model = built(saved, facts)
    for parameter in model.parameters():
        parameter.requires_grad = False
    write(path, {"epoch": -1, "model": model, "ema": None, "optimizer": None, **about(facts)})


def write_resume_file(saved: SavedCheckpoint, path: Path, args: Mapping[str, Any], results: Path) -> None:
    """Write what Ultralytics' ``last.pt`` was when the checkpoint was taken, to be resumed with these arguments."""
    from ultralytics.utils.torch_utils import convert_optimizer_state_dict_to_fp16

    facts = facts_of(saved)
    ema = built(saved, facts).half()
    for value in ema.state_dict().values():
        if value.is_floating_point():
            value.nan_to_num_()  # half precision overflows where Ultralytics clamps it too
    own = {
        "epoch": facts["epoch"],
        "best_fitness": facts["best_fitness"],
        "stopper": {name: facts["stopper"][name] for name in ("best_fitness", "best_epoch")},
        "model": None,
        "ema": ema,
        "updates": facts["ema_updates"],
        "optimizer": convert_optimizer_state_dict_to_fp16(saved.load("optimizer")),
        "scaler": saved.load("scaler"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, own | about(facts) | {"train_args": dict(args), "train_results": read_results(results)})


def facts_of(saved: SavedCheckpoint) -> dict[str, Any]:
    """Return where the trainer stood."""
    facts = saved.load("trainer") if "trainer" in saved.parts else {}
    if not ("architecture" in facts and "model" in saved.parts):
        raise CheckpointError(
            f"{saved.path} holds no YOLO model that can be built again: it is no YOLO run's checkpoint"
        )
    return facts


def built(saved: SavedCheckpoint, facts: Mapping[str, Any]) -> Any:
    """Build the model again, with the averaged weights."""
    try:
        import torch
        from ultralytics.nn import tasks
    except ImportError as error:
        raise MissingExtra("ultralytics", "yolo", "a model of Ultralytics") from error

    said = facts["architecture"]
    check_buildable(saved, facts)
    with torch.random.fork_rng(devices=[]):
        model = getattr(tasks, said["class"])(deepcopy(said["yaml"]), verbose=False)
    model.load_state_dict(saved.load("model"))
    model.names, model.args, model.task = said["names"], dict(facts["args"]), facts["args"]["task"]
    return model.eval()


def check_buildable(saved: SavedCheckpoint, facts: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a model that cannot be built from its description."""
    what = "model in quantization-aware training"
    if facts["args"].get("quantize") != 8:
        what = refusal(facts["architecture"])
    if what is None:
        return
    raise CheckpointError(
        f"{saved.path} holds a {what}, which cannot be built again: only Ultralytics' own plain models can."
        ' Its weights are in epochal.checkpoint(path).load("model"); Ultralytics resumes its own last.pt'
    )


def about(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Ultralytics writes beside the weights."""
    from ultralytics import __version__

    return {
        "train_args": dict(facts["args"]),
        "train_metrics": {**facts["metrics"], "fitness": facts["fitness"]},
        "date": datetime.now(UTC).astimezone().isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file of torch's whole or not at all."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def read_results(path: Path) -> dict[str, list[Any]]:
    """Return a results.csv as columns of numbers, as Ultralytics keeps it in its files."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError:
        return {}
    return {name: [as_number(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def as_number(text: str) -> float | int | None:
    """Return a cell as a number.

    >>> as_number("3"), as_number("0.5"), as_number("")
    (3, 0.5, None)
    """
    try:
        return int(text)
    except ValueError:
        return float(text) if text.strip() else None


def cut_results(path: Path, epochs: int) -> None:
    """Leave the first epochs in a results.csv: later ones are trained again, and a kill may have torn the last line."""
    try:
        head, *rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    whole = [row for row in rows if row.count(",") == head.count(",")]
    kept = [row for row in whole if row.split(",")[0].strip().isdigit() and int(row.split(",")[0]) <= epochs]
    if kept != rows:
        write_atomically(path, "".join(f"{line}\n" for line in (head, *kept)).encode())
