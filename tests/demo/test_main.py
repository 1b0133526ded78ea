"""The demo, as a newcomer runs it: it learns, it tells the truth about it, and what it says to paste works."""

import csv
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from epochal.demo import pytorch
from epochal.demo.main import DemoFailed, run_demo

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture
def console():
    """A screen of 110 columns that remembers what was printed."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        yield Console(record=True, width=110, file=nowhere)


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def statuses(tmp_path):
    """What MLflow's own client says of every run in the store beside the runs."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    return [run.info.status for one in client.search_experiments() for run in client.search_runs([one.experiment_id])]


def test_the_plain_loop_learns_and_everything_it_speaks_of_is_there(tmp_path, console):
    outcome = run_demo(trainer="pytorch", console=console)
    folder = tmp_path / "runs" / "demo-pytorch"
    rows = rows_of(folder)
    accuracy = [float(row["val/accuracy"]) for row in rows]
    assert outcome.best == (accuracy.index(max(accuracy)) + 1, pytest.approx(max(accuracy)))
    assert max(accuracy) >= 0.9
    assert len(rows) == outcome.summary.epochs
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert statuses(tmp_path) == ["FINISHED"]
    text = console.export_text()
    for said in ["EarlyStopping(val/accuracy)", "Checkpoint(best, last)", "milestones()", "CSVLogger", "1437 scans"]:
        assert said in text
    assert f"after epoch {len(rows)} of at most" in text

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [one.value for one in events.Scalars("val/accuracy")] == pytest.approx(accuracy, abs=1e-6)

    pasted = [line.strip() for line in text.partition("look at it:")[2].splitlines() if line.strip()]
    assert len(pasted) == 4
    assert pasted[0].endswith("epochal dashboard runs")
    verified = subprocess.run(shlex.split(pasted[1]), capture_output=True, text=True, check=False, timeout=120)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("verified") == len({outcome.best[0], outcome.summary.epochs})
    assert pasted[2].endswith("tensorboard --logdir runs")
    assert pasted[3].endswith("mlflow ui --backend-store-uri sqlite:///runs/mlflow.db")


@pytest.mark.parametrize("task", ["detect", pytest.param("segment", marks=pytest.mark.slow)])
def test_yolo_trains_quietly_with_every_callback_at_work(task, tmp_path, console, capfd):
    pytest.importorskip("ultralytics")
    from ultralytics import utils

    before = utils.LOGGER.level, utils.LOGGER.handlers[:], utils.VERBOSE
    outcome = run_demo(task, epochs=2, images=(16, 8), console=console)
    assert (utils.LOGGER.level, utils.LOGGER.handlers, utils.VERBOSE) == before
    printed = capfd.readouterr()
    lines = [line for line in printed.out.splitlines() if line]
    assert [line.split()[0] for line in lines] == ["epoch=1/2", "epoch=2/2"]  # Progress, and nobody else
    assert "100%" not in printed.err

    folder = tmp_path / "runs" / f"demo-{task}"
    assert outcome.summary.dir == folder / "epochal"
    assert outcome.summary.end_reason == "completed"
    assert outcome.summary.failures == {}
    assert len(rows_of(folder / "epochal")) == 2
    assert (folder / "epochal" / "curves.png").is_file()
    assert "Starting training for 2 epochs" in (folder / "ultralytics.log").read_text()
    assert statuses(tmp_path) == ["FINISHED"]
    assert outcome.summary.costs["milestones()"][0] == 2


def test_a_training_that_did_not_learn_is_an_error_that_says_so(console, monkeypatch):
    monkeypatch.setattr(pytorch, "PLAN", replace(pytorch.PLAN, epochs=1, goal=1.01))
    with pytest.raises(
        DemoFailed, match=r"the training failed: accuracy reached 0\.\d+ in 1 epochs, the goal is 1\.01"
    ):
        run_demo(trainer="pytorch", console=console)
    assert "after epoch 1 of at most 1" in console.export_text()


@pytest.mark.slow
def test_ctrl_c_ends_with_the_report(tmp_path):
    command = [sys.executable, "-m", "epochal", "demo", "--trainer", "pytorch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "110"}) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("epoch=2/"):
                demo.send_signal(signal.SIGINT)
                break
        rest = demo.stdout.read()
        assert demo.wait(120) == 130
    assert "interrupted after epoch" in rest
    assert "look at it:" in rest
    assert "Traceback" not in rest
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("task", "quality"), [("detect", "mAP50"), ("segment", "mask mAP50")])
def test_the_whole_demo_finds_the_digits(task, quality, tmp_path):
    pytest.importorskip("ultralytics")
    done = subprocess.run(
        [sys.executable, "-m", "epochal", "demo", "--task", task],
        capture_output=True, text=True, check=False, timeout=1100, env={**os.environ, "COLUMNS": "110"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    learnt = re.search(rf"learnt +{quality} (\d\.\d+) at epoch (\d+)", done.stdout)
    assert learnt is not None, done.stdout
    assert float(learnt[1]) > 0.8
    kind = "B" if task == "detect" else "M"
    measured = [float(row[f"val/mAP50({kind})"]) for row in rows_of(tmp_path / "runs" / f"demo-{task}" / "epochal")]
    assert math.isclose(max(measured), float(learnt[1]), abs_tol=5e-4)
