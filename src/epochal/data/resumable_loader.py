"""A data loader whose every batch is known by its number: to go on anywhere, with any number of workers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from epochal.core.errors import ArgumentError
from epochal.data.opening import LeftOut
from epochal.data.seeded import BatchOf, Seeded, mixed

REFUSED = {
    "sampler": "the order is a permutation made from seed and epoch",
    "batch_sampler": "the order is a permutation made from seed and epoch",
    "generator": "give seed=, a number",
}


class ResumableLoader:
    """A ``torch.utils.data.DataLoader`` in an order, and with random numbers, made from (seed, epoch, index) alone.

    >>> loader = ResumableLoader(list(range(10)), batch_size=4, seed=1)
    >>> len(loader), sorted(int(one) for batch in loader for one in batch)
    (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> loader.set_epoch(7)
    >>> whole = [batch.tolist() for batch in loader]
    >>> loader.set_epoch(7)
    >>> [batch.tolist() for _, batch in loader.batches_from(1)] == whole[1:]
    True

    dataset
        Anything with ``__len__`` and ``__getitem__`` of an index.
    batch_size, drop_last, num_workers
        As in a DataLoader, and so are all other options but ``sampler``, ``batch_sampler`` and ``generator``.
    shuffle, seed
        True: each epoch has its own permutation, made from ``seed`` and the epoch.

    While a sample is made python, numpy, torch and the generators inside the data set are seeded from (seed, epoch,
    index), while a batch is put together from (seed, epoch, number of the batch), and afterwards all are as they were:
    augmentation is the same with 0 or 8 workers, persistent or not, from the start or from the middle on. In a ``Loop``
    the run tells the epoch; elsewhere ``set_epoch`` does, else every iteration is the next epoch.
    ``ArgumentError`` for a data set without indices (an ``IterableDataset``): its order is its own.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        from torch.utils.data import IterableDataset, default_collate

        for option in REFUSED.keys() & options.keys():
            raise ArgumentError(f"ResumableLoader takes no {option}=: {REFUSED[option]}")
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        ):
            raise ArgumentError(
                f"ResumableLoader needs a data set with __len__ and __getitem__, and {type(dataset).__name__} has not"
                " both; for one that is only iterated use torchdata's StatefulDataLoader"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"ResumableLoader: batch_size is an int >= 1, not {batch_size!r}")
        self.dataset, self.batch_size, self.drop_last, self.num_workers = dataset, batch_size, drop_last, num_workers
        self.shuffle, self.seed = shuffle, seed
        self.options = options
        self.seeded = Seeded(dataset, options.pop("collate_fn", None) or default_collate, seed)
        self.epoch: int | None = None  # as somebody told it
        self.iterations = 0
        self.inner: Any = None
        self.plan: Callable[[], Iterator[BatchOf]] | None = None  # of the iteration that begins

    def __len__(self) -> int:
        samples = len(self.dataset)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        for _, batch in self.batches_from(0):  # an iterator that nobody reads, as Lightning makes some, is no epoch
            yield batch

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"inner": None, "plan": None}

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def order(self) -> dict[str, Any]:
        """Return what the order is made from, for a checkpoint's manifest."""
        names = ("batch_size", "shuffle", "seed", "drop_last")
        return {"samples": len(self.dataset), **{name: getattr(self, name) for name in names}}

    def batches_from(self, start: int, left_out: LeftOut | None = None) -> Iterator[tuple[int, Any]]:
        """Return the epoch's batches with their numbers, from one on; those left out are not fetched."""
        import torch

        epoch, self.epoch = self.epoch if self.epoch is not None else self.iterations, None
        self.iterations = epoch + 1
        numbers = [one for one in range(start, len(self)) if left_out is None or not left_out(one)]
        generator = torch.Generator().manual_seed(mixed(self.seed, epoch, -3))
        samples = len(self.dataset)
        order = torch.randperm(samples, generator=generator) if self.shuffle else torch.arange(samples)
        self.plan = partial(plan, epoch, numbers, order, self.batch_size)
        return zip(numbers, iter(self.loader()), strict=True)

    def loader(self) -> Any:
        """Return the DataLoader inside, made once: persistent workers live in it."""
        import torch
        from torch.utils.data import DataLoader

        if self.inner is None:
            options = {"batch_sampler": Plan(self), "collate_fn": self.seeded.collate, "num_workers": self.num_workers}
            # A generator of its own, so that it draws nothing from the global one.
            self.inner = DataLoader(cast("Any", self.seeded), generator=torch.Generator(), **options, **self.options)
        return self.inner


def plan(epoch: int, numbers: list[int], order: Any, size: int) -> Iterator[BatchOf]:
    """Yield these batches of an epoch, each as (epoch, number, indices).

    >>> import torch
    >>> list(plan(3, [1], torch.tensor([4, 5, 6, 7]), size=2))
    [(3, 1, [6, 7])]
    """
    return ((epoch, one, order[one * size : (one + 1) * size].tolist()) for one in numbers)


class Plan:
    """The batches that a loader wants next, as its DataLoader's batch sampler; workers may ask for it twice."""

    def __init__(self, owner: ResumableLoader) -> None:
        self.owner = owner

    def __iter__(self) -> Iterator[BatchOf]:
        return iter(()) if self.owner.plan is None else self.owner.plan()

    def __len__(self) -> int:
        return len(self.owner)
