"""Every sample under seeds of its own: what it draws depends on the sample, not on workers or on what came before."""

import hashlib
import random
import struct
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from epochal.checkpointing.generators import named_generators, set_state, state_of

BatchOf = tuple[int, int, Any]  # the epoch, the batch's number in it, and its indices, or later its samples


def mixed(*numbers: int) -> int:
    """Return 64 bits that depend on all of these numbers, the same on every machine.

    >>> mixed(0, 1, 2) == mixed(0, 1, 2), mixed(0, 1, 2) == mixed(0, 2, 1)
    (True, False)
    """
    packed = b"".join(struct.pack("<q", number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


class Seeded:
    """A data set asked for whole batches, every sample under seeds from (seed, epoch, index).

    ``collate`` makes a batch of samples under seeds from (seed, epoch, number of the batch). All generators are
    afterwards as they were before.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], seed: int) -> None:
        self.dataset, self.inner_collate, self.seed = dataset, collate, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, batch: BatchOf) -> BatchOf:
        epoch, number, indices = batch
        at_once = getattr(self.dataset, "__getitems__", None)
        with self.own_generators() as generators:
            if at_once:
                seed_all(mixed(self.seed, epoch, -2, number), generators)
                return epoch, number, at_once(indices)
            return epoch, number, list(self.samples(epoch, indices, generators))

    __getitems__ = __getitem__  # how a DataLoader asks for a batch

    def samples(self, epoch: int, indices: Sequence[int], generators: Sequence[Any]) -> Generator[Any, None, None]:
        """Yield the samples at these indices."""
        for index in indices:
            seed_all(mixed(self.seed, epoch, index), generators)
            yield self.dataset[index]

    def collate(self, batch: BatchOf) -> Any:
        """Make a batch of the samples."""
        epoch, number, samples = batch
        with self.own_generators() as generators:
            seed_all(mixed(self.seed, epoch, -1, number), generators)
            return self.inner_collate(samples)

    @contextmanager
    def own_generators(self) -> Generator[list[Any], None, None]:
        """Give the generators inside the data set, and set them and the global ones back at the end."""
        own = list(named_generators(self.dataset).values())
        states = [state_of(one) for one in own]
        python, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules["torch"]
        of_numpy, of_torch = numpy and numpy.random.get_state(), torch.get_rng_state()
        try:
            yield own
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(of_numpy)
            torch.set_rng_state(of_torch)
            for one, state in zip(own, states, strict=True):
                set_state(one, state)


def seed_all(seed: int, generators: Sequence[Any] = ()) -> None:
    """Seed python, numpy, torch on the CPU, and these generators.

    >>> import torch
    >>> seed_all(3)
    >>> first = random.random(), torch.rand(1).item()
    >>> seed_all(3)
    >>> first == (random.random(), torch.rand(1).item())
    True
    """
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules["torch"]
    if numpy is not None:
        numpy.random.seed([seed & 0xFFFFFFFF, seed >> 32, 1])  # python's numbers come from the same algorithm
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed devices too, from a worker
    for number, one in enumerate(generators):
        reseed(one, mixed(seed - 2**63, number))


def reseed(generator: Any, seed: int) -> None:
    """Seed one generator of python, numpy or torch."""
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif hasattr(generator, "manual_seed"):
        generator.manual_seed(seed)
    elif hasattr(generator, "getstate"):
        generator.seed(seed)
    else:
        generator.seed([seed & 0xFFFFFFFF, seed >> 32, 1])
