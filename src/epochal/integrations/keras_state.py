"""Everything a training of Keras has: what of it a checkpoint holds, and how it comes back."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.variables import arrays, matched
from epochal.core.errors import CheckpointError
from epochal.integrations.entry import wrap
from epochal.integrations.keras_data import Data, set_tensorflow_seed, tensorflow_seed
from epochal.integrations.keras_means import EpochMeans
from epochal.integrations.keras_rates import beside

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
        stops = (
            wrap(self.model, next(name for name in BUILDS if hasattr(self.model, name)), self.data.meeting),
            self.means.watch(),
            self.data.leave,
        )

        def leave() -> None:
            for stop in stops:
                stop()

        return leave

    def parts(self, *, inside: bool) -> dict[str, Any]:
        """Return all of it, as of now, by part; ``inside`` an epoch with what Keras' metrics have summed up."""
        model, optimizer = self.model, self.optimizer
        parts = {
            "model": arrays(model.weights),
            "seeds": arrays([*seeds_of(model), *shared_seed()]),
            "rng": random_state(),
            "data": self.data.state_dict(inside=inside),
            "keras": {"backend": keras_backend(), "seed": tensorflow_seed(), "stepped": is_built(optimizer)},
        }
        if optimizer is not None:
            parts["optimizer"] = arrays(optimizer.variables)
        others = beside(model)
        if others:
            parts["optimizers"] = {name: optimizer_state(one, model.weights) for name, one in others.items()}
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
        weights, stepped = saved.load("model"), saved.load("keras").get("stepped", True)
        self.build(weights, stepped=stepped)
        self.assign("model", weights, self.model.weights)
        seeds, saved_seeds = seeds_of(self.model), saved.load("seeds")
        if len(saved_seeds) > len(seeds):  # Keras' own has drawn by then, and not yet here
            seeds += shared_seed(make=True)
        self.assign("seeds", saved_seeds, seeds)
        if self.optimizer is not None and stepped:
            self.assign("optimizer", saved.load("optimizer"), self.optimizer.variables)
        if "optimizers" in saved.parts:
            self.restore_others(saved.load("optimizers"))

    def build(self, weights: Mapping[str, Any], *, stepped: bool) -> None:
        """Make the variables that Keras on TensorFlow makes in the first batch only."""
        model, optimizer = self.model, self.optimizer
        spec = getattr(getattr(self.data.iterator, "_distributed_dataset", None), "element_spec", None)
        try:
            if spec is not None:
                model._symbolic_build(data_batch=spec)
        except (RuntimeError, ValueError) as error:  # it has no `call`, as a GAN; its networks may stand all the same
            if len(model.weights) != len(weights):
                raise CheckpointError(
                    f"{type(model).__name__} cannot be built before its first batch, so that it cannot go on from"
                    f" {self.saved.path}: build what it is made of before fit(), as with keras.layers.Input"
                ) from error
        if stepped and optimizer is not None and not optimizer.built and model.built:
            optimizer.build(model.trainable_variables)

    def restore_others(self, states: Mapping[str, Any]) -> None:
        """Give the optimizers beside the model's own their states."""
        now, weights = beside(self.model), self.model.weights
        for name, state in states.items():
            if name not in now or state["of"] is None:
                self.data.doubts.append(f"the state of {name} is not restored")
                continue
            if state["of"] and not now[name].built:
                now[name].build([weights[place] for place in state["of"]])
            self.assign(name, state["variables"], now[name].variables)

    def begin_epochs(self) -> None:
        """All is set up: from here on random numbers are drawn as in the training that is gone on from."""
        if self.saved is not None:
            restore_random_state(self.saved.load("rng"))

    def go_inside(self) -> bool:
        """Let the metrics of an epoch that has begun again stand where they were; say whether it has."""
        place = self.data.saved
        inside = place is not None and bool(place["done"])
        if inside:
            self.assign("metrics", self.saved.load("metrics"), self.model.metrics_variables)
            self.means.load_state_dict(self.saved.load("means"))
        return inside

    def assign(self, part: str, saved: Mapping[str, Any], variables: list[Any]) -> None:
        """Give variables what a part of the checkpoint holds."""
        try:
            pairs = matched(saved, variables)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.saved.path} is the checkpoint of another training; {part}:\n{error}"
            ) from None
        for variable, value in pairs:
            variable.assign(value)


def keras_backend() -> str:
    """Return the name of the library that Keras runs on."""
    import keras

    return str(keras.backend.backend())


def is_built(optimizer: Any) -> bool:
    """Say whether an optimizer has done a step, or could."""
    return bool(getattr(optimizer, "built", False))


def seeds_of(model: Any) -> list[Any]:
    """Return the states of all seed generators of a model."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def shared_seed(*, make: bool = False) -> list[Any]:
    """Return the state of the seed generator that is nobody's own, if it has drawn; ``make``: or else will."""
    if make:
        return [sys.modules["keras.src.random.seed_generator"].global_seed_generator().state]
    state: Any = sys.modules["keras.src.backend.common.global_state"]
    shared = state.get_global_attribute("global_seed_generator")
    return [] if shared is None else [shared.state]


def optimizer_state(optimizer: Any, weights: list[Any]) -> dict[str, Any]:
    """Return an optimizer's state, with the places that its weights have among a model's; None: not all are there."""
    places = {id(weight): place for place, weight in enumerate(weights)}
    of = [places.get(id(variable)) for variable in optimizer._trainable_variables]
    return {"of": None if None in of else of, "variables": arrays(optimizer.variables)}
