"""The objective of a run: which number it is, and whether it is new."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

from epochal.core.errors import ArgumentError, MetricNotFound
from epochal.core.log import log
from epochal.core.metrics import At, Metrics

Source = Literal["named", "logged", "native", "loss"]
SOURCES: tuple[Source, ...] = ("named", "logged", "native", "loss")  # the first that was ever measured counts
FitnessSpec = str | Callable[[Mapping[str, float]], float] | None


class _Reads(Mapping[str, float]):
    """The metrics, remembering whether one that was read is fresh; ``validating``: measured by this validation."""

    def __init__(self, metrics: Metrics, validating: bool) -> None:
        self.metrics, self.validating = metrics, validating
        self.fresh = False

    def __getitem__(self, name: str) -> float:
        value = self.metrics[name]
        entry = self.metrics.entries[self.metrics.canonical(name)]
        self.fresh = self.fresh or (entry.fresh and (entry.validated or not self.validating))
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)


class Fitness:
    """Finds the fitness: what ``fitness=`` names, a logged ``fitness``, the trainer's own, or minus ``val/loss``.

    >>> Fitness("val/accuracy").spec
    'val/accuracy'
    """

    def __init__(self, spec: FitnessSpec = None) -> None:
        if spec is not None and not callable(spec) and (not isinstance(spec, str) or not spec.lstrip("-")):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f'fitness= is a metric\'s name, "-name" for one to be minimised, or a function, not {spec!r}'
            )
        self.spec = spec
        self.reset()

    def reset(self) -> None:
        """Forget what was measured: a new training begins."""
        self.native: float | None = None  # what the trainer says, set by its integration when it is fresh
        self.source: Source | None = None
        self.missing: str | None = None  # why what fitness= names has no value yet
        self.told = False  # that was said
        self.value: float | None = None
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.new: float | None = None  # measured, not settled yet
        self.validated = False  # this epoch's fitness comes from its validation

    def measure(self, metrics: Metrics, at: At, *, validating: bool) -> None:
        """Take a newly measured fitness; one from a source of less standing than before does not count."""
        if self.validated and not validating and callable(self.spec):
            return  # it read what the validation measured; the rest of what it reads is no second check
        found = self.fresh(metrics, validating)
        if found is None:
            return
        source, value = found
        if source != self.source:
            self.source, self.best, self.best_epoch = source, None, None
        self.value = self.new = value
        self.validated = validating
        if source != "logged":
            metrics.log({"fitness": value}, at, validation=validating)
            entry = metrics.entries["fitness"]
            entry.fresh, entry.in_epoch = False, source != "loss"
        if value > self.best if self.best is not None else value == value:  # NaN is never best
            self.best, self.best_epoch = value, at.epoch

    def settle(self, metrics: Metrics, *, validation: bool) -> dict[str, float]:
        """Return the metrics that settle now, the fitness among them if it was newly measured."""
        settled = metrics.settle(validation=validation)
        if self.new is not None:
            settled["fitness"] = self.new
        self.new = self.native = None
        if self.missing and self.value is None and not validation:
            log().warning("fitness= cannot be measured, so nothing is best: %s", self.missing)
            self.missing = None
            self.told = True
        return settled

    def fresh(self, metrics: Metrics, validating: bool) -> tuple[Source, float] | None:
        """Return a newly measured fitness and where it comes from, or None when nothing new was measured."""
        if self.spec is not None:
            return self.read("named", self.spec, metrics, validating)
        known = SOURCES.index(self.source or "loss")
        found = self.read("logged", "fitness", metrics, validating)
        if found is None and known >= SOURCES.index("native") and self.native is not None:
            found = "native", self.native
        if found is None and known >= SOURCES.index("loss"):
            found = self.read("loss", "-val/loss", metrics, validating)
        return found

    def read(
        self, source: Source, spec: str | Callable[[Mapping[str, float]], float], metrics: Metrics, validating: bool
    ) -> tuple[Source, float] | None:
        """Return what one way to say the fitness gives, or None unless something it reads is new."""
        reads = _Reads(metrics, validating)
        try:
            value = number(spec(reads)) if callable(spec) else read_signed(spec, reads)
        except MetricNotFound as error:
            self.missing = str(error) if source == "named" and not self.told else None
            return None
        return (source, value) if reads.fresh else None

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured."""
        return {"source": self.source, "value": self.value, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.source, self.value = state["source"], state["value"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]


def number(value: object) -> float:
    """Return what a user's function gave as a float; ArgumentError if it is none.

    >>> number(1)
    1.0
    """
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ArgumentError(f"the function given as fitness= returned {value!r}; it must return a number")
    return float(cast("float", value))


def read_signed(name: str, metrics: Mapping[str, float]) -> float:
    """Return a metric, or minus it where its name begins with a minus.

    >>> read_signed("-val/loss", {"val/loss": 2.0})
    -2.0
    """
    return -metrics[name[1:]] if name.startswith("-") else metrics[name]
