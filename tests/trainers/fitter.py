"""Somebody else's trainer, as docs/integrations.md has it, and how it is trained."""

from pathlib import Path


class Fitter:
    """Fits a line to points by SGD, point by point, and tells its listeners."""

    def __init__(self, points, held_out, rate=0.1, decay=0.5):
        self.points, self.held_out, self.first_rate, self.decay = points, held_out, rate, decay
        self.slope, self.rate, self.stop, self.listeners = 0.0, rate, False, []

    def fit(self, epochs, start=0):
        self.stop = False
        self.tell("fit_begin", epochs)
        for self.epoch in range(start, epochs):
            self.rate = self.first_rate * self.decay**self.epoch
            self.tell("epoch_begin")
            for index, point in enumerate(self.points):
                self.tell("point_begin", index, point)
                self.tell("point_end", index, self.update(*point))
                if self.stop:
                    break
            self.tell("check_begin")
            self.tell("check_end", sum((self.slope * x - y) ** 2 for x, y in self.held_out))
            if self.stop:
                break
        self.tell("fit_end")

    def update(self, x, y):
        error = self.slope * x - y
        self.slope -= self.rate * error * x
        return error**2

    def tell(self, moment, *details):
        for listener in self.listeners:
            getattr(listener, moment)(*details)


def make(directory: Path):
    """Return what trains it, its runs below a directory."""
    from tests.contract.outside import bind

    def train(callbacks, epochs, *, error=None, resume=False):
        fitter = Fitter(points=[(1.0, 2.0), (0.5, 1.2), (-1.0, -1.7), (2.0, 4.1)], held_out=[(1.5, 3.0), (3.0, 6.0)])
        if error is not None:
            spoil(fitter, error)
        run = bind(fitter, callbacks, dir=directory, name="fitter", resume=resume)
        fitter.fit(epochs)
        return run

    return train


def spoil(fitter, error):
    """Let the second update of a fitter raise an error."""
    original, calls = fitter.update, []

    def update(x, y):
        calls.append(x)
        if len(calls) == 2:
            raise error
        return original(x, y)

    fitter.update = update
