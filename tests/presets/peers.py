"""The libraries' own classes, put through a sequence; what they decided, as ``tests.oracle_agreement`` reads it.

``python -m tests.presets.peers NAME`` answers one JSON case per line: a peer in a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.oracle_agreement import METRIC, number

Case = dict[str, Any]


# -- Keras ----------------------------------------------------------------------------------------------------------


def keras_model() -> Any:
    import keras

    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return model


def keras_logs(value: Any) -> dict[str, float]:
    return {} if value is None else {METRIC: float(value)}


def keras_early_stopping(case: Case) -> Case:
    import keras
    import numpy as np

    model, opts = keras_model(), case["opts"]
    callback = keras.callbacks.EarlyStopping(METRIC, **opts)
    callback.set_model(model)
    model.stop_training, epoch = False, -1
    callback.on_train_begin()
    for epoch, value in enumerate(case["seq"]):
        model.set_weights([np.full((1, 1), float(epoch))])  # the weights are the epoch that made them
        callback.on_epoch_end(epoch, keras_logs(value))
        if model.stop_training:
            break
    model.set_weights([np.full((1, 1), -1.0)])
    callback.on_train_end()
    restored = int(model.get_weights()[0].item())
    return {
        "last_epoch": epoch,
        "stopped": bool(model.stop_training),
        "restored": None if restored < 0 else restored,
    }


def keras_reduce_lr_on_plateau(case: Case) -> Case:
    import keras

    model = keras_model()
    model.optimizer.learning_rate = case["lr0"]
    callback = keras.callbacks.ReduceLROnPlateau(METRIC, **case["opts"])
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(case["seq"]):
        callback.on_epoch_end(epoch, keras_logs(value))
        rates.append(float(f"{float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)):.7g}"))
    return {"lr": rates}


def keras_model_checkpoint(case: Case) -> Case:
    import keras

    saved, names = [], set()
    with tempfile.TemporaryDirectory() as folder:
        callback = keras.callbacks.ModelCheckpoint(
            f"{folder}/{case['template']}", monitor=METRIC, save_weights_only=True, **case["opts"]
        )
        callback.set_model(keras_model())
        callback.on_train_begin()
        for epoch, value in enumerate(case["seq"]):
            callback.on_epoch_begin(epoch)
            callback.on_epoch_end(epoch, keras_logs(value))
            found = list(Path(folder).iterdir())
            saved += [epoch] * bool(found)
            names |= {one.name for one in found}
            for one in found:
                one.unlink()
    return {"saved_epochs": saved, "kept": sorted(names)}


# -- Lightning ------------------------------------------------------------------------------------------------------


def lightning_early_stopping(case: Case) -> Case:
    import torch
    from lightning.pytorch.callbacks import EarlyStopping

    callback = EarlyStopping(METRIC, strict=False, **case["opts"])
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision)
    trainer = SimpleNamespace(callback_metrics={}, fast_dev_run=False, strategy=strategy, should_stop=False)
    epoch = -1
    for epoch, value in enumerate(case["seq"]):
        if value is not None:  # else the trainer keeps the old value
            trainer.callback_metrics[METRIC] = torch.tensor(float(value))
        trainer.current_epoch = epoch
        callback._run_early_stopping_check(trainer)
        if trainer.should_stop:
            break
    return {"last_epoch": epoch, "stopped": bool(trainer.should_stop)}


def lightning_model_checkpoints(cases: list[Case]) -> list[Case]:
    """One real training with a callback, and a metric, for each case; the sequences are of one length."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Logs(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return self.layer(batch).sum()

        def validation_step(self, batch: Any, index: int) -> None:
            for which, case in enumerate(cases):
                self.log(f"m{which}", torch.tensor(float(case["seq"][self.current_epoch])))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Notes(ModelCheckpoint):
        """Lightning's own, which writes down what it saves."""

        @property
        def state_key(self) -> str:
            return str(self.dirpath)  # several with one metric and mode

        def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
            super()._save_checkpoint(trainer, filepath)
            name = Path(filepath).stem
            epoch = trainer.current_epoch - (name == "last" and trainer.state.fn is None)
            self.saved = [*getattr(self, "saved", []), [min(epoch, len(cases[0]["seq"]) - 1), name]]

    with tempfile.TemporaryDirectory() as folder:
        callbacks = []
        for which, case in enumerate(cases):
            opts = {**case["opts"], "monitor": f"m{which}" if case["opts"]["monitor"] else None}
            callbacks.append(Notes(f"{folder}/{which}", filename="{epoch}", **opts))
        loader = torch.utils.data.DataLoader(torch.ones(1, 1))
        trainer = pl.Trainer(
            max_epochs=len(cases[0]["seq"]),
            accelerator="cpu",
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(Logs(), loader, loader)
        kept = [sorted(one.stem for one in Path(f"{folder}/{which}").glob("*.ckpt")) for which in range(len(cases))]
    return [{"saved": getattr(one, "saved", []), "kept": names} for one, names in zip(callbacks, kept, strict=True)]


# -- Hugging Face ---------------------------------------------------------------------------------------------------


def hf_early_stopping(case: Case) -> Case:
    """One real training, one step and one evaluation per epoch."""
    import torch
    from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            out = self.layer(x)
            return {"loss": (out - labels).square().mean(), "logits": out}

    class Saved(TrainerCallback):
        epochs: tuple[int, ...] = ()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.epochs += (state.global_step - 1,)

    opts, saved = case["opts"], Saved()
    values = iter(case["seq"])
    data = [{"x": torch.ones(1), "labels": torch.ones(1)}]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=len(case["seq"]),
            eval_strategy="epoch",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            metric_for_best_model=METRIC,
            greater_is_better=opts["greater_is_better"],
            save_strategy=opts["save_strategy"],
            save_total_limit=opts["save_total_limit"],
            load_best_model_at_end=opts["load_best_model_at_end"],
        )
        stop = EarlyStoppingCallback(opts["early_stopping_patience"], opts["early_stopping_threshold"])
        trainer = Trainer(
            Model(),
            arguments,
            train_dataset=data,
            eval_dataset=data,
            compute_metrics=lambda _: {METRIC: number(next(values))},
            callbacks=[stop, saved],
        )
        trainer.train()
        kept = sorted(int(one.name.split("-")[1]) for one in Path(folder).glob("checkpoint-*"))
        best = trainer.state.best_model_checkpoint
    last = trainer.state.global_step - 1
    return {
        "last_epoch": last,
        "stopped": stop.early_stopping_patience_counter >= stop.early_stopping_patience,
        "saved_epochs": list(saved.epochs),
        "kept_steps": kept,
        "best_ckpt": best and Path(best).name,
    }


# -- PyTorch, Ultralytics -------------------------------------------------------------------------------------------


def torch_reduce_lr_on_plateau(case: Case) -> Case:
    import torch

    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in case["lr0"]]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **case["opts"])
    rates = []
    for value in case["seq"]:
        scheduler.step(float(value))
        rates.append([group["lr"] for group in optimizer.param_groups])
    return {"lr": rates}


def ultralytics_early_stopping(case: Case) -> Case:
    import torch
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import EarlyStopping

    opts, stopper = case["opts"], EarlyStopping(patience=case["opts"]["patience"])
    trainer = SimpleNamespace(ema=None, world_size=1, best_fitness=None, loss=torch.zeros(()))
    best, period, stopped, epoch = [], [], False, -1
    for epoch, value in enumerate(case["seq"]):
        fitness = None
        if value is not None:
            trainer.validator = lambda _, value=value: {"fitness": float(value)}
            _, fitness = BaseTrainer.validate(trainer)
        stopped = bool(stopper(epoch + 1, fitness))
        if fitness is not None and trainer.best_fitness == fitness:  # the rule of BaseTrainer.save_model
            best.append(epoch)
        if opts["save_period"] > 0 and epoch % opts["save_period"] == 0:
            period.append(epoch)
        if stopped:
            break
    return {"last_epoch": epoch, "stopped": stopped, "best_pt_epochs": best, "period_epochs": period}


# -- a peer in a process of its own ---------------------------------------------------------------------------------

PEERS: dict[str, Callable[[Case], Case]] = {
    one.__name__: one
    for one in (
        hf_early_stopping,
        keras_early_stopping,
        keras_model_checkpoint,
        keras_reduce_lr_on_plateau,
        lightning_early_stopping,
        torch_reduce_lr_on_plateau,
        ultralytics_early_stopping,
    )
}


@contextmanager
def beside() -> Iterator[Callable[[str, Case], Case]]:
    """Give a function that asks the peers in a process of its own: TensorFlow is not to be in this one."""
    command = [sys.executable, "-m", "tests.presets.peers"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(name: str, case: Case) -> Case:
            process.stdin.write(json.dumps([name, case]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def answer() -> None:
    """Answer one case per line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the libraries print too
    for line in sys.stdin:
        name, case = json.loads(line)
        print(json.dumps(PEERS[name](case)), file=answers, flush=True)


if __name__ == "__main__":
    answer()
