"""A range test before a YOLO training leaves it bit for bit the same, and trains its copy as the trainer would."""

import copy
import json
import random

import numpy as np
import pytest

from epochal import LearningRateFinder, attach
from epochal.core.callback import Callback

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")


class Watch(Callback):
    """Keeps what a training can differ in."""

    def __init__(self):
        self.losses, self.files, self.randoms = [], [], []

    def on_train_batch_end(self, run):
        self.losses.append(run.metrics["train/loss"])
        self.files.append(tuple(run.data["im_file"]))
        self.randoms.append((random.random(), np.random.rand(), torch.rand(()).item()))

    def on_train_end(self, run):
        self.weights = {name: one.clone() for name, one in run.trainer.model.state_dict().items()}
        self.average = {name: one.clone() for name, one in run.trainer.ema.ema.state_dict().items()}
        self.optimizer = run.optimizer.state_dict()["state"]
        self.rates = dict(run.lr)


def trained(yolo, quick, task, callbacks, **options):
    model, watch = yolo(task), Watch()
    run = attach(model, *callbacks, watch)
    model.train(**quick(optimizer="AdamW", mosaic=1.0, mixup=0.3, close_mosaic=0, dropout=0.0, **options))
    return watch, run


@pytest.mark.parametrize(
    ("task", "workers"),
    [("", 0), pytest.param("-seg", 0, marks=pytest.mark.slow), pytest.param("", 2, marks=pytest.mark.slow)],
)
def test_leaves_a_yolo_training_bit_identical(yolo, quick, task, workers):
    plain, _ = trained(yolo, quick, task, [], workers=workers)
    finder = LearningRateFinder(start=1e-5, steps=6)
    watch, run = trained(yolo, quick, task, [finder], workers=workers)
    assert watch.losses == plain.losses
    assert watch.files == plain.files
    assert watch.randoms == plain.randoms
    assert watch.rates == plain.rates
    for mine, theirs in ((watch.weights, plain.weights), (watch.average, plain.average)):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    for mine, theirs in zip(watch.optimizer.values(), plain.optimizer.values(), strict=True):
        assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(theirs[name])) for name in theirs)
    found = json.loads((run.dir / "learning_rate_finder.json").read_text())
    assert len(found["rates"]) == 6
    assert (run.dir / "learning_rate_finder.png").exists()
    assert run.past[-1].failures == {}


def test_the_copy_is_trained_as_the_trainer_trains(yolo, quick):
    """One step of a copy, at the training's own rate and on its first batch, is the training's own first step."""

    class FirstBatch(Callback):
        data = None

        def on_train_batch_start(self, run):
            if self.data is None:
                self.data = copy.deepcopy(run.data)

    class Compared(Callback):
        losses, weights = (), None

        def on_train_start(self, run):
            twin, optimizer = copy.deepcopy((run.model, run.optimizer))
            self.loss = float(run.engine.trial.step(twin, optimizer, [first.data]))
            self.expected = twin.state_dict()

        def optimizer_step(self, run):
            if self.weights is None:
                self.weights = copy.deepcopy(run.model.state_dict())

        def on_train_batch_end(self, run):
            self.losses += (run.metrics["train/loss"],)

    first, compared = FirstBatch(), Compared()
    for callback in (first, compared):
        model = yolo()
        attach(model, callback)
        model.train(**quick(epochs=1, mosaic=0.0, lr0=0.01))
    assert compared.loss == pytest.approx(compared.losses[0], rel=1e-5)
    for name, value in compared.weights.items():
        assert torch.allclose(compared.expected[name].float(), value.float(), atol=1e-6), name


def test_a_step_takes_as_many_batches_as_the_trainer_accumulates_and_the_data_set_stays_as_it_is(yolo, quick):
    seen = {}

    def look(run):
        dataset = run.trainer.train_loader.dataset
        before = (list(dataset.buffer), [one is None for one in dataset.ims])
        steps = list(run.engine.trial.batches())
        seen["batches"] = [len(one) for one in steps]
        seen["same"] = before == (list(dataset.buffer), [one is None for one in dataset.ims])

    model = yolo()
    attach(model).add_callback("on_train_start", look)
    model.train(**quick(epochs=1, batch=4, nbs=8, mosaic=1.0, close_mosaic=0))
    assert seen == {"batches": [2, 2], "same": True}


@pytest.mark.slow
def test_applied_it_scales_yolo_s_own_schedule(yolo, quick):
    rates = {}
    for finder in (None, LearningRateFinder(start=1e-4, end=1.0, steps=12, smooth=0.5, apply=True)):
        model = yolo()
        run = attach(model, *([finder] if finder else []))
        run.add_callback(
            "optimizer_step", lambda run, key=finder is None: rates.setdefault(key, []).append(dict(run.lr))
        )
        model.train(**quick(optimizer="AdamW", epochs=2, lr0=0.002))
    assert finder.suggestion is not None
    for mine, theirs in zip(rates[False], rates[True], strict=True):
        for group, rate in theirs.items():
            assert mine[group] == pytest.approx(rate * finder.suggestion / 0.002)
