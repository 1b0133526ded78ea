"""A validation that somebody asked for in a fit of Keras: an evaluation between two batches."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from epochal.integrations.asked import as_asked, is_asked
from epochal.integrations.keras_moments import moments_of

if TYPE_CHECKING:
    from epochal.integrations.keras_training import Training

ONCE = "validation_data is a generator, which can be read once: Keras itself needs it at the epoch's end"


class Asked:
    """Evaluates a model on what its ``fit`` validates on; what Keras has summed up of the epoch is put back behind it.

    Keras' own callbacks hear nothing of it, and its cached data set is not used, whose place would move.
    """

    def __init__(self, training: "Training") -> None:
        self.training, self.engine, self.model = training, training.engine, training.model
        self.data: tuple[Any, Any, Any] | None = None

    def cannot_validate(self) -> str | None:
        """Return why no validation can be asked for."""
        arguments = self.training.arguments
        given = arguments.get("validation_data")
        if given is None and not arguments.get("validation_split"):
            return "this fit has no validation_data: there is nothing to validate on"
        return ONCE if isinstance(given, Generator) else None

    def validate(self) -> None:
        """Evaluate, as long as somebody asks; not behind an epoch's last batch, where Keras does."""
        if self.training.batch == self.training.data.num_batches and self.engine.metrics.validation_comes:
            return
        while is_asked(self.engine):
            with as_asked(self.engine), self.untouched():
                x, y, weights = self.held_out()
                arguments = self.training.arguments
                self.model.evaluate(
                    x=x, y=y, sample_weight=weights, verbose=0, return_dict=True,
                    batch_size=arguments.get("validation_batch_size") or arguments.get("batch_size"),
                    steps=arguments.get("validation_steps"), callbacks=[moments_of(self.training)],
                )  # fmt: skip

    def held_out(self) -> tuple[Any, Any, Any]:
        """Return what ``fit`` validates on: inputs, targets and weights."""
        if self.data is None:
            import keras

            arguments = self.training.arguments
            given = arguments.get("validation_data")
            if given is None:
                from keras.src.trainers.data_adapters.array_slicing import train_validation_split

                whole = tuple(arguments.get(name) for name in ("x", "y", "sample_weight"))
                _, given = train_validation_split(whole, validation_split=arguments["validation_split"])
            self.data = keras.utils.unpack_x_y_sample_weight(given)
        return self.data

    @contextmanager
    def untouched(self) -> Generator[None]:
        """Put back what an evaluation disturbs: the epoch's metrics, and on torch the mode of the model."""
        model, means = self.model, self.training.means
        before = arrays_of(model.metrics_variables)
        train: Callable[[bool], Any] | None = getattr(model, "train", None)
        mode = getattr(model, "training", None)
        try:
            yield
        finally:
            for variable, value in before:
                variable.assign(value)
            means.disturbed = False
            if train is not None and mode is not None:
                train(mode)


def arrays_of(variables: list[Any]) -> list[tuple[Any, Any]]:
    """Return variables, each with a copy of what it holds."""
    import numpy

    return [(one, numpy.array(one.numpy())) for one in variables]
