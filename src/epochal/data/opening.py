"""Going to a position in a loader: without fetching what lies before it, where that is possible."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from epochal.checkpointing.capture import random_state, restore_random_state, same_random_state
from epochal.data.order import kind_of, length_of

LeftOut = Callable[[int], bool]


class Opening(NamedTuple):
    """Batches with their index, from a position on; how it was reached, and what of it may not be exact."""

    batches: Iterator[tuple[int, Any]]
    how: str = ""
    doubt: str = ""


def open_at(
    loader: Any,
    start: int = 0,
    *,
    epoch: int = 0,
    left_out: LeftOut | None = None,
    state: Mapping[str, Any] | None = None,
) -> Opening:
    """Return a loader's batches from a position on, those that are left out not among them.

    >>> list(open_at("abcd", 1, left_out=lambda index: index == 2).batches)
    [(1, 'b'), (3, 'd')]

    ``state`` is that of a loader with a state of its own. The random generators must be as they were when the
    loader's iterator was made first; the caller sets them to where they were later.
    """
    kind = kind_of(loader)
    if kind == "own":
        loader.set_epoch(epoch)
        return Opening(loader.batches_from(start, left_out), "by its indices")
    if kind == "stateful":
        iterator = iter(loader) if state is None else loaded(loader, state)
        return Opening(numbered(iterator, start, left_out, lambda: next(iterator)), "by its own state")
    if kind == "torch" and start and loader.num_workers and start == length_of(loader):
        return Opening(iter(()), "at its end", doubt_of(loader))
    iterator = iter(loader)
    skip, how = skipper(loader, iterator)
    drawn = pass_by(start, skip)
    doubt = doubt_of(loader)
    if drawn and not doubt:
        doubt = "it draws from the global random generators batch by batch: exact only if it keeps nothing it has drawn"
    return Opening(numbered(iterator, start, left_out, skip), how, doubt)


def loaded(loader: Any, state: Mapping[str, Any]) -> Iterator[Any]:
    """Return the iterator of a torchdata loader that goes on from a state, drawing what one without would draw."""
    import torch

    random = random_state()
    loader.load_state_dict(state)
    iterator = iter(loader)  # one more is made inside, if the state is an epoch's end
    restore_random_state(random)
    if loader.generator is None and not (loader.num_workers and loader.persistent_workers):
        torch.empty((), dtype=torch.int64).random_()  # the seed of its workers
    return iterator


def numbered(
    iterator: Iterator[Any], start: int, left_out: LeftOut | None, skip: Callable[[], Any]
) -> Iterator[tuple[int, Any]]:
    """Return what an iterator gives, with its index, without what is left out."""
    return enumerate(iterator, start) if left_out is None else wanted(iterator, start, left_out, skip)


def wanted(
    iterator: Iterator[Any], start: int, left_out: LeftOut, skip: Callable[[], Any]
) -> Iterator[tuple[int, Any]]:
    """Yield what an iterator gives, with its index, and pass by what is left out."""
    index = start
    while True:
        out = left_out(index)
        try:
            data = skip() if out else next(iterator)
        except StopIteration:
            return
        if not out:
            yield index, data
        index += 1


def skipper(loader: Any, iterator: Any) -> tuple[Callable[[], Any], str]:
    """Return what passes one batch by, and how it does."""
    if type(iterator).__name__ == "_SingleProcessDataLoaderIter" and is_map_style(loader):

        def skip() -> None:
            iterator._next_index()
            iterator._num_yielded += 1

        return skip, "by its indices"
    if isinstance(loader, (list, tuple)):
        return lambda: next(iterator), "by its indices"
    better = "; epochal.ResumableLoader need not" if is_map_style(loader) else ""
    return lambda: next(iterator), f"by fetching what lies before and dropping it{better}"


def is_map_style(loader: Any) -> bool:
    """Say whether a torch DataLoader's data set is asked for indices."""
    dataset = getattr(loader, "dataset", None)
    return hasattr(dataset, "__getitem__") and not any(
        one.__name__ == "IterableDataset" for one in type(dataset).__mro__
    )


def pass_by(count: int, skip: Callable[[], Any]) -> bool:
    """Pass batches by; say whether random numbers were drawn after the first, where samplers draw their order."""
    first = None
    for number in range(count):
        try:
            skip()
        except StopIteration:
            break
        if number == 0:
            first = random_state()
    return first is not None and not same_random_state(first, random_state())


def doubt_of(loader: Any) -> str:
    """Return why a loader's next batches may not be the same in another process, or nothing."""
    if kind_of(loader) == "iterator":
        return "an iterator cannot be gone back to its start: what it gives now is what it gives"
    if getattr(loader, "persistent_workers", False):
        return (
            "its persistent workers draw random numbers that no new process repeats: exact if the data set draws none"
        )
    return ""
