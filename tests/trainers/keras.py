"""A tiny training in Keras: shuffled arrays, dropout, Adam; one compiled model serves many trainings, as if new."""

from functools import cache
from pathlib import Path

from epochal import attach


def make(directory: Path):
    """Return what trains it, its runs below a directory; Keras validates at an epoch's end only."""
    import keras
    import numpy as np

    random = np.random.default_rng(1)
    x, x_val = random.normal(size=(16, 2)).astype("float32"), random.normal(size=(8, 2)).astype("float32")
    y, y_val = x.sum(1, keepdims=True), x_val.sum(1, keepdims=True)

    @cache
    def compiled(accumulation, error=None):
        keras.utils.set_random_seed(0)
        model = (keras.Sequential if error is None else failing(error))(
            [keras.layers.Input((2,)), keras.layers.Dense(3), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
        )
        optimizer = keras.optimizers.Adam(0.1, gradient_accumulation_steps=None if accumulation == 1 else accumulation)
        model.compile(optimizer, "mse", run_eagerly=error is not None)
        optimizer.build(model.trainable_variables)
        variables = [*model.variables, *optimizer.variables]
        return model, variables, [np.array(one.numpy()) for one in variables]

    def train(callbacks, epochs, *, error=None, accumulation=1, resume=False):
        keras.utils.set_random_seed(0)
        model, variables, first = compiled(accumulation, error)
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)
        run = attach(model, *callbacks, dir=directory, name="keras", resume=resume)
        try:
            model.fit(x, y, batch_size=4, epochs=epochs, validation_data=(x_val, y_val), verbose=0)
        finally:
            run.detach()
        return run

    return train


def failing(error):
    """Return a kind of model whose second step raises an error."""
    import keras

    class Failing(keras.Sequential):
        calls = 0

        def train_step(self, *args):
            self.calls += 1
            if self.calls == 2:
                raise error
            return super().train_step(*args)

    return Failing
