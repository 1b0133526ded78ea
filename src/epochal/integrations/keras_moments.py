"""The callback of Keras' own kind that tells a training Keras' moments."""

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from epochal.integrations.keras_training import Training


class Moments(keras.callbacks.Callback):
    """Calls a training; the last of the callbacks that the user gives to ``fit``.

    Batches are seen elsewhere: a callback with ``on_train_batch_end`` makes Keras wait for the device in each batch.
    """

    def __init__(self, training: "Training") -> None:
        super().__init__()
        self.training = training

    def on_train_begin(self, logs: Any = None) -> None:
        """Everything stands; the epochs follow."""
        self.training.train_begin((self.params or {}).get("epochs"))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch begins."""
        self.training.epoch_begin(epoch)

    def on_test_begin(self, logs: Any = None) -> None:
        """The batches of the epoch are done, its validation begins."""
        self.training.test_begin()

    def on_test_end(self, logs: Any = None) -> None:
        """The validation is done."""
        self.training.test_end(logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch is done, after its validation."""
        self.training.epoch_end(logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """The training is done."""
        self.training.engine.train_end()
