"""A plain loop that goes on in the middle of an epoch: what its callbacks need for it, and what is said of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from epochal.core.log import log
from epochal.core.roster import copied, overridden

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.roster import Roster

BEGINS = "on_train_epoch_start"
MATTERS = ("python", "torch", "numpy", "keras", "tensorflow")  # packages whose version decides how a training goes


class Place(Protocol):
    """Where a run stands in its data: how that was come to again, and what of it may not be exact."""

    report: list[str]
    doubts: list[str]


def reload_states(roster: "Roster", saved: Mapping[str, Any]) -> None:
    """Give callbacks their state again that begin something at an epoch's start: it did begin, batches ago."""
    for label, callback in roster.callbacks.items():
        if label in saved and overridden(callback, BEGINS):
            callback.load_state_dict(copied(saved[label]))


def tell_resumed(saved: Any, engine: "Engine", position: Place) -> None:
    """Say in the log where a resumed run goes on, what is exact in it, and what may not be."""
    inside = f"; {'; '.join(position.report)}" if position.report else ""
    doubts = [*position.doubts, *changed_versions(saved.manifest.versions)]
    text = f"resume: epoch {engine.epoch} goes on after step {engine.step}, from {saved.path}{inside}."
    if doubts:
        log().warning("%s Not certain to be the same to the bit: %s.", text, "; ".join(doubts))
    else:
        log().info("%s Weights, optimizer, random numbers, data, metrics, callbacks: the same to the bit.", text)


def changed_versions(saved: Mapping[str, str]) -> list[str]:
    """Return which packages are of another version than when a checkpoint was written.

    >>> changed_versions({"python": "2.7"})[0].startswith("python was 2.7, is ")
    True
    """
    from epochal.checkpointing.versions import versions

    now = versions()
    return [
        f"{name} was {saved[name]}, is {now[name]}"
        for name in MATTERS
        if name in saved and name in now and saved[name] != now[name]
    ]
