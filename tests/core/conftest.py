"""A training in the tests' hands: an engine driven moment by moment."""

import pytest

from epochal.core import lifetime, preemption
from epochal.core.events import EVENT_NAMES
from epochal.core.run import ALL_CAPABILITIES, Run


class Rates:
    """An optimizer that is nothing but its learning rates."""

    def __init__(self, **rates):
        self.rates = rates
        self.taken_over = 0

    def groups(self):
        return dict(self.rates)

    def take_over(self):
        self.taken_over += 1


class Driver:
    """Drives the engine of a run as an integration does."""

    def __init__(self, *callbacks, fitness=None, provides=ALL_CAPABILITIES | frozenset(EVENT_NAMES), **rates):
        self.run = Run(host="Driver", provides=provides, fitness=fitness)
        self.engine = self.run.engine
        self.engine.rate_host = self.rates = Rates(**(rates or {"pg0": 0.1}))
        for callback in callbacks:
            self.run.add(callback)

    def begin(self, saved=None, epochs=3):
        lifetime.begin(self.run, saved=saved)
        self.engine.train_start(epochs)
        return self

    def epoch(self, number=0, *, batches=(), mid=None, val=None, end=None):
        """One epoch: metrics of each batch, of a validation after the first, of the last validation, of the end."""
        engine, run = self.engine, self.run
        engine.epoch_start(number)
        for index, values in enumerate(batches):
            engine.batch_start(index)
            run.log(values)
            engine.stepped()
            engine.batch_end()
            if mid is not None and index == 0:
                self.validation(mid)
        engine.train_epoch_end()
        if val is not None:
            self.validation(val)
        if end is not None:
            run.log(end)
        engine.epoch_end()

    def validation(self, values):
        self.engine.val_start()
        self.run.log(values)
        self.engine.val_end()

    def end(self, error=None):
        if error is None:
            self.engine.train_end()
        lifetime.finish(self.run, error)


@pytest.fixture
def drive():
    made = []

    def make(*callbacks, **options):
        made.append(Driver(*callbacks, **options))
        return made[-1]

    yield make
    for one in made:  # those that a test left in the middle have the signals still
        preemption.unwatch(one.engine)
