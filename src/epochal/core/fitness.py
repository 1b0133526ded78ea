"""The objective of a run: which number it is, and whether it is new."""

from collections.abc import Callable, Iterator, Mapping

from epochal.core.errors import ArgumentError, MetricNotFound
from epochal.core.metrics import At, Metrics

FitnessSpec = str | Callable[[Mapping[str, float]], float] | None


class _Reads(Mapping[str, float]):
    """The metrics, remembering which of them were read and whether one of those is fresh."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.fresh = False

    def __getitem__(self, name: str) -> float:
        value = self.metrics[name]
        self.fresh = self.fresh or self.metrics.entries[self.metrics.canonical(name)].fresh
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
        self.value: float | None = None
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.new: float | None = None  # measured, not settled yet
        self.validated = False  # this epoch's fitness comes from its validation

    def measure(self, metrics: Metrics, at: At, *, validating: bool) -> None:
        """Take a newly measured fitness; what a validation measured, the epoch's end does not measure again."""
        if self.validated and not validating:
            return
        found = self.fresh(metrics)
        if found is None:
            return
        value, logged, tells_more = found
        self.value = self.new = value
        self.validated = validating
        if not logged:
            metrics.log({"fitness": value}, at, validation=validating)
            entry = metrics.entries["fitness"]
            entry.fresh, entry.in_epoch = False, tells_more
        if value > self.best if self.best is not None else value == value:  # NaN is never best
            self.best, self.best_epoch = value, at.epoch

    def settle(self, metrics: Metrics, *, validation: bool) -> dict[str, float]:
        """Return the metrics that settle now, the fitness among them if it was newly measured."""
        settled = metrics.settle(validation=validation)
        if self.new is not None:
            settled["fitness"] = self.new
        self.new = self.native = None
        return settled

    def fresh(self, metrics: Metrics) -> tuple[float, bool, bool] | None:
        """Return a newly measured fitness, whether it was logged as such, and whether it says more than ``val/loss``.

        None when nothing new was measured.
        """
        if self.spec is not None:
            reads = _Reads(metrics)
            value = self.evaluate(self.spec, reads)
            return (value, False, True) if value is not None and reads.fresh else None
        reads = _Reads(metrics)
        value = self.evaluate("fitness", reads)
        if value is not None and reads.fresh:
            return value, True, True
        if self.native is not None:
            return self.native, False, True
        reads = _Reads(metrics)
        value = self.evaluate("-val/loss", reads)
        return (value, False, False) if value is not None and reads.fresh else None

    def evaluate(self, spec: str | Callable[[Mapping[str, float]], float], reads: Mapping[str, float]) -> float | None:
        """Return the value of one way to say the fitness, or None while what it needs was never measured."""
        try:
            if callable(spec):
                return float(spec(reads))
            return -reads[spec[1:]] if spec.startswith("-") else reads[spec]
        except MetricNotFound:
            return None
