"""The learning rates of Keras' optimizers: those in effect during a step, Keras' own before and after it."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from epochal.core.engine import Engine

GROUP = "pg{}"  # a Keras optimizer has one rate for everything
FIELD = "_learning_rate"  # a variable, a schedule or a function


class ModelRates:
    """Makes the rates in effect hold, whatever schedule an optimizer or a native callback has.

    Once a rate was asked for, it is written right before each call of the training function, and Keras' own is put back
    right after it: native callbacks that set it see theirs.
    """

    def __init__(self, engine: Engine, model: Any, rebuild: Callable[[], None]) -> None:
        self.engine, self.model, self.rebuild = engine, model, rebuild
        self.rates: dict[str, KerasRate] = {}
        self.taken = False

    def meet(self) -> None:
        """Come to know the optimizers that are there by now: some stand from their first step on only."""
        for name, optimizer in optimizers_of(self.model).items():
            if name not in self.rates:
                self.rates[name] = one = KerasRate(optimizer, self.rebuild)
                if self.taken:
                    one.take_over()

    def groups(self) -> dict[str, float]:
        """Return the rates that Keras' own schedules give."""
        self.meet()
        return {name: one.current() for name, one in self.rates.items()}

    def take_over(self) -> None:
        """Let the rates in effect decide at every step from now on."""
        self.meet()
        self.taken = True
        for one in self.rates.values():
            one.take_over()

    @contextmanager
    def in_place(self) -> Generator[None, None, None]:
        """Let the rates in effect stand there during a step."""
        if self.taken and self.engine.requests.rates:
            self.engine.apply_rates()
        with ExitStack() as stack:
            for name, one in self.rates.items() if self.taken else ():
                own = one.scheduled()
                stack.enter_context(one.in_place(own, self.engine.rates.effective(name, own)))
            yield

    def remove(self) -> None:
        """Give the optimizers their schedules back."""
        for one in self.rates.values():
            one.remove()


class KerasRate:
    """The rate of one optimizer.

    A schedule is part of the compiled step, so a variable takes its place, set by hand from the schedule; ``rebuild``
    has the step compiled anew.
    """

    def __init__(self, optimizer: Any, rebuild: Callable[[], None]) -> None:
        self.optimizer, self.rebuild = optimizer, rebuild
        self.schedule: Any = None  # what stood where a variable of ours stands
        self.own: float | None = None  # Keras' rate while ours is in place

    def current(self) -> float:
        """Return the rate that Keras' own schedule gives."""
        return self.scheduled() if self.own is None else self.own

    def scheduled(self) -> float:
        """Return the rate that Keras would use in the next step."""
        if self.schedule is None:
            return number(self.optimizer.learning_rate)
        if is_schedule(self.schedule):
            return number(self.schedule(self.optimizer._iterations))
        return number(self.schedule())

    def take_over(self) -> None:
        """Have a variable where the rate stands."""
        current = getattr(self.optimizer, FIELD)
        if not hasattr(current, "assign"):
            self.schedule = current
            self.put(variable_of(self.scheduled()))
            self.rebuild()

    @contextmanager
    def in_place(self, own: float, rate: float) -> Generator[None, None, None]:
        """Let a rate stand there during a step."""
        variable = getattr(self.optimizer, FIELD)
        self.own = own
        variable.assign(rate)
        try:
            yield
        finally:
            self.own = None
            variable.assign(own if self.schedule is None else self.scheduled())

    def put(self, rate: Any) -> None:
        """Put a rate into the optimizer, past its bookkeeping of variables: it is no state of the optimizer."""
        object.__setattr__(self.optimizer, FIELD, rate)

    def remove(self) -> None:
        """Give the optimizer its schedule back."""
        if self.schedule is not None:
            self.put(self.schedule)
            self.schedule = None
            self.rebuild()


def optimizers_of(model: Any) -> dict[str, Any]:
    """Return all optimizers that a model has, by the names of their groups, without those that only scale the loss.

    A model may have one that is made of several, and, as a GAN has, others beside the one it was compiled with.
    """
    return {
        **{GROUP.format(index): one for index, one in enumerate(compiled(model))},
        **{name: innermost(one) for name, one in beside(model).items()},
    }


def compiled(model: Any) -> list[Any]:
    """Return the optimizer that a model was compiled with, or those that it is made of."""
    optimizer = innermost(getattr(model, "optimizer", None))
    several = getattr(optimizer, "optimizers", None)
    return [one for one in ([optimizer] if several is None else several) if one is not None]


def beside(model: Any) -> dict[str, Any]:
    """Return the optimizers that a model holds beside the one it was compiled with, by the names of its attributes."""
    import keras

    known = [getattr(model, "optimizer", None), *compiled(model)]
    return {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and not any(value is one for one in known)
    }


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
