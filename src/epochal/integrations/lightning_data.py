"""Where a fit stands in its training data, which Lightning's own fetcher reads."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state, same_random_state
from epochal.data.order import kind_of
from epochal.data.position import Position, Reading

Notice = Callable[[], None]
GoesOn = Callable[[Any, Callable[[Any], None]], bool]


class Feed:
    """Notes the random state under which Lightning begins to read its loaders, and reads them so again.

    Lightning makes a loader's iterator itself; ``begins`` is called right before that, ``made`` after it. In a training
    that was resumed ``replace`` puts iterators in their place that stand where the checkpoint was taken.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.position = Position()
        self.after: dict[str, Any] | None = None  # the random state when the iterators of an epoch were made
        self.late = False  # and another when the sampler drew the order of this epoch

    @property
    def single(self) -> bool:
        """Whether one loader that knows its length is read: its place inside an epoch can be come to again.

        A module that takes batches from Lightning's fetcher itself may have taken more than it has trained on.
        """
        readings, loop = self.position.readings, self.trainer.fit_loop
        known = len(readings) == 1 and readings[0].length is not None
        return known and loop._data_fetcher.fetched == loop.batch_idx + 1

    # -- what Lightning's methods show ------------------------------------------------------------------------------

    def wrappers(self, goes_on: GoesOn) -> list[tuple[Any, str, Callable[[Any], Any]]]:
        """Return what is to be wrapped, and how; ``goes_on`` reads what a checkpoint began, where there is one."""
        loop = self.trainer.fit_loop
        return [
            (loop, "_load_combined_loader_states", lambda original: around(original, after=self.begins)),
            (loop, "setup_data", lambda original: around(original, after=self.made)),
            (loop.epoch_loop, "on_run_start", lambda original: self.reading(original, goes_on)),
            (loop.epoch_loop.val_loop, "reset", lambda original: around(original, before=self.validates)),
        ]

    def reading(self, original: Callable[[Any], None], goes_on: GoesOn) -> Callable[[Any], None]:
        """See loaders before an epoch is read: Lightning makes their iterators now, except for a fit's first epoch."""

        def on_run_start(fetcher: Any) -> None:
            if goes_on(fetcher, original):
                return
            loop = self.trainer.fit_loop
            restarts = loop.epoch_loop.restarting or getattr(loop, "is_resuming", False)  # Lightning >= 2.6
            if self.trainer.current_epoch > 0 and not restarts:
                self.begins()
            else:
                self.opened(inside=loop.epoch_loop.batch_progress.current.ready > 0)
            original(fetcher)

        return on_run_start

    # -- the place --------------------------------------------------------------------------------------------------

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the place, that ``inside`` the epoch if it is open."""
        state = self.position.state_dict(inside=inside)
        state["reloaded"] = [getattr(loop, name) for loop, name in self.reloads()]
        if inside and self.position.readings:
            reading, taken = self.position.readings[0].state_dict(), self.trainer.fit_loop.batch_idx + 1
            state["readings"] = [{**reading, "taken": taken, "late": self.late}]
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
        self.after, self.late = None, False
        position.begin_epoch(self.trainer.current_epoch)
        for number, loader in enumerate(loaders):
            sources = position.meet(f"train{number}", loader)
            reading = Reading(loader, 0, sources)
            reading.random, reading.before = random_state(), sources.states()
            reading.live_workers = sources.has_live_workers()
            position.readings.append(reading)

    def made(self) -> None:
        """Lightning has made the iterators."""
        if self.after is None:
            self.after = random_state()

    def opened(self, *, inside: bool) -> None:
        """Lightning is about to read iterators that it made before the training began; ``inside`` an epoch of its own.

        A sampler draws its order with its first batch: under other random numbers, if somebody drew some since. Where
        in the data it goes on, Lightning itself does not know.
        """
        readings, now = self.position.readings, random_state()
        self.position.epoch = self.trainer.current_epoch  # Lightning may not have known it yet
        if inside:
            readings.clear()
        if self.after is None or same_random_state(self.after, now):
            return
        for reading in readings:
            if draws_late(reading.loader):
                reading.random, self.late = now, True

    def validates(self) -> None:
        """Lightning is about to make the iterators of a validation."""
        if self.trainer.sanity_checking:
            return
        combined = self.trainer.fit_loop.epoch_loop.val_loop._combined_loader
        for number, loader in enumerate(() if combined is None else combined.flattened):
            self.position.meet(f"val{number}", loader)

    def replace(self, fetcher: Any, begin: Callable[[Any], None]) -> None:
        """Let Lightning begin to read, then put iterators in place of its own that stand where the checkpoint says."""
        position, combined = self.position, self.trainer.fit_loop._combined_loader
        before, inside = random_state(), position.saved is not None
        begin(fetcher)
        restore_random_state(before)
        if inside:
            iterators = [self.goes_on(self.loaders()[0])]
        else:
            self.begins()
            iterators = [values_of(reading, self.trainer.current_epoch) for reading in position.readings]
        combined._iterator.iterators = iterators
        combined._iterator._idx = fetcher.fetched = position.readings[0].taken if inside else 0
        if getattr(fetcher, "batches", None):  # fetched ahead, where the length is unknown
            fetcher.batches.clear()
            fetcher.batches.append(next(fetcher))

    def goes_on(self, loader: Any) -> Iterator[Any]:
        """Return a loader's batches from where the checkpoint says."""
        position = self.position
        late = position.saved is not None and any(one.get("late") for one in position.saved["readings"])
        position.begin_epoch(self.trainer.current_epoch)
        if not (late and draws_late(loader)):
            return values(position.read(loader))
        import torch

        loader.generator = torch.Generator()  # of no use, but an iterator draws a seed of workers that are not there
        try:
            reading = position.read(loader)
        finally:
            loader.generator = None
        reading.sources.generators.pop(".generator", None)
        self.late = not reading.anew
        return values(reading)

    def close(self) -> None:
        """Let go of iterators, and so of their workers."""
        for reading in self.position.readings:
            reading.batches = iter(())


def around(original: Notice, *, before: Notice | None = None, after: Notice | None = None) -> Notice:
    """Return a method that does something before or after what it did."""

    def method() -> None:
        if before is not None:
            before()
        original()
        if after is not None:
            after()

    return method


def draws_late(loader: Any) -> bool:
    """Say whether a loader's iterator leaves the global random generators to its sampler, at its first batch.

    >>> draws_late([1, 2])
    False
    """
    return kind_of(loader) == "torch" and not loader.num_workers and loader.generator is None


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
