"""One suite over every logger there is, found by searching for subclasses."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import epochal.loggers
from epochal.loggers.base import Logger
from epochal.loggers.csv import CSVLogger
from epochal.loggers.json import JSONLogger
from epochal.loggers.mlflow import MLflowLogger
from epochal.loggers.tensorboard import TensorBoardLogger
from epochal.loggers.wandb import WandbLogger
from epochal.testing.check_logger import check_logger


def read_csv(folder):
    pandas = pytest.importorskip("pandas")
    return {"val/loss": pandas.read_csv(folder / "metrics.csv")["val/loss"]}


def read_json(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["train/loss"] for row in rows if row["kind"] == "step"]
    return {"val/loss": [row["val/loss"] for row in rows if row["kind"] == "epoch"], "train/loss": steps}


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in ("val/loss", "train/loss")}


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(store(folder))
    runs = client.search_runs([client.get_experiment_by_name("epochal").experiment_id])
    return {
        name: [
            one.value for one in sorted(client.get_metric_history(runs[0].info.run_id, name), key=lambda one: one.step)
        ]
        for name in ("val/loss", "train/loss")
    }


def read_wandb(folder):
    from tests.loggers.test_wandb import history

    rows = history(folder)
    return {name: [float(row[name]) for row in rows if name in row] for name in ("val/loss", "train/loss")}


def store(folder: Path) -> str:
    """One store for all trainings of the suite: making one takes seconds."""
    return f"sqlite:///{folder.parent}/mlflow.db"


ROWS = {
    CSVLogger: (lambda folder: CSVLogger(folder / "metrics.csv"), read_csv),
    JSONLogger: (lambda folder: JSONLogger(folder / "metrics.jsonl", every=1), read_json),
    TensorBoardLogger: (TensorBoardLogger, read_tensorboard),
    MLflowLogger: (lambda folder: MLflowLogger(store(folder)), read_mlflow),
    WandbLogger: (lambda folder: WandbLogger(dir=folder, mode="offline"), read_wandb),
}


def every_logger():
    for module in pkgutil.iter_modules(epochal.loggers.__path__, "epochal.loggers."):
        importlib.import_module(module.name)
    return [one for one in Logger.__subclasses__() if one.__module__.startswith("epochal.loggers.")]


def test_every_logger_is_a_row_of_this_suite():
    assert set(ROWS) == set(every_logger())


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_logger_keeps_the_contract(kind, tmp_path):
    make, read = ROWS[kind]
    check_logger(make, read=read, folder=tmp_path)
