"""Where a fit stands in its training data, which Lightning's own fetcher reads."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.data.position import Position, Reading


class Feed:
    """Notes the random state under which Lightning begins to read its loaders, and reads them so again.

    Lightning makes a loader's iterator itself; ``begins`` is called right before that. In a training that was resumed
    ``around`` puts iterators in their place that stand where the checkpoint was taken.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.position = Position()

    @property
    def single(self) -> bool:
        """Whether one loader that knows its length is read: its place inside an epoch can be come to again."""
        readings = self.position.readings
        return len(readings) == 1 and readings[0].length is not None

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the place, that ``inside`` the epoch if it is open."""
        state = self.position.state_dict(inside=inside)
        state["reloaded"] = [getattr(loop, name) for loop, name in self.reloads()]
        if inside and self.position.readings:
            state["readings"] = [
                {**self.position.readings[0].state_dict(), "taken": self.trainer.fit_loop.batch_idx + 1}
            ]
        return state

    def load_state_dict(self, saved: Mapping[str, Any], random: dict[str, Any], *, inside: bool) -> None:
        """Take the place; between epochs the random generators are as they were then, from now on."""
        self.position.load_state_dict(saved, random)
        for (loop, name), epoch in zip(self.reloads(), saved["reloaded"], strict=True):
            setattr(loop, name, epoch)
        if not inside:
            restore_random_state(random)
            self.position.saved = self.position.saved_random = None

    def reloads(self) -> list[tuple[Any, str]]:
        """Return where Lightning notes in which epoch it asked for loaders last."""
        loop = self.trainer.fit_loop
        return [(loop, "_last_train_dl_reload_epoch"), (loop.epoch_loop.val_loop, "_last_val_dl_reload_epoch")]

    def loaders(self) -> list[Any]:
        """Return the training's loaders."""
        return list(self.trainer.fit_loop._combined_loader.flattened)

    def begins(self) -> None:
        """Lightning is about to make the iterators of an epoch."""
        position, loaders = self.position, self.loaders()
        position.begin_epoch(self.trainer.current_epoch)
        for number, loader in enumerate(loaders):
            sources = position.meet(f"train{number}", loader)
            reading = Reading(loader, 0, sources)
            reading.random, reading.before = random_state(), sources.states()
            reading.live_workers = sources.has_live_workers()
            position.readings.append(reading)

    def validates(self) -> None:
        """Lightning is about to make the iterators of a validation."""
        combined = self.trainer.fit_loop.epoch_loop.val_loop._combined_loader
        for number, loader in enumerate(() if combined is None else combined.flattened):
            self.position.meet(f"val{number}", loader)

    def around(self, fetcher: Any, begin: Callable[[Any], None]) -> None:
        """Let Lightning begin to read, then put iterators in place of its own that stand where the checkpoint says."""
        position, combined = self.position, self.trainer.fit_loop._combined_loader
        before, inside = random_state(), position.saved is not None
        begin(fetcher)
        restore_random_state(before)
        if inside:
            position.begin_epoch(self.trainer.current_epoch)
            iterators = [values(position.read(self.loaders()[0]))]
        else:
            self.begins()
            iterators = [values_of(reading, self.trainer.current_epoch) for reading in position.readings]
        combined._iterator.iterators = iterators
        combined._iterator._idx = fetcher.fetched = position.readings[0].taken if inside else 0
        if getattr(fetcher, "batches", None):  # fetched ahead, where the length is unknown
            fetcher.batches.clear()
            fetcher.batches.append(next(fetcher))


def values_of(reading: Reading, epoch: int) -> Iterator[Any]:
    """Return the batches of a loader that is read from its start."""
    state = reading.sources.loading
    if state is not None and not state.get("_iterator_finished"):  # Lightning leaves an iterator before its end
        random = random_state()
        reading.sources.open(epoch=epoch)
        restore_random_state(random)
    reading.batches = reading.sources.open(epoch=epoch).batches
    return values(reading)


def values(reading: Reading) -> Iterator[Any]:
    """Return the batches of a reading, without their numbers.

    >>> position = Position()
    >>> position.begin_epoch(0)
    >>> list(values(position.read([1, 2])))
    [1, 2]
    """
    return (data for _, data in reading.batches)
