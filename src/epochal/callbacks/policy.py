"""The base of callbacks that act when a condition holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from epochal.conditions.base import Condition
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, MetricNotFound
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run


class Policy(Callback, ABC):
    """Ask a condition at every safe point and act while it holds; subclass it and write ``act``.

    >>> from epochal.conditions.best import Best
    >>> from epochal.testing import simulate
    >>> class SaveWhenGood(Policy):
    ...     def act(self, run, now):
    ...         run.save(self.when.reason(now))
    >>> simulate([SaveWhenGood(Best("fitness"))], [{"fitness": x} for x in (0.8, 0.7, 0.95)]).saved
    [0, 2]

    What it learns is the condition's, so its ``state_dict`` is the condition's too. Raises ``MetricNotFound`` at the
    end of the first epoch at which the condition was asked about a metric that nobody has measured; where the trainer
    is known to validate later, at the end of the epoch of its first validation.
    """

    compat: str | None = None  # the library whose decisions it takes
    _told = False  # that nobody has measured a metric, in this training

    def __init__(self, when: Condition, *, name: str | None = None) -> None:
        self.when = check_condition(when, type(self).__name__)
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}(when={self.when!r})"

    @abstractmethod
    def act(self, run: "Run", now: "Moment") -> None:
        """Do what the policy is for; called at every safe point at which the condition holds."""

    def on_train_start(self, run: "Run") -> None:
        """Have every value of the metrics that the condition watches brought to the host."""
        self._told = False
        for metric in self.when.watches:
            run.metrics.watch(metric)

    @property
    def at_batches(self) -> bool:
        """Whether the condition may hold at the end of a batch."""
        return self.when.at_batches

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Ask the condition, then act if it holds."""
        holds = self.when.ask(now)
        if now.ended == "epoch":
            self.check_measured(run)
        if holds:
            self.act(run, now)

    def check_measured(self, run: "Run") -> None:
        """Raise MetricNotFound for a metric that was never measured: a policy must not wait for ever, silently.

        The libraries that ``compat`` names wait: there it is only said.
        """
        missing = self.when.missing()
        if not missing or run.metrics.validation_comes:
            return
        if self.compat is not None:
            if not self._told:
                self._told = True
                log().warning("%s: nobody has measured %r yet, so nothing is decided.", run.label(self), min(missing))
        elif run.stop_reason is None:  # an epoch that was cut short may end without its validation
            why = (
                f"; {self!r} needs it: log it, or if it comes only from a later epoch on, write a Stop or Checkpoint"
                " whose condition has .after(epochs=n)"
            )
            raise MetricNotFound(min(missing), run.metrics, why=why)

    def parts(self) -> Iterable[object]:
        """Return the condition and what it is made of."""
        return (self.when, *self.when.leaves())

    def state_dict(self) -> dict[str, Any]:
        """Return what the condition has learnt."""
        return self.when.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what the condition had learnt."""
        self.when.load_state_dict(state)


def check_condition(when: object, owner: str) -> Condition:
    """Return ``when`` if it is a condition, else raise ArgumentError with the cure.

    >>> check_condition("val/loss", "Stop")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Stop: when must be a condition, such as Plateau(...), not 'val/loss'
    """
    if isinstance(when, Condition):
        return when
    if isinstance(when, type) and issubclass(when, Condition):
        raise ArgumentError(f"{owner}: when is the class {when.__name__}; pass an object, {when.__name__}(...)")
    if isinstance(when, bool):
        raise ArgumentError(f"{owner}: when is {when}: conditions are combined with | & ~, not with or, and, not, ==")
    hint = "such as Plateau(...)"
    if callable(when):
        hint += " (a function of your own: a subclass of epochal.Condition with a method holds(self, now))"
    raise ArgumentError(f"{owner}: when must be a condition, {hint}, not {when!r}")
