"""What a checkpoint of a Lightning fit holds: what is in Lightning's own, and what it forgets; nothing is pickled."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.capture import random_state
from epochal.checkpointing.codec import Encoder
from epochal.checkpointing.difference import describe_difference
from epochal.core.errors import CheckpointError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.checkpointing.saved import SavedCheckpoint
    from epochal.integrations.lightning_data import Feed
    from epochal.integrations.lightning_values import Values


class TrainerState:
    """Captures and gives back a trainer's state."""

    def __init__(self, trainer: Any, feed: "Feed", values: "Values") -> None:
        self.trainer, self.feed, self.values = trainer, feed, values
        self.told: set[str] = set()

    def parts(self, *, inside: bool, held: bool) -> dict[str, Any]:
        """Return the state of everything, by part; ``held``: gradients wait for more batches.

        Before there are optimizers it is the state of the random generators alone.
        """
        trainer = self.trainer
        if not trainer.optimizers:
            return {"rng": random_state()}
        whole = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        model, states, schedulers = (whole.pop(name) for name in ("state_dict", "optimizer_states", "lr_schedulers"))
        loop = whole["loops"]["fit_loop"]
        loop["state_dict"] = {k: v for k, v in loop["state_dict"].items() if k != "combined_loader"}  # ours is exact
        classes = [type(one).__name__ for one in trainer.optimizers]
        waiting = inside and (held or not trainer.lightning_module.automatic_optimization)
        return {
            **({"gradients": gradients(trainer.lightning_module)} if waiting else {}),
            "model": model,
            "optimizer": [{"class": kind, **one} for kind, one in zip(classes, states, strict=True)],
            "scheduler": schedulers,
            "trainer": self.savable(whole),
            "metrics": self.values.state_dict(inside=inside),
            "data": self.feed.state_dict(inside=inside),
            "rng": random_state(),
        }

    def savable(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a checkpoint is plain data and tensors; the rest is left out, which is said once."""
        kept = {name: value for name, value in whole.items() if name != "callbacks" and self.is_plain(name, value)}
        natives = whole.get("callbacks", {})
        return {**kept, "callbacks": {name: one for name, one in natives.items() if self.is_plain(name, one)}}

    def is_plain(self, name: str, value: Any) -> bool:
        """Say whether a value can be saved without pickle."""
        try:
            Encoder("trainer").encode(value)
        except CheckpointError as error:
            if name not in self.told:
                self.told.add(name)
                log().warning("%r is left out of checkpoints: %s", name, error)
            return False
        return True

    def checkpoint(self, saved: "SavedCheckpoint") -> dict[str, Any]:
        """Return what Lightning would have read from its own file."""
        if not {"model", "optimizer", "scheduler", "trainer"} <= set(saved.parts):
            raise CheckpointError(f"{saved.path} is no checkpoint of a Lightning training; nothing was trained")
        return {
            **saved.load("trainer"),
            "state_dict": saved.load("model"),
            "optimizer_states": [without_class(one) for one in saved.load("optimizer")],
            "lr_schedulers": saved.load("scheduler"),
        }

    def check_model(self, saved: "SavedCheckpoint", weights: Mapping[str, Any]) -> None:
        """Raise CheckpointError where the weights are another model's."""
        if self.trainer.lightning_module.strict_loading:
            self.refuse(saved, describe_difference(weights, self.trainer.lightning_module.state_dict()))

    def put_gradients_back(self, saved: "SavedCheckpoint") -> None:
        """Let the gradients wait again that did."""
        waiting = saved.load("gradients") if "gradients" in saved.parts else {}
        for name, parameter in self.trainer.lightning_module.named_parameters():
            if name in waiting:
                parameter.grad = waiting[name].to(parameter.device)

    def check_optimizers(self, saved: "SavedCheckpoint") -> None:
        """Raise CheckpointError where the optimizers are others than those that were saved."""
        before, now = saved.load("optimizer"), self.trainer.optimizers
        if len(before) != len(now):
            self.refuse(saved, f"optimizers: saved {len(before)} of them, current {len(now)}")
        for old, new in zip(before, now, strict=True):
            self.refuse(saved, describe_difference(old, {"class": type(new).__name__, **new.state_dict()}))

    def refuse(self, saved: "SavedCheckpoint", found: str | None) -> None:
        """Raise what is wrong with going on from there, if anything is."""
        if found is not None:
            listed = found.replace("\n", "\n  ")
            raise CheckpointError(
                f"{saved.path} is the checkpoint of another training:\n  {listed}\n"
                "Nothing was trained. Fit the model it was saved with, or start without resume=."
            )


def gradients(module: Any) -> dict[str, Any]:
    """Return the gradients that are there."""
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def without_class(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state as the optimizer knows it.

    >>> without_class({"class": "SGD", "state": {}})
    {'state': {}}
    """
    return {name: value for name, value in state.items() if name != "class"}
