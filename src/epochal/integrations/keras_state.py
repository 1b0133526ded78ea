"""Everything a training of Keras has: what of it a checkpoint holds, and how it comes back."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.variables import arrays, load_variables, matched
from epochal.core.errors import CheckpointError
from epochal.integrations.entry import wrap
from epochal.integrations.keras_data import Data

MATTERS = ("python", "keras", "tensorflow", "torch", "numpy")  # versions that decide how a training goes
BUILDS = ("_maybe_symbolic_build", "_symbolic_build")  # the first thing that fit gives its iterator to


class KerasState:
    """Captures and restores a model, its optimizer, the random generators and the place in the data."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.data = Data()
        self.saved: Any = None  # what this training goes on from

    @property
    def optimizer(self) -> Any:
        """The model's optimizer, or None."""
        return getattr(self.model, "optimizer", None)

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has, where Keras knows."""
        return self.data.num_batches

    def watch(self) -> Callable[[], None]:
        """Come to know what iterates over the data, when ``fit`` has made it; what is returned ends that."""
        return wrap(self.model, next(name for name in BUILDS if hasattr(self.model, name)), self.data.meeting)

    def parts(self, *, inside: bool) -> dict[str, Any]:
        """Return all of it, as of now, by part; ``inside`` an epoch with what Keras' metrics have summed up."""
        model = self.model
        parts = {
            "model": arrays(model.weights),
            "seeds": arrays(seeds_of(model)),
            "rng": random_state(),
            "data": self.data.state_dict(inside=inside),
            "keras": {"backend": backend(), "build": build_config(model)},
        }
        if self.optimizer is not None:
            parts["optimizer"] = arrays(self.optimizer.variables)
        if inside:
            parts["metrics"] = arrays(model.metrics_variables)
        return parts

    def restore(self, saved: Any) -> None:
        """Give everything the state that a checkpoint holds; the random generators get theirs when epochs begin."""
        facts = saved.load("keras") if "keras" in saved.parts else None
        if facts is None:
            raise CheckpointError(f"{saved.path} is no checkpoint of a Keras training; nothing was trained")
        self.build(facts["build"])
        load_variables(saved, self.model)
        assign(saved, "seeds", seeds_of(self.model))
        if self.optimizer is not None:
            assign(saved, "optimizer", self.optimizer.variables)
        self.data.load_state_dict(saved.load("data"))
        self.saved = saved

    def build(self, config: Mapping[str, Any] | None) -> None:
        """Make the variables that Keras would make in the first batch."""
        model = self.model
        if not model.built and config:
            model.build_from_config(dict(config))
        if self.optimizer is not None and not self.optimizer.built and model.built:
            self.optimizer.build(model.trainable_variables)

    def begin_epochs(self) -> None:
        """All is set up: from here on random numbers are drawn as in the training that is gone on from."""
        if self.saved is not None:
            restore_random_state(self.saved.load("rng"))


def backend() -> str:
    """Return the name of the library that Keras runs on."""
    import keras

    return str(keras.backend.backend())


def build_config(model: Any) -> Any:
    """Return from what a model's variables are made, where it says so."""
    return model.get_build_config() if model.built else None


def seeds_of(model: Any) -> list[Any]:
    """Return the states of all seed generators of a model, and of Keras' own if that has drawn."""
    weights = {id(weight) for weight in model.weights}
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    state: Any = sys.modules["keras.src.backend.common.global_state"]
    shared = state.get_global_attribute("global_seed_generator")
    return seeds if shared is None else [*seeds, shared.state]


def assign(saved: Any, part: str, variables: list[Any]) -> None:
    """Give variables what a part of a checkpoint holds."""
    try:
        pairs = matched(saved.load(part), variables)
    except CheckpointError as error:
        raise CheckpointError(f"{saved.path} is the checkpoint of another training; {part}:\n{error}") from None
    for variable, value in pairs:
        variable.assign(value)
