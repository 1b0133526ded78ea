"""A training for the page to show: a small net on drawn shapes, for the browser's tests and the pictures.

``python -m tests.dashboard.training NAME --epochs 30 --batches 40 --lr 0.05 --pause 0.02 --rich``
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epochal import Checkpoint, EarlyStopping, Every, GradientMonitor, Loop, ReduceLROnPlateau
from epochal.conditions.best import Best

LABELS = ("square", "disc", "cross")
SIZE = 160


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--dir", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a batch takes at least")
    parser.add_argument("--patience", type=int, default=12)
    parser.add_argument("--curves", type=int, default=0, help="further curves logged in each batch")
    parser.add_argument("--metric", default="", help="a further metric's name")
    parser.add_argument("--rich", action="store_true", help="with images, callbacks, parameters")
    parser.add_argument("--fail-at", type=int, default=0, help="the step at which it fails")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of this name")
    return parser.parse_args(given)


def shapes(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return so many points in the plane and which of three rings each belongs to."""
    ring = rng.integers(0, 3, count)
    angle = rng.uniform(0, 2 * math.pi, count)
    radius = ring + 1 + rng.normal(0, 0.22, count)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(ring)


def picture(rng: np.random.Generator, quality: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return an image with three shapes, and boxes around them, true and as good as ``quality``."""
    image = np.full((SIZE, SIZE, 3), (232, 236, 241), np.uint8)
    grid = np.mgrid[0:SIZE, 0:SIZE]
    boxes: list[dict[str, Any]] = []
    for index, label in enumerate(LABELS):
        x, y, half = 28 + 50 * index, int(rng.integers(35, SIZE - 35)), int(rng.integers(13, 22))
        dy, dx = np.abs(grid[0] - y), np.abs(grid[1] - x)
        inside = {
            "square": np.maximum(dx, dy) < half,
            "disc": dx**2 + dy**2 < half**2,
            "cross": (np.minimum(dx, dy) < half / 3) & (np.maximum(dx, dy) < half),
        }[label]
        image[inside] = [(70, 102, 146), (181, 96, 66), (72, 128, 101)][index]
        true = [x - half, y - half, x + half, y + half]
        shift = rng.normal(0, 14 * (1 - quality), 4)
        boxes.append({"box": true, "label": label, "true": True, "mask": inside})
        score = min(0.99, max(0.05, quality + rng.normal(0, 0.06)))
        boxes.append(
            {"box": [float(edge + by) for edge, by in zip(true, shift, strict=True)], "label": label, "score": score}
        )
    return image, boxes


def train(*given_arguments: str) -> str:
    """Train, and return how it ended."""
    given = arguments(given_arguments)
    torch.manual_seed(given.seed)
    rng = np.random.default_rng(given.seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=given.lr, momentum=0.9)
    callbacks: list[Any] = []
    if given.rich:
        callbacks = [
            EarlyStopping("val/loss", patience=given.patience),
            Checkpoint(when=Best("fitness") | Every(epochs=10), keep_last=2, keep_best=1),
            ReduceLROnPlateau("val/loss", factor=0.5, patience=max(3, given.patience // 4)),
            GradientMonitor("*.weight", every=5),
        ]
    x_val, y_val = shapes(rng, 400)
    loop = Loop(
        model=net, optimizer=optimizer, callbacks=callbacks, fitness="val/accuracy", dir=given.dir, name=given.name,
        resume=given.resume,
    )  # fmt: skip

    def validate(run: Any) -> float:
        with torch.no_grad():
            output = net(x_val)
        measured = float((output.argmax(1) == y_val).float().mean())
        run.log({"val/loss": torch.nn.functional.cross_entropy(output, y_val), "val/accuracy": measured})
        return measured

    with loop as run:
        run.validator(validate)
        run.log_params(
            {
                "lr0": given.lr,
                "momentum": 0.9,
                "batch": 32,
                "seed": given.seed,
                "model": {"hidden": 32, "activation": "tanh"},
            }
        )
        for epoch in run.epochs(given.epochs):
            for _ in run.batches(range(given.batches)):
                x, y = shapes(rng, 32)
                output = net(x)
                loss = torch.nn.functional.cross_entropy(output, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                accuracy = (output.argmax(1) == y).float().mean()
                run.log({"train/loss": loss, "train/accuracy": accuracy})
                if given.metric:
                    run.log({given.metric: loss})
                if given.curves:
                    run.log(
                        {
                            f"curve/{number:02d}": math.sin(run.step / 40 + number) + rng.normal(0, 0.1)
                            for number in range(given.curves)
                        }
                    )
                if run.step == given.fail_at > 0:
                    raise RuntimeError(f"failed as asked at step {run.step}")
                time.sleep(given.pause)
            with run.validation():
                measured = validate(run)
            print(f"epoch {epoch + 1}/{given.epochs}  accuracy \x1b[32m{measured:.3f}\x1b[0m", flush=True)
            if given.rich and epoch % 3 == 0:
                image, boxes = picture(np.random.default_rng(epoch), measured)
                run.log_image("shapes", image, boxes=boxes)
                run.log_histogram("weights/2", net[2].weight)
                run.log_text("sample", f"a {LABELS[epoch % 3]} at epoch {epoch + 1}")
    print(f"ended: {run.end_reason}", flush=True)
    return str(run.end_reason)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(*sys.argv[1:])
