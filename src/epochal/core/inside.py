"""Where a run stands inside an epoch, so that a training can go on in the middle of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.metrics import At, Entry, Mean, Metrics

if TYPE_CHECKING:
    from epochal.core.engine import Engine


def inside_state(engine: "Engine") -> dict[str, Any] | None:
    """Return where an open epoch stands, or None between epochs."""
    if not engine.in_epoch:
        return None
    return {
        "epoch": engine.epoch,
        "batch": engine.batch,
        "validated": engine.fitness_rule.validated,
    }


def go_inside(engine: "Engine", saved: Mapping[str, Any] | None) -> None:
    """Let an epoch that has begun again stand where the run's saved state says; another epoch has nothing to take."""
    inside = None if saved is None else saved.get("inside")
    if saved is not None and inside is not None and inside["epoch"] == engine.epoch:
        engine.batch = inside["batch"]
        engine.fitness_rule.validated = inside["validated"]
        restore_metrics(engine.metrics, saved["metrics"])


def metrics_state(metrics: Metrics) -> dict[str, Any]:
    """Return every metric's newest value, and the sums from which the means of an open epoch are made.

    >>> metrics = Metrics()
    >>> _ = metrics.log({"train/loss": 0.5}, At(0, 0, 1), batch=True)
    >>> again = Metrics()
    >>> restore_metrics(again, metrics_state(metrics))
    >>> _ = again.log({"train/loss": 1.0}, At(0, 1, 2), batch=True)
    >>> dict(again.history_row()), again.measured("train/loss").batch
    ({'train/loss': 0.75}, 1)
    """
    return {name: entry_state(entry) for name, entry in metrics.entries.items() if entry.raw is not None}


def entry_state(entry: Entry) -> dict[str, Any]:
    """Return what is known of one metric."""
    mean = entry.mean
    if mean is not None:
        mean.fold()
    return {
        "value": entry.number(),
        "where": list(entry.where),
        "fresh": entry.fresh,
        "in_epoch": entry.in_epoch,
        "validated": entry.validated,
        "mean": None if mean is None else [mean.total, mean.count],
        "on_way": [copy.number() for copy in entry.on_way],
    }


def restore_metrics(metrics: Metrics, state: Mapping[str, Any]) -> None:
    """Take back what ``metrics_state`` gave; what conditions have not seen yet reaches them at the next safe point."""
    for name, entry in metrics.entries.items():
        if name not in state:
            entry.raw = entry.value = entry.mean = entry.val_mean = None
            entry.fresh = entry.in_epoch = False
        entry.on_way.clear()
        entry.arrivals = None if entry.arrivals is None else []
    for name, saved in state.items():
        entry = metrics.entry(name)
        entry.raw = entry.value = saved["value"]
        entry.where = At(*saved["where"])
        entry.fresh, entry.in_epoch, entry.validated = saved["fresh"], saved["in_epoch"], saved["validated"]
        entry.mean = entry.val_mean = None
        if saved["mean"] is not None:
            entry.mean = Mean()
            entry.mean.total, entry.mean.count = saved["mean"]
        if entry.arrivals is not None:
            entry.arrivals.extend(saved["on_way"])
