"""What ``run.batches(loader)`` returns: batches to iterate over, which know how many they are."""

from collections.abc import Callable, Generator
from functools import cached_property
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """The batches of a loader, once; ``len()`` says how many come, so that a progress bar knows.

    >>> batches = Batches(lambda: (one for one in "ab"), lambda: 2)
    >>> len(batches), list(batches)
    (2, ['a', 'b'])
    """

    def __init__(self, deliver: Callable[[], Generator[Batch, None, None]], length: Callable[[], int]) -> None:
        self.deliver, self.length = deliver, length

    @cached_property
    def generator(self) -> Generator[Batch, None, None]:
        """What yields the batches."""
        return self.deliver()

    def __iter__(self) -> Generator[Batch, None, None]:
        return self.generator  # the loop holds it alone: a break closes it

    def __next__(self) -> Batch:
        return next(self.generator)

    def __len__(self) -> int:
        return self.length()

    def close(self) -> None:
        """Give no more batches."""
        self.generator.close()
