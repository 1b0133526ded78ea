"""One small network in four trainers: equal weights to begin with, equal data in equal order, SGD.

`python -m tests.trainers.same keras DIR` trains it in Keras on PyTorch, in a process of its own (a process has one
backend), and prints what it came to as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from epochal import Best, Callback, Checkpoint, EarlyStopping, Every, Loop, ReduceLROnPlateau, Stop, Target, attach

EPOCHS, BATCH, RATE, WIDTH = 40, 4, 0.1, 8
_random = np.random.default_rng(33)
X = _random.normal(size=(24, 4)).astype(np.float32)
Y = (np.sin(X.sum(1, keepdims=True)) + 0.4 * _random.normal(size=(24, 1))).astype(np.float32)
TRAIN, VAL = slice(0, 16), slice(16, 24)
WEIGHTS = [  # (in, out), as Keras has them
    (_random.normal(size=(4, WIDTH)) / 2).astype(np.float32),
    np.zeros(WIDTH, np.float32),
    (_random.normal(size=(WIDTH, 1)) / 2).astype(np.float32),
    np.zeros(1, np.float32),
]


class Curve(Callback):
    """Writes down the rate that every epoch was trained with."""

    def __init__(self):
        self.rates = []

    def on_train_epoch_end(self, run):
        self.rates.append(next(iter(run.lr.values())))


def patient():
    """Return policies that wait: the training ends by its patience, after the rate was cut."""
    return [
        EarlyStopping("val/loss", patience=8),
        Checkpoint(when=Best("val/loss") | Every(epochs=3), keep_last=2, keep_best=1),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=3),
    ]


def aiming():
    """Return policies that end the training at a target."""
    return [Stop(when=Target("train/loss", 0.2)), Checkpoint(when=Every(epochs=2), keep_last=2)]


LISTS = {"patient": patient, "aiming": aiming}


class Decisions(NamedTuple):
    """What callbacks made of a training."""

    epochs: int
    steps: int
    reason: str
    kept: list[tuple[int, int]]  # (epoch, step) of the checkpoints
    rates: list[float]
    train: list[float]
    val: list[float]


def decisions(run, curve):
    """Return what callbacks made of a run."""
    return Decisions(
        len(run.history),
        run.step,
        run.stop_reason,
        [(one.manifest.epoch, one.manifest.step) for one in run.checkpoints],
        curve.rates,
        [row["train/loss"] for row in run.history],
        [row["val/loss"] for row in run.history],
    )


def torch_net():
    """Return the network as a torch module, at its first weights."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1))
    for parameter, value in zip(net.parameters(), WEIGHTS, strict=True):
        parameter.data = torch.tensor(value.T if value.ndim == 2 else value).contiguous()
    return net


def loaders():
    """Return the batches of an epoch and of a validation, in their order."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.tensor(X), torch.tensor(Y)
    return [DataLoader(TensorDataset(x[part], y[part]), batch_size=BATCH) for part in (TRAIN, VAL)]


def loop(callbacks, directory):
    """Train in a plain loop."""
    import torch

    net, (batches, held_out) = torch_net(), loaders()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=directory, name="loop") as run:
        for _ in run.epochs(EPOCHS):
            for x, y in run.batches(batches):
                loss = torch.nn.functional.mse_loss(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log({"train/loss": loss})
            with run.validation(), torch.no_grad():
                losses = [torch.nn.functional.mse_loss(net(x), y) for x, y in run.batches(held_out)]
                run.log({"val/loss": torch.stack(losses).mean()})
    return run


def lightning(callbacks, directory):
    """Train in Lightning."""
    import lightning.pytorch as pl
    import torch

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch_net()

        def training_step(self, batch, _):
            return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=RATE)

    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory,
    )  # fmt: skip
    run = attach(trainer, *callbacks, dir=directory, name="lightning")
    trainer.fit(Module(), *loaders())
    return run


def transformers(callbacks, directory):
    """Train in the Hugging Face Trainer."""
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch_net()

        def forward(self, x, labels):
            found = self.net(x)
            return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    rows = [{"x": torch.tensor(x), "labels": torch.tensor(y)} for x, y in zip(X, Y, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(directory / "native"), num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH, learning_rate=RATE, lr_scheduler_type="constant", optim="sgd",
        weight_decay=0.0, max_grad_norm=0.0, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, label_names=["labels"],
    )  # fmt: skip
    trainer = InOrder(model=Net(), args=arguments, train_dataset=rows[TRAIN], eval_dataset=rows[VAL])
    run = attach(trainer, *callbacks, dir=directory, name="transformers")
    trainer.train()
    return run


def keras(callbacks, directory):
    """Train in Keras, on whichever backend this process has."""
    import keras as framework

    model = framework.Sequential([
        framework.Input((4,)), framework.layers.Dense(WIDTH, activation="tanh"), framework.layers.Dense(1),
    ])  # fmt: skip
    model.set_weights(WEIGHTS)
    model.compile(framework.optimizers.SGD(RATE), "mse")
    run = attach(model, *callbacks, dir=directory, name="keras")
    held_out = (X[VAL], Y[VAL])
    model.fit(
        X[TRAIN], Y[TRAIN], batch_size=BATCH, shuffle=False, epochs=EPOCHS, validation_data=held_out,
        validation_batch_size=BATCH, verbose=0,
    )  # fmt: skip
    return run


def decide(train, policies, directory):
    """Train with a list of policies and return what it came to."""
    curve = Curve()
    return decisions(train([*policies(), curve], directory), curve)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "torch"
    sys.stdout, told = sys.stderr, sys.stdout  # whatever a framework says does not belong to the answer
    there = Path(sys.argv[2])
    found = {name: decide(globals()[sys.argv[1]], policies, there / name) for name, policies in LISTS.items()}
    print(json.dumps(found), file=told)
