"""Trainings in Keras that are killed and go on, beside those that nobody kills.

`python -m tests.faults.keras_kills DIR arrays dataset ...` prints what differs as JSON. Keras and TensorFlow are
imported once; each training is a child, forked before TensorFlow has run anything: it does not survive a fork after that.
"""

import json
import os
import signal
import sys
from pathlib import Path

from tests.faults.forks import ended, forked

EPOCHS, BATCH = 4, 4


class Spy:
    """Reads the loss in each batch."""

    def __init__(self):
        self.losses = []

    def __call__(self, run):
        self.losses.append((run.epoch, run.batch, run.metrics["train/loss"]))


def train(kind, folder, *, resume, kill):
    """Train in this process; what came of it is written to a file."""
    import keras
    import numpy as np

    from epochal import Checkpoint, Every, attach

    keras.utils.set_random_seed(3)
    model, data = KINDS[kind]()
    saving = Checkpoint() if kill[1] is None else Checkpoint(Every(batches=1), snapshot="off")
    run = attach(model, saving, dir=folder, name="run", resume=resume)
    spy = Spy()
    run.add_callback("on_train_batch_end", spy)
    run.add_callback("on_train_epoch_start", lambda run: run.scale_lr(0.5) if run.epoch == 1 else None)
    if not resume and kill[0] is not None:
        run.add_callback("on_train_batch_end", lambda run: die(run, kill))
    model.fit(**data, epochs=EPOCHS, verbose=0)
    state = {f"v{number}": one.numpy() for number, one in enumerate([*model.variables, *model.optimizer.variables])}
    np.savez(folder / "result.npz", **state)
    (folder / "history.json").write_text(json.dumps([[dict(row) for row in run.history], spy.losses, run.step]))


def die(run, kill):
    """Kill this process in an epoch, in a batch after its first, when all before it is written."""
    epoch, batch = kill
    if run.epoch == epoch and run.batch >= (batch or 1):
        run.engine.saver.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def net(optimizer=None, **options):
    """Return a small network with dropout, compiled, not built before its first batch."""
    import keras

    layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer or keras.optimizers.Adam(0.05), "mse", metrics=["mae"], **options)
    return model


def numbers(count=18):
    """Return x and y; the last batch is not full."""
    import numpy as np

    x = np.random.default_rng(1).normal(size=(count, 3)).astype("float32")
    return x, x.sum(1, keepdims=True) ** 2


def arrays():
    """Return shuffled arrays, a schedule, a part of the data for validation."""
    import keras

    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.9)
    x, y = numbers(22)
    return net(keras.optimizers.Adam(schedule)), {"x": x, "y": y, "batch_size": BATCH, "validation_split": 0.2}


def dataset():
    """Return a shuffled tf.data.Dataset."""
    import tensorflow as tf

    x, y = numbers()
    return net(), {"x": tf.data.Dataset.from_tensor_slices((x, y)).shuffle(18, seed=5).batch(BATCH)}


def repeated():
    """Return a Dataset without an end, several batches per optimizer step, two per call."""
    import keras
    import tensorflow as tf

    x, y = numbers()
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(18, seed=5).repeat().batch(BATCH)
    adam = keras.optimizers.Adam(0.05, gradient_accumulation_steps=3)
    return net(adam, steps_per_execution=2), {"x": data, "steps_per_epoch": 4}


def pydataset():
    """Return a PyDataset that adds noise, shuffled."""
    import keras
    import numpy as np

    x, y = numbers()

    class Noisy(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            part = slice(index * BATCH, (index + 1) * BATCH)
            return x[part] + np.random.normal(size=x[part].shape).astype("float32"), y[part]

    return net(), {"x": Noisy(), "shuffle": True}


def generator():
    """Return a Python generator with random numbers of its own."""
    import numpy as np

    def batches():
        random = np.random.default_rng(4)
        while True:
            x = random.normal(size=(BATCH, 3)).astype("float32")
            yield x, x.sum(1, keepdims=True)

    return net(), {"x": batches(), "steps_per_epoch": 4}


def loader():
    """Return a shuffled DataLoader."""
    import torch

    torch.manual_seed(3)  # which Keras does on its torch backend only
    x, y = map(torch.tensor, numbers())
    return net(), {"x": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), BATCH, shuffle=True)}


KINDS = {one.__name__: one for one in (arrays, dataset, repeated, pydataset, generator, loader)}
SAVED = {"end": (2, None), "inside": (2, 2)}  # when it is killed, and with that how often it saves


def differences(folder):
    """Return what differs between the training that was killed and the one that nobody killed."""
    import numpy as np

    one, other = (np.load(folder / name / "result.npz") for name in ("whole", "killed"))
    found = [name for name in one if not np.array_equal(one[name], other[name])]
    (rows, losses, steps), (rows_2, losses_2, steps_2) = (
        json.loads((folder / name / "history.json").read_text()) for name in ("whole", "killed")
    )
    found += ["history"] if rows != rows_2 else []
    found += ["batch losses"] if losses[-len(losses_2) :] != losses_2 else []
    found += [f"resumed at {losses_2[0][:2]}"] if len(losses_2) >= len(losses) else []
    return found + (["step"] if steps != steps_2 else [])


def main(directory, *names):
    """Train each kind whole, killed and resumed."""
    import keras  # noqa: F401  before the first fork, with what it imports late
    import tensorflow  # noqa: F401
    import torch  # noqa: F401

    found, waiting = {}, []
    for name in names:
        kind, _, where = name.partition(":")
        folder = Path(directory) / name.replace(":", "-")
        (folder / "whole").mkdir(parents=True)
        (folder / "killed").mkdir()
        kill = SAVED[where or "end"]
        whole = forked(
            lambda k=kind, f=folder, s=kill: train(k, f / "whole", resume=False, kill=(None, s[1])), log=folder / "log"
        )
        killed = forked(
            lambda k=kind, f=folder, s=kill: train(k, f / "killed", resume=False, kill=s), log=folder / "log"
        )
        waiting.append((name, kind, folder, kill, whole))
        found[name] = [] if ended(killed) == -signal.SIGKILL else ["it was not killed"]
        resumed = forked(
            lambda k=kind, f=folder, s=kill: train(k, f / "killed", resume=True, kill=s), log=folder / "log"
        )
        codes = ended(whole), ended(resumed)
        found[name] += (
            differences(folder) if codes == (0, 0) else [f"ended with {codes}", (folder / "log").read_text()[-3000:]]
        )
        found[name] += [line for line in (folder / "log").read_text().splitlines() if line.startswith("resume:")]
    print("FOUND", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
