"""The callback of Keras' own kind that tells a training Keras' moments."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.integrations.keras_training import Training


def moments_of(training: "Training") -> Any:
    """Return a callback of Keras that calls a training; it belongs behind those that the user gives to ``fit``.

    Batches are seen elsewhere: a callback with ``on_train_batch_end`` makes Keras wait for the device in each batch.
    """
    import keras

    class Moments(keras.callbacks.Callback):
        """Calls the training."""

        def on_train_begin(self, logs: Any = None) -> None:
            training.train_begin((self.params or {}).get("epochs"))

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            training.epoch_begin(epoch)

        def on_test_begin(self, logs: Any = None) -> None:
            training.test_begin()

        def on_test_end(self, logs: Any = None) -> None:
            training.test_end(logs or {})

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            training.epoch_end(logs or {})

        def on_train_end(self, logs: Any = None) -> None:
            training.train_end()

    return Moments()
