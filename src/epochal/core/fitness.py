"""The objective of a run: which number it is, and whether it is new."""

from collections.abc import Callable, Iterator, Mapping

from epochal.core.errors import ArgumentError, MetricNotFound
from epochal.core.metrics import Metrics

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
                f'fitness= is a metric\'s name, "-name" for one to be minimised, or a function of the metrics, not {spec!r}'
            )
        self.spec = spec
        self.native: float | None = None  # what the trainer says, set by its integration when it is fresh

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
