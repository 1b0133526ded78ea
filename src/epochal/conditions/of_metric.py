"""What conditions about one metric share: which of its values they look at, and whether there was one."""

from epochal.conditions.base import Condition


class OfMetric(Condition):
    """A condition about one metric; whether there was a value its state tells by ``seen`` (internal)."""

    metric: str

    @property
    def known(self) -> bool:
        """True from the first value on."""
        return bool(self.state.seen)


class OfChecks(OfMetric):
    """A condition about the settled values of one metric (internal).

    >>> from epochal.conditions.best import Best
    >>> best = Best("val/loss")
    >>> sorted(best.settles), best.known
    (['val/loss'], False)
    """

    @property
    def settles(self) -> frozenset[str]:
        """The metric."""
        return frozenset((self.metric,))


class AtChecks(OfChecks):
    """A condition that holds at a check only, not until the next (internal)."""

    at_batches = False


class OfValues(OfMetric):
    """A condition about every value of one metric that reaches the host (internal).

    >>> from epochal.conditions.level import NonFinite
    >>> sorted(NonFinite("train/loss").watches)
    ['train/loss']
    """

    @property
    def watches(self) -> frozenset[str]:
        """The metric."""
        return frozenset((self.metric,))
