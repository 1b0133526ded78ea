"""The learning rate of a Keras optimizer: the one in effect during a step, Keras' own before and after it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from epochal.core.engine import Engine

GROUP = "pg0"  # a Keras optimizer has one rate for everything
FIELD = "_learning_rate"  # a variable, a schedule or a function


class KerasRates:
    """Makes the rates in effect hold, whatever schedule the optimizer or a native callback has.

    Once a rate was asked for, it is written right before each call of the training function, and Keras' own is put back
    right after it: native callbacks that set it see theirs. A schedule is part of the compiled step, so a variable
    takes its place, set by hand from the schedule; ``rebuild`` has the step compiled anew.
    """

    def __init__(self, engine: Engine, optimizer: Any, rebuild: Callable[[], None]) -> None:
        self.engine, self.optimizer, self.rebuild = engine, optimizer, rebuild
        self.inner = innermost(optimizer)
        self.schedule: Any = None  # what stood where a variable of ours stands
        self.own: float | None = None  # Keras' rate while ours is in place
        self.taken = False

    def groups(self) -> dict[str, float]:
        """Return the rate that Keras' own schedule gives."""
        return {GROUP: self.scheduled() if self.own is None else self.own}

    def scheduled(self) -> float:
        """Return the rate that Keras would use in the next step."""
        if self.schedule is None:
            return number(self.inner.learning_rate)
        if is_schedule(self.schedule):
            return number(self.schedule(self.inner._iterations))
        return number(self.schedule())

    def take_over(self) -> None:
        """Let the rates in effect decide at every step from now on."""
        self.taken = True
        current = getattr(self.inner, FIELD)
        if not hasattr(current, "assign"):
            self.schedule = current
            self.put(variable_of(self.scheduled()))
            self.rebuild()

    @contextmanager
    def in_place(self) -> Generator[None, None, None]:
        """Let the rate in effect stand there during a step."""
        if not self.taken:
            yield
            return
        if self.engine.requests.rates:
            self.engine.apply_rates()
        self.own = own = self.scheduled()
        rate = getattr(self.inner, FIELD)
        rate.assign(self.engine.rates.effective(GROUP, own))
        try:
            yield
        finally:
            self.own = None
            rate.assign(own if self.schedule is None else self.scheduled())

    def put(self, rate: Any) -> None:
        """Put a rate into the optimizer, past its bookkeeping of variables: it is no state of the optimizer."""
        object.__setattr__(self.inner, FIELD, rate)

    def remove(self) -> None:
        """Give the optimizer its schedule back."""
        if self.schedule is not None:
            self.put(self.schedule)
            self.schedule = None
            self.rebuild()


def innermost(optimizer: Any) -> Any:
    """Return the optimizer inside those that only scale the loss."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def is_schedule(rate: Any) -> bool:
    """Say whether a rate is a schedule of Keras, which is given the number of steps."""
    import keras

    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)


def variable_of(value: float) -> Any:
    """Return a variable of Keras that no step trains."""
    import keras

    return keras.Variable(value, trainable=False, dtype=keras.config.floatx(), name="learning_rate")


def number(rate: Any) -> float:
    """Return a scalar of Keras as a float."""
    import keras

    on_host: Any = keras.ops.convert_to_numpy(rate)
    return float(on_host)
