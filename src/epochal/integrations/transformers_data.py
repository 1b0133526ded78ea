"""Where a Transformers training stands in its data: seen while it reads, and come to again exactly."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.saver import Resumes
from epochal.data.opening import doubt_of, open_at
from epochal.data.order import kind_of, order_differences, order_of, order_text
from epochal.data.sources import Sources
from epochal.integrations.entry import wrap


class ReadData:
    """The training's data as its trainer reads them: group by group of batches, one batch fetched ahead.

    What a data set draws from the random generators is drawn when a batch is fetched: ``ahead`` is the random state
    before the newest fetch, so that the batch fetched ahead is the same when it is fetched again. A loader that was
    made without accelerate fetches nothing ahead, and draws already when its iterator is made.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.loader = trainer.callback_handler.train_dataloader
        self.fetches_ahead = hasattr(self.loader, "base_dataloader")  # accelerate's, which has torch's inside
        self.inner = getattr(self.loader, "base_dataloader", self.loader)
        self.sources = Sources(self.inner)
        self.iterator: Iterator[Any] = iter(())
        self.taken = 0
        self.begins = self.closed = False
        self.random: dict[str, Any] = {}  # when the epoch's first batch was fetched
        self.starts: dict[str, Any] = {}  # the generators inside the loader, then
        self.ahead: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.saved: Mapping[str, Any] | None = None  # the place to come to in the epoch that begins
        self.later: tuple[dict[str, Any], dict[str, Any]] | None = None  # the random state there, and the generators'
        self.report: list[str] = []  # how it was come to
        self.doubts: list[str] = []  # and what of it may not be exact

    @property
    def order(self) -> str:
        """The fingerprint of the order in which the data comes."""
        return order_text(order_of(self.inner))

    @property
    def resumes(self) -> Resumes:
        """From where a training goes on: Transformers passes batches by in torch's loaders only."""
        return "batch" if kind_of(self.inner) == "torch" else "epoch"

    # -- reading ------------------------------------------------------------------------------------------------------

    def begin_epoch(self, done: int, *, closed: bool = False) -> None:
        """An epoch begins, or goes on behind so many batches; ``closed``: it gives none."""
        self.taken, self.begins, self.closed = done, True, closed

    def join(self) -> Callable[[], None]:
        """See the trainer read; what is returned ends that, and lets go of the loader's workers."""
        unwrap = wrap(self.trainer, "get_batch_samples", self.showing)

        def leave() -> None:
            unwrap()
            self.iterator = iter(())

        return leave

    def note_random(self) -> None:
        """Note the random state under which the epoch's iterator is made."""
        self.random, self.starts = random_state(), self.sources.states()

    def showing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the trainer's ``get_batch_samples``, seen: it reads the batches of one optimizer step."""

        def get_batch_samples(epoch_iterator: Iterator[Any], num_batches: int, *args: Any, **options: Any) -> Any:
            first, self.begins = self.begins, False
            if first:
                self.open(epoch_iterator)
            return original(self.noted(num_batches, first=first), num_batches, *args, **options)

        return get_batch_samples

    def open(self, iterator: Iterator[Any]) -> None:
        """Begin to read an epoch's batches, or go on where a checkpoint was taken."""
        self.iterator, self.ahead = iterator, None
        saved, self.saved = self.saved, None
        if saved is not None:
            self.go_on(saved)
        elif self.fetches_ahead:  # such an iterator draws nothing before its first batch
            self.note_random()

    def noted(self, count: int, *, first: bool) -> Iterator[Any]:
        """Yield the next batches; a first group is fetched in one go, nothing is drawn in between."""
        watched = self.fetches_ahead and not first and not self.inner.num_workers
        for number in range(0 if self.closed else count):
            if watched and number == count - 1:
                self.ahead = random_state(), self.sources.states()
            try:
                batch = next(self.iterator)
            except StopIteration:
                return
            self.taken += 1
            yield batch

    # -- saved and put back ---------------------------------------------------------------------------------------

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the place in the epoch, if one is open, and the generators of the loader."""
        place = {"taken": self.taken, "random": self.random, "starts": self.starts, "ahead": self.ahead}
        sampler = seeded_sampler(self.inner)
        return {
            "place": place if inside else None,
            "order": order_of(self.inner),
            "sources": self.sources.state_dict(),
            "seed": None if sampler is None else sampler.initial_seed,
        }

    def load_state_dict(self, state: Mapping[str, Any], random: dict[str, Any]) -> None:
        """Take a place; ``random``: the random state of that moment."""
        sampler, inside = seeded_sampler(self.inner), state["place"] is not None
        if sampler is not None and state["seed"] is not None:
            sampler.initial_seed = state["seed"]
        if state["sources"]["live_workers"] and not inside:
            self.sources.start_workers()
        self.sources.load_state_dict(state["sources"], within=inside)
        self.later = random, self.sources.states()
        differs = order_differences(state["order"], order_of(self.inner))
        if differs:
            self.doubts.append(f"the data comes in another order ({'; '.join(differs)})")
        elif inside and self.trainer.args.ignore_data_skip:
            self.doubts.append("ignore_data_skip=True: this epoch's data began anew")
        elif inside:
            self.saved = state["place"]
        if state["order"].get("workers") != order_of(self.inner).get("workers"):
            self.doubts.append("dataloader_num_workers has changed: exact if the data set draws no random numbers")
        if kind_of(self.inner) == "stateful":
            self.doubts.append("torchdata's StatefulDataLoader begins its epochs in an order of its own")
        if doubt := doubt_of(self.inner):
            self.doubts.append(doubt)

    def restore_random(self) -> None:
        """Set the random generators to where they were when the checkpoint was taken, if an epoch begins there."""
        if self.later is not None and self.saved is None:
            restore_random_state(self.later[0])
            self.later = None

    def go_on(self, saved: Mapping[str, Any]) -> None:
        """Come to where the data were read to: under the random state of then, and behind it that of later."""
        later, states = self.later or (random_state(), self.sources.states())
        self.taken, self.random, self.starts = saved["taken"], saved["random"], saved["starts"]
        restore_random_state(self.random)
        self.sources.set(self.starts)
        by_fetching = self.fetches_ahead and saved["ahead"] is None and not self.inner.num_workers
        opening = open_at(self.inner, 0 if by_fetching else self.taken)
        batches = (batch for _, batch in opening.batches)
        if by_fetching:
            for _ in range(self.taken):
                next(batches, None)
        elif saved["ahead"] is not None:
            random, generators = saved["ahead"]
            restore_random_state(random)
            self.sources.set(generators)
        coming = list(next_of(batches)) if self.fetches_ahead else []
        restore_random_state(later)
        self.sources.set(states)
        self.later = None
        self.iterator = self.placed(coming, batches) if self.fetches_ahead else batches
        self.report.append(f"batch {self.taken} of {self.order}, come to {opening.how}")

    def placed(self, coming: list[Any], batches: Iterator[Any]) -> Iterator[Any]:
        """Yield batches on the trainer's device, one fetched ahead, as accelerate's loader does."""
        from accelerate.utils import send_to_device

        device = getattr(self.loader, "device", None)
        while coming:
            batch = coming[0] if device is None else send_to_device(coming[0], device)
            coming = list(next_of(batches))
            yield batch


def next_of(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield one more batch, if there is one.

    >>> list(next_of(iter([1, 2]))), list(next_of(iter([])))
    ([1], [])
    """
    for batch in batches:
        yield batch
        return


def seeded_sampler(loader: Any) -> Any:
    """Return accelerate's sampler whose order comes from a seed and the epoch, if a loader has it inside."""
    sampler = loader
    for _ in range(4):
        inside = [getattr(sampler, name, None) for name in ("batch_sampler", "sampler")]
        sampler = next((one for one in inside if one is not None), None)  # a sampler may have no length, nor be true
        if hasattr(sampler, "initial_seed") and hasattr(sampler, "set_epoch"):
            return sampler
    return None
