"""The order of a YOLO training's batches, and from where it can be drawn again."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any


class Order:
    """Stands in place of a loader's repeating sampler: the same batches, and the way back to each.

    The workers of a loader ask for batches ahead, over the epoch's end, so the generator's state at that moment says
    little. Written down is its state at the start of each pass over the data, and how many batches the trainer has had.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.before = loader, loader.batch_sampler
        self.sampler = loader.batch_sampler.sampler
        ahead = (loader.prefetch_factor or 0) * loader.num_workers // max(len(loader), 1)
        self.passes = deque[Any](maxlen=ahead + 3)  # the generator's state at the start of each
        self.begun = 0  # passes of this iterator
        self.skipped = 0
        self.wanted: tuple[Any, int] | None = None
        self.left_out: Collection[int] = ()
        object.__setattr__(loader, "batch_sampler", self)

    @staticmethod
    def fits(loader: Any) -> bool:
        """Say whether a loader repeats its batches for ever, from a generator of its own, and has not begun."""
        repeats = getattr(getattr(loader, "batch_sampler", None), "sampler", None) is not None
        return repeats and getattr(loader, "generator", None) is not None and getattr(loader, "iterator", 0) is None

    def __iter__(self) -> Iterator[Any]:
        """Yield the indices of one batch after the other, for ever; where it was set to, first."""
        generator = self.loader.generator
        skip, self.begun = 0, 0
        self.passes.clear()
        if self.wanted is not None:
            state, skip = self.wanted
            self.wanted = None
            generator.set_state(state)
        self.skipped = skip
        left_out, self.left_out = self.left_out, ()
        while True:
            self.passes.append(generator.get_state())
            self.begun += 1
            batches: Iterable[Any] = self.sampler
            if left_out and skip < len(self.sampler):
                batches, left_out = without(list(batches), left_out), ()
            for batch in batches:
                if skip:
                    skip -= 1
                else:
                    yield batch

    def state(self) -> dict[str, Any]:
        """Return the generator's state, and where the pass that comes next, or goes on, starts."""
        found = {"generator": self.loader.generator.get_state()}
        if self.passes and self.loader.iterator is not None:
            had, length = self.skipped + self.loader.iterator._num_yielded, len(self.sampler)
            number = min(had // length, self.begun - 1)  # the next pass may not have begun
            found["start"] = self.passes[number - self.begun]
            found["skip"] = had - number * length
        return found

    def set(self, state: Mapping[str, Any], *, afresh: bool, left_out: Collection[int] = ()) -> None:
        """Go on where ``state`` was taken, at an epoch's start; ``afresh``: the loader was about to begin anew there.

        Batches that are ``left_out`` of this epoch have others in their places.
        """
        self.loader.generator.set_state(state["generator"])
        self.wanted = None if afresh or "start" not in state else (state["start"], state["skip"])
        self.left_out = left_out
        self.loader.reset()

    def remove(self) -> None:
        """Leave the loader as it was."""
        if self.loader.batch_sampler is self:
            object.__setattr__(self.loader, "batch_sampler", self.before)


def without(batches: list[Any], left_out: Collection[int]) -> list[Any]:
    """Return the batches with, in place of each that is left out, the one before it that is not, else the first such.

    >>> without(["a", "b", "c", "d"], {0, 2})
    ['b', 'b', 'b', 'd']
    """
    kept = [batch for number, batch in enumerate(batches) if number not in left_out]
    if not kept:
        return batches
    before, result = kept[0], list[Any]()
    for number, batch in enumerate(batches):
        before = before if number in left_out else batch
        result.append(before)
    return result
