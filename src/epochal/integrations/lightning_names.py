"""Lightning's names of metrics, and Epochal's; which of its metrics are new at a moment."""

from collections.abc import Iterable, Mapping
from typing import Any

PREFIXES = ("train", "val")


class Names(dict[str, str]):
    """Lightning's names with ours, made when somebody asks for one; of our own names, when one is logged or ``known``.

    >>> names = Names(known=["train/acc"])
    >>> names.get("val_loss", "val_loss"), names.get("acc", "acc"), dict(names)
    ('val/loss', 'acc', {'train_acc': 'train/acc', 'val_loss': 'val/loss'})
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        super().__init__()
        for name in known:
            self.get(name)

    def get(self, name: str, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return our name for ``val_...`` and ``train_...``, else what is known or the default."""
        if name not in self:
            ours = canonical(name)
            head, slash, rest = ours.partition("/")
            if slash and rest and head in PREFIXES:
                self[f"{head}_{rest}"] = ours
            return default if ours == name else ours
        return self[name]


def canonical(native: str) -> str:
    """Return our name for a metric that a LightningModule logs.

    >>> canonical("val_loss"), canonical("train/acc"), canonical("value")
    ('val/loss', 'train/acc', 'value')
    """
    head, line, rest = native.partition("_")
    return f"{head}/{rest}" if line and rest and head in PREFIXES else native


def in_batch(results: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """Return what was logged in this batch with ``on_step``: a value is new where it is another object than before."""
    found: dict[str, Any] = {}
    for key, metric in results.items():
        if metric.meta.on_step and not metric.has_reset:
            value = metric._forward_cache
            if value is not None and seen.get(key) is not value:
                seen[key] = found[metric.meta.name] = value
    return found


def of_epoch(results: Any) -> dict[str, Any]:
    """Return what was logged for the epoch as a whole, without what was logged in its batches too."""
    values = results.metrics(on_step=False)["callback"]
    metas = [metric.meta for _, metric in results.valid_items()]
    return {meta.name: values[meta.name] for meta in metas if meta.name in values and not meta.on_step}


def fresh(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is new among a trainer's metrics, which keep the old value of what was not logged again.

    Of a metric that was logged for batches and for the epoch Lightning has three names; the plain one is enough.

    >>> old = [1.0]
    >>> fresh({"acc": old, "val_loss": [0.5], "val_loss_epoch": [0.5], "time_step": [2]}, {"acc": old})
    {'val_loss': [0.5], 'time_step': [2]}
    """
    new = {name: value for name, value in metrics.items() if before.get(name) is not value}
    return {name: value for name, value in new.items() if plain(name) == name or plain(name) not in new}


def plain(name: str) -> str:
    """Return a metric's name without what Lightning adds to it for the value of a batch, or that of the epoch.

    >>> plain("val_loss_epoch"), plain("val_loss_epoch/dataloader_idx_0"), plain("lr_step")
    ('val_loss', 'val_loss/dataloader_idx_0', 'lr')
    """
    head, slash, loader = name.partition("/dataloader_idx_")
    for ending in ("_epoch", "_step"):
        if head.endswith(ending):
            return f"{head.removesuffix(ending)}{slash}{loader}"
    return name
