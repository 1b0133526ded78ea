"""What makes a loader's order besides the global random generators: generators inside it, or a state of its own."""

from collections.abc import Mapping
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.generators import named_generators, set_state, state_of
from epochal.data.opening import LeftOut, Opening, open_at
from epochal.data.order import kind_of


class Sources:
    """The random generators inside one loader, by where they are.

    >>> import random
    >>> noise = random.Random(0)
    >>> sources = Sources([noise])
    >>> saved, first = sources.state_dict(), noise.random()
    >>> sources.load_state_dict(saved)
    >>> noise.random() == first
    True

    ``before`` are the sources of the loader that stood in the same place an epoch ago: they tell whether generators
    live on or are made anew for each epoch.
    """

    def __init__(self, loader: Any, before: "Sources | None" = None) -> None:
        self.loader, self.kind = loader, kind_of(loader)
        self.generators = {} if self.kind in ("own", "stateful") else named_generators(loader)
        self.live_on: bool | None = None  # unknown in the first epoch
        if before is not None:
            self.live_on = all(before.generators.get(path) is one for path, one in self.generators.items())
        self.loading: Mapping[str, Any] | None = None

    def states(self) -> dict[str, Any]:
        """Return the generators' states."""
        return {path: state_of(one) for path, one in self.generators.items()}

    def set(self, states: Mapping[str, Any]) -> None:
        """Set the generators to states; those that are not there any more are left out."""
        for path, state in states.items():
            if path in self.generators:
                set_state(self.generators[path], state)

    def open(self, start: int = 0, *, epoch: int, left_out: LeftOut | None = None) -> Opening:
        """Return the loader's batches from one on; a loader with a state of its own goes on where that says."""
        loading, self.loading = self.loading, None
        return open_at(self.loader, start, epoch=epoch, left_out=left_out, state=loading)

    def has_live_workers(self) -> bool:
        """Say whether the loader has persistent workers that are running: a new iterator is made otherwise then."""
        return bool(getattr(self.loader, "persistent_workers", False)) and self.loader._iterator is not None

    def start_workers(self) -> None:
        """Start persistent workers, since they were running, and draw nothing for it."""
        if getattr(self.loader, "persistent_workers", False) and not self.has_live_workers():
            random, states = random_state(), self.states()
            iter(self.loader)
            restore_random_state(random)
            self.set(states)

    def state_dict(self) -> dict[str, Any]:
        """Return the states, and how to tell generators that were made anew from those that live on."""
        seeds = {path: one.initial_seed() for path, one in self.generators.items() if hasattr(one, "initial_seed")}
        return {
            "states": self.states(),
            "seeds": seeds,
            "live_on": self.live_on,
            "live_workers": self.has_live_workers(),
            "own": self.loader.state_dict() if self.kind == "stateful" else None,
        }

    def load_state_dict(self, saved: Mapping[str, Any], *, within: bool = False) -> None:
        """Take the states back; ``within``: the very epoch in which they were saved goes on.

        Between epochs a generator that is made anew for each, or seeded otherwise now, stays as it is.
        """
        self.live_on = saved["live_on"] if self.live_on is None else self.live_on
        if saved["own"] is not None and self.kind == "stateful":
            self.loading = saved["own"]
        for path, state in saved["states"].items():
            generator = self.generators.get(path)
            if generator is not None and (within or saved["live_on"] or self.is_same(generator, path, saved)):
                set_state(generator, state)

    @staticmethod
    def is_same(generator: Any, path: str, saved: Mapping[str, Any]) -> bool:
        """Say whether this is the generator that was saved, in a new process, as far as is known."""
        seed = saved["seeds"].get(path)
        return saved["live_on"] is None and (seed is None or seed == generator.initial_seed())
