"""Ultralytics' names of metrics, and Epochal's."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KIND = re.compile(r"(?P<name>.+)\((?P<kind>\w)\)")  # "mAP50(B)": of boxes, as against masks (M) or poses (P)


def canonical(native: str) -> str:
    """Return our name for one of Ultralytics' metrics.

    >>> canonical("metrics/mAP50-95(B)"), canonical("val/box_loss")
    ('val/mAP50-95(B)', 'val/box_loss')
    """
    return f"val/{native.removeprefix('metrics/')}" if native.startswith("metrics/") else native


def aliases(natives: Iterable[str]) -> dict[str, str]:
    """Return every accepted name of these metrics with the one it stands for.

    Where all metrics are of one kind, the kind may be left out.

    >>> aliases(["metrics/mAP50(B)"])["val/mAP50"]
    'val/mAP50(B)'
    >>> sorted(aliases(["metrics/mAP50(B)", "metrics/mAP50(M)"]))
    ['metrics/mAP50(B)', 'metrics/mAP50(M)']
    """
    names = [name for name in natives if name.startswith("metrics/")]
    found = {name: canonical(name) for name in names}
    kinds = [match for name in names if (match := KIND.fullmatch(name)) is not None]
    if len({match["kind"] for match in kinds}) == 1:
        for match in kinds:
            ours, plain = canonical(match[0]), canonical(match["name"])
            found |= {match["name"]: ours, plain: ours}
            found[f"final/{plain.removeprefix('val/')}"] = f"final/{ours.removeprefix('val/')}"
    return found


def named_losses(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch's losses by our names, with their sum as ``train/loss``; tensors stay tensors.

    >>> named_losses({"box_loss": 1.0, "cls_loss": 2.0})
    {'train/box_loss': 1.0, 'train/cls_loss': 2.0, 'train/loss': 3.0}
    """
    named = {f"train/{name}": value for name, value in items.items()}
    if "train/loss" not in named:
        named["train/loss"] = total(list(items.values()))
    return named


def total(values: Sequence[Any]) -> Any:
    """Return the sum of numbers or of tensors; tensors are added where they are, without reading them."""
    if all(hasattr(value, "detach") for value in values):
        import torch

        return torch.stack([value.reshape(()) for value in values]).sum()
    return sum(values)


def validated(metrics: Mapping[str, float], loss_names: Sequence[str]) -> dict[str, float]:
    """Return what a validation measured by our names, with the sum of its losses as ``val/loss``.

    >>> validated({"metrics/mAP50(B)": 0.5, "val/box_loss": 1.0, "val/cls_loss": 2.0}, ["box_loss", "cls_loss"])
    {'val/mAP50(B)': 0.5, 'val/box_loss': 1.0, 'val/cls_loss': 2.0, 'val/loss': 3.0}
    """
    named = {canonical(name): value for name, value in metrics.items() if name != "fitness"}
    losses = [named[f"val/{name}"] for name in loss_names if f"val/{name}" in named]
    if losses and "val/loss" not in named:
        named["val/loss"] = sum(losses)
    return named
