"""Everything a training of Keras has: what of it a checkpoint holds, and how it comes back."""

import sys
from collections.abc import Callable
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.variables import arrays, load_variables, matched
from epochal.core.errors import CheckpointError
from epochal.integrations.entry import wrap
from epochal.integrations.keras_data import Data, set_tensorflow_seed, tensorflow_seed
from epochal.integrations.keras_means import EpochMeans

BUILDS = ("_maybe_symbolic_build", "_symbolic_build")  # the first thing that fit gives its iterator to


class KerasState:
    """Captures and restores a model, its optimizer and metrics, the random generators and the place in the data."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.data = Data()
        self.means = EpochMeans(model)
        self.saved: Any = None  # what this training goes on from

    @property
    def optimizer(self) -> Any:
        """The model's optimizer, or None."""
        return getattr(self.model, "optimizer", None)

    def watch(self) -> Callable[[], None]:
        """Come to know what iterates over the data, when ``fit`` has made it; what is returned ends that."""
        stop = wrap(self.model, next(name for name in BUILDS if hasattr(self.model, name)), self.data.meeting)

        def leave() -> None:
            stop()
            self.data.leave()

        return leave

    def parts(self, *, inside: bool) -> dict[str, Any]:
        """Return all of it, as of now, by part; ``inside`` an epoch with what Keras' metrics have summed up."""
        model = self.model
        parts = {
            "model": arrays(model.weights),
            "seeds": arrays(seeds_of(model)),
            "rng": random_state(),
            "data": self.data.state_dict(inside=inside),
            "keras": {"backend": keras_backend(), "seed": tensorflow_seed()},
        }
        if self.optimizer is not None:
            parts["optimizer"] = arrays(self.optimizer.variables)
        if inside:
            parts["metrics"] = arrays(model.metrics_variables)
            parts["means"] = self.means.state_dict()
        return parts

    def prepare(self, saved: Any) -> None:
        """Let a training go on from a checkpoint: what counts before ``fit`` makes its data set."""
        if "keras" not in saved.parts:
            raise CheckpointError(f"{saved.path} is no checkpoint of a Keras training; nothing was trained")
        facts = saved.load("keras")
        if facts["backend"] != keras_backend():
            self.data.doubts.append(f"Keras ran on {facts['backend']}, runs on {keras_backend()}")
        set_tensorflow_seed(facts["seed"])
        self.saved = saved
        self.data.load_state_dict(saved.load("data"), saved.load("rng"))

    def restore(self) -> None:
        """Give everything the checkpoint's state; metrics get it when the epoch has begun, generators before that."""
        saved = self.saved
        self.build()
        load_variables(saved, self.model)
        assign(saved, "seeds", seeds_of(self.model))
        if self.optimizer is not None:
            assign(saved, "optimizer", self.optimizer.variables)

    def build(self) -> None:
        """Make the variables that Keras on TensorFlow makes in the first batch only."""
        model, optimizer = self.model, self.optimizer
        spec = getattr(getattr(self.data.iterator, "_distributed_dataset", None), "element_spec", None)
        if spec is not None:
            model._symbolic_build(data_batch=spec)
        if optimizer is not None and not optimizer.built and model.built:
            optimizer.build(model.trainable_variables)

    def begin_epochs(self) -> None:
        """All is set up: from here on random numbers are drawn as in the training that is gone on from."""
        if self.saved is not None:
            restore_random_state(self.saved.load("rng"))

    def go_inside(self) -> bool:
        """Let the metrics of an epoch that has begun again stand where they were; say whether it has."""
        place = self.data.saved
        inside = place is not None and bool(place["done"])
        if inside:
            assign(self.saved, "metrics", self.model.metrics_variables)
            self.means.load_state_dict(self.saved.load("means"))
        return inside


def keras_backend() -> str:
    """Return the name of the library that Keras runs on."""
    import keras

    return str(keras.backend.backend())


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
