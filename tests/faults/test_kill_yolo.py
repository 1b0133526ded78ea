"""kill -9 at any moment of a YOLO training, and resume, again and again: it ends as if nothing had happened.

``python -m tests.faults.test_kill_yolo`` is the process whose forks are killed, with torch and Ultralytics loaded once: four kills of
one training, or, with ``--kills N``, N kills over trainings of many kinds.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.forks import ended, forked, killed
from tools.house import ROOT

KINDS = [
    {"optimizer": "AdamW", "nbs": 40, "batch": 6, "close_mosaic": 1, "mosaic": 1.0, "warmup_epochs": 1},
    {"optimizer": "SGD", "nbs": 24, "close_mosaic": 2, "mosaic": 1.0, "lr0": 0.01, "task": "-seg"},
    {"optimizer": "MuSGD", "nbs": 8, "close_mosaic": 0, "mosaic": 0.5, "mixup": 0.3, "cos_lr": True},
    {"optimizer": "MuSGD", "nbs": 40, "batch": 6, "close_mosaic": 3, "task": "-seg"},
    {"optimizer": "SGD", "nbs": 8, "mosaic": 0.0, "rect": True},
    {"optimizer": "AdamW", "nbs": 24, "close_mosaic": 2, "multi_scale": 0.5, "task": "-seg"},
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_kills_leave_no_trace(tmp_path, offline_ultralytics, tiny_digits, kills):
    command = [
        sys.executable,
        "-m",
        "tests.faults.test_kill_yolo",
        "--kills",
        str(kills),
        "--epochs",
        "3",
        "--data",
        str(tiny_digits),
    ]
    command += ["--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["kills"], report["failed resumes"], report["trainings"]) == (kills, 0, report["bit-identical"])


def train(data: Path, project: Path, kind: dict) -> None:
    """Train, or go on, to the end, and write what there is then."""
    import torch
    from ultralytics import YOLO

    from epochal import Checkpoint, EarlyStopping, attach

    torch.manual_seed(os.getpid())  # nothing of what a fresh process draws may matter
    options = {
        "data": str(data), "imgsz": 32, "batch": 8, "epochs": 5, "device": "cpu", "plots": False, "verbose": False,
        "pretrained": False, "project": str(project), "name": "t", **kind,
    }  # fmt: skip
    model = YOLO(f"yolo26n{options.pop('task', '')}.yaml")
    run = attach(model, Checkpoint(), EarlyStopping("val/loss", patience=50), resume=True)

    @run.on("on_train_end")
    def keep(run):
        trainer = run.trainer
        end = {"live": trainer.model.state_dict(), "ema": trainer.ema.ema.state_dict(), "updates": trainer.ema.updates}
        end |= {"history": [dict(row) for row in run.history], "optimizer": trainer.optimizer.state_dict()}
        torch.save(end, project / "end.tmp")
        os.replace(project / "end.tmp", project / "end.pt")

    model.train(**options)


def uninterrupted(data: Path, project: Path, kind: dict) -> float:
    """Train without a kill and return the seconds that takes."""
    project.mkdir(parents=True)
    began = time.monotonic()
    child = forked(partial(train, data, project, kind), log=project / "log.txt")
    assert ended(child) == 0, (project / "log.txt").read_text()[-4000:]
    return time.monotonic() - began


def torn(data: Path, project: Path, kind: dict, kills: int, seconds: float, rng: random.Random) -> tuple[int, int]:
    """Kill a training and let it go on, until it is done; return the kills, and the resumes that failed."""
    project.mkdir(parents=True)
    done = failed = 0
    while failed < 3:
        child = forked(partial(train, data, project, kind), log=project / "log.txt")
        code = killed(child, rng.uniform(0.0, seconds)) if done < kills else ended(child)
        if code == 0:
            return done, failed
        if code == -signal.SIGKILL:
            done += 1
        else:
            failed += 1
    raise AssertionError((project / "log.txt").read_text()[-6000:])


def same(one, other) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def torture(data: Path, folder: Path, kills: int, *, seed: int = 7, epochs: int = 5) -> dict[str, int]:
    """Kill so many times, over as many trainings as that takes, and return what was seen."""
    import torch

    rng = random.Random(seed)
    report = {"kills": 0, "trainings": 0, "bit-identical": 0, "failed resumes": 0}
    whole: dict[int, float] = {}
    while report["kills"] < kills:
        number = report["trainings"] % len(KINDS)
        kind, reference = {**KINDS[number], "epochs": epochs}, folder / f"whole-{number}"
        if number not in whole:
            whole[number] = uninterrupted(data, reference, kind)
        project = folder / f"torn-{report['trainings']}"
        done, failed = torn(data, project, kind, min(4, kills - report["kills"]), whole[number], rng)
        ends = [torch.load(one / "end.pt", weights_only=False) for one in (reference, project)]
        report["kills"] += done
        report["failed resumes"] += failed
        report["trainings"] += 1
        report["bit-identical"] += same(*ends)
        print(json.dumps(report), flush=True)
    return report


def main() -> None:
    """Kill so many times; the exit status is 1 if a resume failed or a training did not end the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--data", type=Path, help="a digits data set; made if it is not given")
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochal-torture-") as made:
        report = prepared(said, said.dir or Path(made))
    print(json.dumps(report), flush=True)
    sys.exit(report["failed resumes"] > 0 or report["bit-identical"] < report["trainings"])


def prepared(said: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Load what the forks need, then kill them; return the report."""
    from epochal.demo.offline import ultralytics_offline

    ultralytics_offline(folder / "settings")
    import torch
    import ultralytics.models.yolo.detect  # loaded before the forks
    import ultralytics.models.yolo.segment  # noqa: F401

    from epochal.demo.digits import write_digits

    torch.set_num_threads(1)  # a fork inherits no threads
    data = said.data or write_digits(folder / "digits", train=16, val=8, size=64)
    return torture(data, folder, said.kills, seed=said.seed, epochs=said.epochs)


if __name__ == "__main__":
    main()
