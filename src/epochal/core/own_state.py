"""A run's own state: where the training stands, what it measured, what its learning rates are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.inside import inside_state, metrics_state, restore_metrics
from epochal.core.row import Row

if TYPE_CHECKING:
    from epochal.core.engine import Engine

OWN_STATE = ("epoch", "next_epoch", "step", "batches")


def own_state(engine: "Engine") -> dict[str, Any]:
    """Return the run's own state, to be saved beside the callbacks'."""
    return {
        **{name: getattr(engine, name) for name in OWN_STATE},
        "fitness": engine.fitness_rule.state_dict(),
        "history": [dict(row) for row in engine.history],
        "groups": engine.groups.state_dict(),
        "rates": engine.rates.state_dict(),
        "rollbacks": engine.rollbacks.state_dict(),
        "metrics": metrics_state(engine.metrics),
        "inside": inside_state(engine),
    }


def load_own_state(engine: "Engine", state: Mapping[str, Any]) -> None:
    """Take back what ``own_state`` gave."""
    for name in OWN_STATE:
        setattr(engine, name, state[name])
    engine.fitness_rule.load_state_dict(state["fitness"])
    engine.history = [Row(row) for row in state["history"]]
    engine.groups.load_state_dict(state["groups"])
    engine.rates.load_state_dict(state["rates"])
    if "rollbacks" in state:  # 0.1.0 saved none
        engine.rollbacks.load_state_dict(state["rollbacks"])
    restore_metrics(engine.metrics, state.get("metrics", {}))
    engine.reentry = state
    if engine.rates.active:
        engine.take_over_rates()
