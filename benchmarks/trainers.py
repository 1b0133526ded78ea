"""`make bench`: a small training in each trainer: with nothing attached, with Epochal, and with the trainer's own.

    python benchmarks/trainers.py                     print the table
    python benchmarks/trainers.py --write             and put it into docs/benchmarks.md and README.md
    python benchmarks/trainers.py --only keras        one trainer

What is trained is what each trainer's own first example trains, on random data: Lightning's autoencoder, Keras'
convolutions for MNIST, a small BERT, YOLO26n; in plain PyTorch a perceptron.

The three policies are early stopping, a checkpoint of the best, and a learning rate that is cut on a plateau; beside
them stand the trainer's own for the same; a plain PyTorch loop has none. YOLO cuts no rate on a plateau: its own are
`patience` and `save`. Hugging Face's schedule is that of its plateau in all four: others cost it time in each step.

Times are of a whole call of `fit` or `train`, until all that it saves is on the disk. The speed of a machine that is
not one's own changes by the second, up to twofold. So each training is cut into pieces, from batch to batch; of each
piece the fastest of all repeats counts, and their sum is the time of the training. What is left of luck the numbers in
parentheses show: nine of ten ratios lie there if the repeats are drawn anew. The last column says **no** where all of
that is above 1.
"""

import argparse
import gc
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from report import table, write

KINDS = ("bare", "attached", "policies", "own")
BATCHES, ROWS, EPOCHS = 100, 16, 3  # so many batches has an epoch in Lightning's first example
PATIENCE = 10_000  # nothing stops and no rate is cut: the same steps are done in all
PAGES = ("docs/benchmarks.md", "README.md")
Train = Callable[[str, Path], list[float]]


class Pieces:
    """The time of a call, cut where ``cut`` is called in it."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def cut(self, *_: Any, **__: Any) -> None:
        """End a piece and begin the next."""
        self.marks.append(time.perf_counter())

    def of(self, call: Callable[[], Any]) -> list[float]:
        """Return the seconds of each piece of a call; what was there before is no garbage to be looked through."""
        gc.collect()
        gc.freeze()
        self.marks.clear()
        self.cut()
        call()
        self.cut()
        return [end - begin for begin, end in pairwise(self.marks)]


PIECES = Pieces()


def policies() -> list[Any]:
    """The three policies of Epochal."""
    from epochal import Best, Checkpoint, EarlyStopping, ReduceLROnPlateau

    return [
        EarlyStopping("val/loss", patience=PATIENCE),
        Checkpoint(Best("val/loss"), keep_best=1),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=PATIENCE),
    ]


def attached(trainer: Any, kind: str, folder: Path) -> None:
    """Attach what a kind of training has of Epochal."""
    from epochal import attach

    if kind in ("attached", "policies"):
        attach(
            trainer, *(policies() if kind == "policies" else ()), dir=folder, store=False
        )  # the trainers' own have no logger either


def images(seed: int, batches: int) -> tuple[Any, Any]:
    """Return pixels of random images, 28 x 28, and their classes."""
    import torch

    torch.manual_seed(seed)
    return torch.rand(batches * ROWS, 28 * 28), torch.randint(0, 10, (batches * ROWS,))


def plain_pytorch() -> Train:
    """A loop of one's own."""
    import torch

    from epochal import Loop

    torch.set_num_threads(1)
    inputs, targets = images(0, BATCHES)
    data = list(zip(inputs.split(ROWS), targets.split(ROWS), strict=True))
    held_out = images(1, 1)

    def train(kind: str, folder: Path) -> list[float]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        loss_of = torch.nn.functional.cross_entropy

        def step(x: Any, y: Any) -> Any:
            PIECES.cut()
            loss = loss_of(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        def evaluate() -> Any:
            with torch.no_grad():
                return loss_of(net(held_out[0]), held_out[1])

        def bare() -> None:
            for _ in range(EPOCHS):
                for x, y in data:
                    step(x, y)
                float(evaluate())

        def looped() -> None:
            chosen = policies() if kind == "policies" else ()
            with Loop(model=net, optimizer=optimizer, callbacks=chosen, dir=folder) as run:
                for _ in run.epochs(EPOCHS):
                    for x, y in run.batches(data):
                        run.log({"train/loss": step(x, y)})
                    with run.validation():
                        run.log({"val/loss": evaluate()})

        return PIECES.of(bare if kind == "bare" else looped)

    return train


def lightning() -> Train:
    """Lightning's Trainer."""
    import logging
    import warnings

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    class Module(LightningModule):
        def __init__(self, plateau: bool) -> None:
            super().__init__()
            self.plateau = plateau
            self.encoder = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 3))
            self.decoder = torch.nn.Sequential(torch.nn.Linear(3, 128), torch.nn.ReLU(), torch.nn.Linear(128, 784))

        def loss(self, batch: Any) -> Any:
            return torch.nn.functional.mse_loss(self.decoder(self.encoder(batch[0])), batch[0])

        def training_step(self, batch: Any, index: int) -> Any:
            PIECES.cut()
            loss = self.loss(batch)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
            if not self.plateau:
                return optimizer
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=PATIENCE)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    def loader(seed: int, batches: int) -> Any:
        return DataLoader(TensorDataset(*images(seed, batches)), batch_size=ROWS)

    data, held_out = loader(0, BATCHES), loader(1, 4)

    def train(kind: str, folder: Path) -> list[float]:
        own = [EarlyStopping("val_loss", patience=PATIENCE), ModelCheckpoint(folder, monitor="val_loss")]
        trainer = Trainer(
            max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=kind == "own",
            enable_progress_bar=False, enable_model_summary=False, callbacks=own if kind == "own" else None,
            default_root_dir=folder, num_sanity_val_steps=0,
        )  # fmt: skip
        attached(trainer, kind, folder)
        return PIECES.of(lambda: trainer.fit(Module(kind == "own"), data, held_out))

    return train


def transformers() -> Train:
    """Hugging Face's Trainer."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        EarlyStoppingCallback,
        Trainer,
        TrainingArguments,
    )
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    config = BertConfig(
        vocab_size=1000, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=2
    )  # fmt: skip

    class Model(BertForSequenceClassification):
        def forward(self, input_ids: Any, labels: Any) -> Any:
            PIECES.cut()
            return super().forward(input_ids, labels=labels)

    def sentences(seed: int, batches: int) -> list[dict[str, Any]]:
        torch.manual_seed(seed)
        words, labels = torch.randint(0, 1000, (batches * ROWS, 32)), torch.randint(0, 2, (batches * ROWS,))
        return [{"input_ids": one, "labels": label} for one, label in zip(words, labels, strict=True)]

    data, held_out = sentences(0, BATCHES), sentences(1, 4)

    def train(kind: str, folder: Path) -> list[float]:
        own = kind == "own"
        arguments = TrainingArguments(
            output_dir=str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=ROWS, learning_rate=1e-4,
            per_device_eval_batch_size=ROWS, eval_strategy="epoch", save_strategy="epoch" if own else "no",
            save_total_limit=1, load_best_model_at_end=own, metric_for_best_model="loss", report_to=[],
            lr_scheduler_type="reduce_lr_on_plateau", disable_tqdm=True, use_cpu=True,
            logging_strategy="epoch", optim="adamw_torch",
        )  # fmt: skip
        trainer = Trainer(
            model=Model(config), args=arguments, train_dataset=data, eval_dataset=held_out,
            callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE)] if own else None,
        )  # fmt: skip
        attached(trainer, kind, folder)
        return PIECES.of(trainer.train)

    return train


def keras() -> Train:
    """Keras' fit, on TensorFlow."""
    import keras as library

    def arrays(seed: int, batches: int) -> tuple[Any, Any]:
        pixels, classes = images(seed, batches)
        return pixels.numpy().reshape(-1, 28, 28, 1), classes.numpy()

    (inputs, targets), held_out = arrays(0, BATCHES), arrays(1, 4)

    def train(kind: str, folder: Path) -> list[float]:
        layers = library.layers
        convolutions = [
            one for width in (32, 64) for one in (layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D(2))
        ]
        model = library.Sequential(
            [library.Input((28, 28, 1)), *convolutions, layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)]
        )
        loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss)
        callbacks = library.callbacks
        own = [
            callbacks.EarlyStopping("val_loss", patience=PATIENCE),
            callbacks.ModelCheckpoint(folder / "best.keras", monitor="val_loss", save_best_only=True),
            callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=PATIENCE),
        ]
        attached(model, kind, folder)
        cut = callbacks.LambdaCallback(on_train_batch_end=PIECES.cut)
        return PIECES.of(
            lambda: model.fit(
                inputs, targets, batch_size=ROWS, epochs=EPOCHS, validation_data=held_out, verbose=0,
                callbacks=[cut, *(own if kind == "own" else ())],
            )
        )  # fmt: skip

    return train


def yolo() -> Train:
    """Ultralytics' YOLO26n on tiny images of digits."""
    from epochal.demo.digits import write_digits
    from epochal.demo.offline import ultralytics_offline

    ultralytics_offline(tempfile.mkdtemp())  # before it is imported
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    data = write_digits(Path(tempfile.mkdtemp()) / "digits", train=16, val=8, size=64)

    def train(kind: str, folder: Path) -> list[float]:
        model = YOLO("yolo26n.yaml")
        model.add_callback("on_train_batch_start", PIECES.cut)
        attached(model, kind, folder)
        own = {"patience": 100, "save": True} if kind == "own" else {"patience": 0, "save": False}
        return PIECES.of(
            lambda: model.train(
                data=str(data), epochs=EPOCHS, imgsz=64, batch=4, workers=0, device="cpu", plots=False, verbose=False,
                project=str(folder), amp=False, optimizer="SGD", **own,
            )
        )  # fmt: skip

    return train


WITHOUT_OWN = {"pytorch"}
TRAINERS: dict[str, tuple[str, Callable[[], Train], int]] = {
    "pytorch": ("plain PyTorch, `Loop`", plain_pytorch, 15),
    "lightning": ("Lightning", lightning, 40),
    "transformers": ("Hugging Face Trainer", transformers, 8),
    "keras": ("Keras on TensorFlow", keras, 6),
    "yolo": ("Ultralytics YOLO26n", yolo, 5),
}


def measured(name: str, repeats: int) -> dict[str, float]:
    """Return, for each kind, the seconds of its training; the kinds take turns."""
    train = TRAINERS[name][1]()
    kinds = KINDS[:3] if name in WITHOUT_OWN else KINDS
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as parent:
        for number in range(-1, repeats):
            order = kinds if number % 2 else kinds[::-1]
            for kind in order:
                folder = Path(parent) / f"{kind}{number}"
                folder.mkdir()
                pieces = train(kind, folder)
                if number >= 0:  # the first of each warms up
                    found[kind].append(pieces)
    seconds = {kind: fastest(times) for kind, times in found.items()}
    if "own" in found:
        seconds["low"], seconds["high"] = interval(found["policies"], found["own"])
    return seconds


def fastest(times: list[list[float]]) -> float:
    """Return the sum of each piece's fastest time."""
    return sum(map(min, zip(*times, strict=True)))


def interval(ours: list[list[float]], own: list[list[float]], resamples: int = 500) -> tuple[float, float]:
    """Return between what nine of ten ratios lie if the repeats are drawn anew: Efron's bootstrap, by percentiles."""
    draw = random.Random(0).choices
    ratios = sorted(fastest(draw(ours, k=len(ours))) / fastest(draw(own, k=len(own))) for _ in range(resamples))
    return ratios[resamples // 20], ratios[-resamples // 20]


def child(name: str, repeats: int) -> dict[str, float]:
    """Measure one trainer in a process of its own."""
    command = [sys.executable, __file__, "--only", name, "--repeats", str(repeats), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict[str, float]) -> tuple[list[str], bool]:
    """Return a trainer's row of the table, and whether its promise holds."""
    ratio = {kind: found[kind] / found["bare"] for kind in KINDS if kind in found}
    bare = found["bare"] / EPOCHS * 1e3
    cells = [TRAINERS[name][0], f"{bare:,.0f} ms", f"{ratio['attached']:.2f}", f"{ratio['policies']:.2f}"]
    if name in WITHOUT_OWN:
        return [*cells, "", "", ""], True
    against = f"{found['policies'] / found['own']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
    holds = round(found["low"], 2) <= 1
    return [*cells, f"{ratio['own']:.2f}", against, "yes" if holds else "**no**"], holds


def main() -> int:
    """Measure the trainers, print the table, and return 1 if somewhere Epochal costs more than the trainer's own."""
    parser = argparse.ArgumentParser(description="What Epochal costs in each trainer, beside the trainer's own.")
    parser.add_argument("--only", choices=TRAINERS, help="one trainer")
    parser.add_argument("--repeats", type=int, help="repeats")
    parser.add_argument("--json", action="store_true", help="the seconds, of one trainer")
    parser.add_argument("--write", action="store_true", help="put the table into " + " and ".join(PAGES))
    options = parser.parse_args()
    if options.json:
        print(json.dumps(measured(options.only, options.repeats)))
        return 0
    verdicts: list[tuple[list[str], bool]] = []
    for name in [options.only] if options.only else TRAINERS:
        print(name, file=sys.stderr)
        verdicts.append(row(name, child(name, options.repeats or TRAINERS[name][2])))
    head = ["trainer", "an epoch, bare", "Epochal, no callback", "three policies", "its own", "policies / own", "<= 1"]
    where = (
        f"Measured {date.today().isoformat()}: Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Times of the wall clock, in "
        f"units of the bare training. {EPOCHS} epochs of {BATCHES} batches (YOLO: 4)."
    )
    text = f"{table(head, [cells for cells, _ in verdicts])}\n\n{where}"
    print(text)
    if options.write:
        write(text, PAGES, mark="trainers")
    return 0 if all(holds for _, holds in verdicts) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.exit(main())
