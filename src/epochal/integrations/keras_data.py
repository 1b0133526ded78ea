"""Where a training of Keras stands in its data, and how another one comes to the same place."""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.integrations.entry import wrap

KINDS = ("ArrayData", "TFDataset", "PyDataset", "TorchDataLoader", "GeneratorData")  # by their adapters in Keras
UNSEEDED = 87654321  # what TensorFlow says when nobody has set a seed
Step = tuple[int, int, Any]  # the first and the last batch of one call of the training function, and what yields them


class Data:
    """The data of a ``fit``, as Keras' own iterator over epochs goes through it.

    ``opened``: how often the data was opened for iteration, which is what a shuffled ``tf.data.Dataset`` draws its
    orders from; ``epochs``: how many were gone through; ``done``: the batches done in the one that is open.
    """

    def __init__(self) -> None:
        self.iterator: Any = None  # Keras' EpochIterator
        self.opened = self.epochs = self.done = 0
        self.inside = False  # whether a training can come to a place inside this epoch again
        self.num_batches: int | None = None  # of an epoch, where the data says so; what Keras concludes may be too many
        self.ended = False  # whether the data of the epoch has come to its end
        self.random: dict[str, Any] = {}  # when the epoch's data was opened
        self.saved: Mapping[str, Any] | None = None
        self.saved_random: dict[str, Any] = {}
        self.report: list[str] = []  # how the place was come to again
        self.doubts: list[str] = []  # and what of it may not be exact
        self.arrived: Callable[[], None] = lambda: None  # called when the place is come to
        self.undo: list[Callable[[], None]] = []

    # -- meeting Keras' iterator ----------------------------------------------------------------------------------

    def meeting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Come to know the iterator over the training data, the first that ``fit`` makes."""

        def build(*args: Any, iterator: Any = None, **options: Any) -> Any:
            result = original(*args, iterator=iterator, **options)
            if self.iterator is None and iterator is not None:
                self.iterator = iterator
                self.num_batches = iterator.steps_per_epoch or iterator.data_adapter.num_batches
                self.undo.append(wrap(iterator, "_get_iterator", self.opening))
                self.undo.append(wrap(iterator, "_enumerate_iterator", self.reading))
                self.undo.append(wrap(iterator.data_adapter, "on_epoch_end", self.ending))
            return result

        return build

    @property
    def kind(self) -> str:
        """What kind of data it is, by the name of Keras' adapter."""
        return "" if self.iterator is None else type(self.iterator.data_adapter).__name__.removesuffix("Adapter")

    def goes_inside(self) -> bool:
        """Say whether a training can come to a place inside an epoch again."""
        return self.kind in KINDS and (self.kind != "ArrayData" or self.repeats())

    def repeats(self) -> bool:
        """Say whether the order of the data is the same when it is gone through again from the same random state."""
        shuffles = self.kind == "TFDataset" or bool(getattr(self.iterator.data_adapter, "_shuffle", False))
        return not (shuffles and on_tensorflow() and tensorflow_seed() is None)

    def doubt(self, *, inside: bool) -> str:
        """Return why the place may not be exact, or nothing."""
        if not self.repeats():
            return f"{self.kind}: TensorFlow shuffles without a seed; keras.utils.set_random_seed(...) gives it one"
        if self.kind == "TFDataset" and draws(self.iterator.data_adapter._dataset):
            return f"{self.kind}: random numbers that Keras' layers draw inside it, as in map(...), begin anew"
        if inside and on_tensorflow() and self.kind in ("PyDataset", "GeneratorData"):
            return f"{self.kind}: TensorFlow reads ahead, so random numbers drawn while it is read may differ"
        return "" if self.kind in KINDS else f"{self.kind or 'the data'}: Epochal does not know how this kind goes on"

    def opening(self, original: Callable[[], Any]) -> Callable[[], Any]:
        """Count how often the data is opened."""

        def get_iterator() -> Any:
            self.opened += 1
            return original()

        return get_iterator

    def ending(self, original: Callable[[], None]) -> Callable[[], None]:
        """See the end of an epoch's data, which does not come where a stop cuts the epoch short."""

        def on_epoch_end() -> None:
            self.ended = True
            original()

        return on_epoch_end

    def cut(self, batches: int) -> bool:
        """Say whether an epoch that has ended after so many batches has more of them."""
        return not self.ended if self.num_batches is None else batches < self.num_batches

    def reading(self, original: Callable[[], Iterator[Step]]) -> Callable[[], Generator[Step, None, None]]:
        """Yield an epoch's steps, in a training that goes on from where it was."""

        def enumerate_iterator() -> Generator[Step, None, None]:
            self.inside = self.goes_inside()
            skip = self.come_back(original)
            self.ended = False
            self.random = random_state() if not skip else self.random
            for first, last, source in original():
                if first < skip:
                    draw(source, last - first + 1)
                    continue
                if skip:
                    skip = 0
                    self.arrive()
                yield first, last, source
            if skip:
                self.arrive()
            self.epochs += 1
            self.done = 0

        return enumerate_iterator

    # -- coming to a place again ----------------------------------------------------------------------------------

    def come_back(self, original: Callable[[], Iterator[Step]]) -> int:
        """Go through what was gone through before, once; return how many batches of this epoch are to be passed."""
        saved, self.saved = self.saved, None
        if saved is None:
            return 0
        before = random_state()
        if self.iterator.steps_per_epoch:  # one pass through the data goes on over several epochs
            for _ in range(saved["epochs"]):
                for first, last, source in original():
                    draw(source, last - first + 1)
            self.report.append(f"{self.kind} read through {saved['epochs']} epochs to where it was")
        elif self.kind == "TFDataset":
            for _ in range(saved["opened"] - bool(saved["done"])):
                iter(self.iterator._get_iterator())
        self.epochs, self.done = saved["epochs"], saved["done"]
        self.doubts += filter(None, [self.doubt(inside=bool(self.done))])
        restore_random_state(saved["random"] if self.done else before)
        if not self.done:
            self.arrived()
            return 0
        self.random = saved["random"]
        self.report.append(f"batch {self.done} of {self.kind}, come to by reading up to it")
        return self.done

    def arrive(self) -> None:
        """The place inside an epoch is come to: random numbers are drawn as from there on."""
        restore_random_state(self.saved_random)
        self.arrived()

    # -- state ----------------------------------------------------------------------------------------------------

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the place: that ``inside`` an epoch, or between two."""
        inner = {"done": self.done, "random": self.random} if inside else {"done": 0, "random": {}}
        return {"opened": self.opened, "epochs": self.epochs, **inner}

    def load_state_dict(self, state: Mapping[str, Any], random: dict[str, Any]) -> None:
        """Take a place; ``random``: the random state of that moment."""
        self.saved, self.saved_random = state, random

    def leave(self) -> None:
        """Leave Keras' iterator as it was, and let go of the data."""
        while self.undo:
            self.undo.pop()()
        self.iterator = None


def draws(dataset: Any) -> bool:
    """Say whether layers of Keras draw random numbers in the functions of a tf.data.Dataset."""
    functions, inputs = getattr(dataset, "_functions", list)(), getattr(dataset, "_inputs", list)()
    variables = [one.name for function in functions for one in getattr(function.function, "variables", ())]
    return any("seed_generator_state" in name for name in variables) or any(map(draws, inputs))


def draw(source: Any, batches: int) -> None:
    """Fetch so many batches and drop them; the data may end before."""
    for _ in range(batches):
        next(source, None)


def on_tensorflow() -> bool:
    """Say whether Keras runs on TensorFlow."""
    import keras

    return keras.backend.backend() == "tensorflow"


def tensorflow_seed() -> int | None:
    """Return the seed that TensorFlow was given for everything, or None."""
    tensorflow: Any = sys.modules.get("tensorflow")
    seed = UNSEEDED if tensorflow is None else tensorflow.compat.v1.random.get_seed(0)[0]
    return None if seed == UNSEEDED else int(seed)


def set_tensorflow_seed(seed: int | None) -> None:
    """Give TensorFlow this seed, unless it has it: it decides the order in which arrays are shuffled."""
    tensorflow: Any = sys.modules.get("tensorflow")
    if tensorflow is not None and seed is not None and seed != tensorflow_seed():
        tensorflow.random.set_seed(seed)
