"""The read-only view of a run's checkpoints, and what every store can do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, Unpack, overload

from epochal.checkpointing.layout import About, Manifest
from epochal.checkpointing.retention import Keep, Mode, ranked
from epochal.core.errors import ArgumentError


class Saved(Protocol):
    """A checkpoint that can be read, wherever it lies."""

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says about itself."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts."""
        ...

    def load(self, part: str) -> Any:
        """Return the state tree of one part."""
        ...


S = TypeVar("S", bound=Saved)
S_co = TypeVar("S_co", bound=Saved, covariant=True)


class Checkpoints(Sequence[S_co], Generic[S_co]):
    """The committed checkpoints of a run, oldest first: a sequence that follows the store and cannot change it.

    >>> from epochal.checkpointing.memory import MemoryStore
    >>> store = MemoryStore()
    >>> view = store.checkpoints
    >>> _ = store.save({"run": {}}, epoch=0, step=10, fitness=0.5)
    >>> len(view), view.last.manifest.step, view.best().manifest.fitness
    (1, 10, 0.5)
    """

    def __init__(self, listed: Callable[[], Sequence[S_co]], rules: Mapping[str, Keep]) -> None:
        self._listed = listed
        self._rules = rules

    def __len__(self) -> int:
        return len(self._listed())

    def __iter__(self) -> Iterator[S_co]:
        return iter(tuple(self._listed()))

    @overload
    def __getitem__(self, index: int) -> S_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[S_co]: ...
    def __getitem__(self, index: int | slice) -> S_co | Sequence[S_co]:
        return self._listed()[index]

    def __repr__(self) -> str:
        return f"<{len(self)} checkpoints: {', '.join(one.manifest.name for one in self)}>"

    @property
    def last(self) -> S_co | None:
        """The newest checkpoint, or None."""
        listed = self._listed()
        return listed[-1] if listed else None

    def best(self, metric: str | None = None, *, mode: Mode | None = None) -> S_co | None:
        """Return the best checkpoint by a metric, by fitness without one; None when none has a value.

        The mode of another metric than the fitness comes from the rule that ranks by it, or from ``mode``.
        """
        listed = self._listed()
        best = ranked([one.manifest for one in listed], metric=metric, mode=mode or self._mode(metric))
        return next((one for one in listed if best and one.manifest.name == best[0].name), None)

    def _mode(self, metric: str | None) -> Mode:
        if metric in (None, "fitness"):
            return "max"
        known: set[Mode] = {rule.mode for rule in self._rules.values() if rule.best and rule.metric == metric}
        if len(known) != 1:
            raise ArgumentError(f"best({metric!r}) needs to know what is better: best({metric!r}, mode='min') or 'max'")
        return known.pop()


class Store(Protocol):
    """Where a run's checkpoints go: `CheckpointStore` on disk, `MemoryStore` for simulations."""

    @property
    def in_memory(self) -> bool:
        """Whether saving is so quick that no training need go on meanwhile."""
        ...

    @property
    def checkpoints(self) -> Checkpoints[Saved]:
        """The committed checkpoints, oldest first, read-only."""
        ...

    @property
    def rules(self) -> Mapping[str, Keep]:
        """The rule of each asker."""
        ...

    def place(self, directory: Path) -> None:
        """Be told, before each save, where the run's checkpoints lie: another process may have taken the name."""
        ...

    def keep(self, label: str, rule: Keep) -> None:
        """Set what one asker keeps, from the next save on."""
        ...

    def protect(self, name: str) -> None:
        """Keep one checkpoint until a newer resume point is committed and verified."""
        ...

    def save(
        self,
        parts: Mapping[str, Any],
        **about: Unpack[About],
    ) -> Saved:
        """Write one checkpoint, then apply the rules."""
        ...

    def retain(self) -> None:
        """Apply the rules now; not while a save is being written."""
        ...

    def newest_resume_point(self) -> Saved | None:
        """Return the newest checkpoint from which a training can go on exactly."""
        ...

    def go_on_from(self, name: str) -> None:
        """Set aside what was saved after one checkpoint: the training goes on from there another way."""
        ...
