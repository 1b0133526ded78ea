"""Somebody else's integration of tests/trainers/fitter.py: the code of docs/integrations.md."""

import os

from epochal.core.events import EVENT_NAMES
from epochal.core.run import Run
from epochal.integrations.entry import Entry, Place, begin, check_free, wrap
from epochal.runs.folder import RunFolder

NEVER = {"on_pretrain_routine_start", "on_pretrain_routine_end", "on_val_batch_start", "on_val_batch_end"}
PROVIDES = frozenset(EVENT_NAMES) - NEVER - {"on_train_epoch_abort"} | {
    "stop_in_batch",
    "save",
    "set_lr",
    "data",
    "pause",
}


class FitEntry(Entry):
    """Stands at ``fitter.fit``."""

    method = "fit"

    def train(self, original, epochs):
        return self.watched(lambda: self.fit(original, epochs))

    def fit(self, original, epochs):
        fitter, run, point = self.host, self.run, self.resume_point()
        folder = RunFolder(self.place.parent, self.place.name) if point is None else point.folder
        begin(
            run,
            folder,
            point,
            lambda: {"model": {"slope": fitter.slope}},
            resumes="epoch",
            trainer=fitter,
            model=fitter,
        )
        listener = run.engine.rate_host = Listener(fitter, run)
        run.engine.restorer = listener.restore
        if point is not None:
            listener.restore(point.saved)
            run.engine.fire("on_resume")
        undo = wrap(fitter, "update", listener.stepping)
        fitter.listeners.append(listener)
        try:
            original(epochs, start=run.engine.next_epoch)
        finally:
            fitter.listeners.remove(listener)
            undo()


class Listener:
    """Translates a fitter's moments into a run's, and a run's requests into its switches."""

    def __init__(self, fitter, run):
        self.fitter, self.run, self.engine = fitter, run, run.engine

    def restore(self, saved):
        self.fitter.slope = saved.load("model")["slope"]

    def groups(self):
        return {"pg0": self.fitter.rate}

    def take_over(self):
        pass  # `stepping` asks at every step

    def stepping(self, original):
        def update(x, y):
            own, self.fitter.rate = self.fitter.rate, self.run.lr["pg0"]
            try:
                loss = original(x, y)
            finally:
                self.fitter.rate = own
            self.engine.stepped()
            return loss

        return update

    def fit_begin(self, epochs):
        self.engine.train_start(epochs, len(self.fitter.points))

    def epoch_begin(self):
        self.engine.epoch_start(self.fitter.epoch)

    def point_begin(self, index, point):
        self.engine.batch_start(index, point)

    def point_end(self, index, loss):
        self.engine.log({"train/loss": loss})
        self.engine.batch_end()
        if self.engine.stop_now():
            self.fitter.stop, self.engine.epoch_cut = True, index + 1 < len(self.fitter.points)

    def check_begin(self):
        self.engine.log({"lr/pg0": self.run.lr["pg0"]})
        self.engine.train_epoch_end()
        self.engine.val_start()

    def check_end(self, loss):
        self.engine.log({"val/loss": loss})
        self.engine.val_end()
        self.engine.epoch_end()
        self.fitter.stop = self.fitter.stop or bool(self.engine.requests.stops)

    def fit_end(self):
        self.engine.train_end()


def bind(host, callbacks, *, fitness=None, dir=None, name=None, resume=False):  # noqa: A002
    """What ``attach`` calls: check everything, then stand at the method."""
    check_free(host, FitEntry.method, resume)
    place = Place(None if dir is None else os.fspath(dir), name)
    run = Run(host="Fitter", provides=PROVIDES, folder=RunFolder(place.parent, place.name), fitness=fitness)
    return FitEntry(host, run, place, resume).put(callbacks)
