"""What pruning saves: a search over digit classifiers, with and without it, as the table of docs/tuning.md.

    python benchmarks/pruning.py            train the curves, search, print the table
    python benchmarks/pruning.py --write    and put it between the marks in docs/tuning.md
    python benchmarks/pruning.py --quick    fewer configurations and repetitions, for a first look
    python benchmarks/pruning.py --seed 1   on other curves

First every configuration is trained for all epochs, once: small networks on scikit-learn's handwritten digits, all of
them side by side in one batched matrix product. Then searches are replayed on these curves: each takes configurations
in a random order, without replacement, and trains them one after the other through `simulate` with `Prune`. A search
without pruning over the same configurations is the measure: how many of its epochs are used, and is its best accuracy
found.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import optuna
import report

from epochal.testing import simulate
from epochal.tune.optuna import Prune

METRIC = "val/accuracy"
PAGE = "docs/tuning.md"
LIMIT_EPOCHS, LIMIT_BEST = 0.30, 0.95  # of the main row: its share of the epochs, and of repetitions with the same best
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "MedianPruner()": optuna.pruners.MedianPruner,
    "SuccessiveHalvingPruner(min_resource=3, reduction_factor=3)": lambda: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=3, reduction_factor=3
    ),
    "HyperbandPruner(min_resource=1, reduction_factor=3)": lambda: optuna.pruners.HyperbandPruner(
        min_resource=1, reduction_factor=3
    ),
}
MAIN = "MedianPruner()"


class Size(NamedTuple):
    """How much is trained and searched."""

    configurations: int = 240
    epochs: int = 30
    trials: int = 60
    repetitions: int = 40
    seed: int = 0  # of the curves


class Found(NamedTuple):
    """What the repetitions of a search came to: share of the unpruned epochs, and how often the best was the same."""

    epochs: float
    same_best: int
    repetitions: int


def digits() -> tuple[Any, Any, Any, Any]:
    """Return training and validation images (n, 64) in [0, 1] and their labels (n,); every fifth validates."""
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    held_out = torch.arange(len(y)) % 5 == 0
    return x[~held_out], y[~held_out], x[held_out], y[held_out]


def accuracies(size: Size) -> np.ndarray:
    """Return the validation accuracy of every configuration after every epoch, (configurations, epochs).

    A configuration is a network 64 - hidden - 10 with ReLU, trained by SGD with momentum and a batch size of 64:
    the learning rate is 1e-3 to 1 (log-uniform), hidden 2 to 64 (log-uniform), momentum 0 to 0.95, weight decay 1e-6 to
    1e-2 (log-uniform), and the weights begin 0.3 to 3 times (log-uniform) as large as usual.
    """
    import torch

    x, y, val_x, val_y = digits()
    rng, n = np.random.default_rng(size.seed), size.configurations

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).reshape(n, 1, 1)

    def log_uniform(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))

    rate, momentum, decay = (
        column(log_uniform(1e-3, 1)),
        column(rng.uniform(0, 0.95, n)),
        column(log_uniform(1e-6, 1e-2)),
    )
    hidden, scale = column(log_uniform(2, 64).round()), column(log_uniform(0.3, 3))
    used = (torch.arange(64).reshape(1, 1, 64) < hidden).float()  # the hidden units that a configuration has
    torch.manual_seed(size.seed)
    weights = [torch.randn(n, 64, 64) * scale * (2 / 64) ** 0.5 * used, torch.zeros(n, 1, 64)]
    weights += [torch.randn(n, 64, 10) * scale * (2 / hidden) ** 0.5, torch.zeros(n, 1, 10)]
    velocity = [torch.zeros_like(one) for one in weights]
    for one in weights:
        one.requires_grad_()

    def scores(batch: torch.Tensor) -> torch.Tensor:
        inside = torch.relu(torch.matmul(batch, weights[0]) + weights[1]) * used
        return torch.matmul(inside, weights[2]) + weights[3]

    curves = np.empty((n, size.epochs))
    for epoch in range(size.epochs):
        for rows in torch.randperm(len(y)).split(64):
            out = scores(x[rows])
            # A sum over networks: each one's gradient is that of its own mean loss.
            loss = -torch.log_softmax(out, 2)[:, torch.arange(len(rows)), y[rows]].mean(1).sum()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for one, speed, gradient in zip(weights, velocity, gradients, strict=True):
                    speed.mul_(momentum).add_(gradient + decay * one)
                    one.sub_(rate * speed)
        with torch.no_grad():
            curves[:, epoch] = (scores(val_x).argmax(2) == val_y).float().mean(1).numpy()
    return curves


def search(curves: np.ndarray, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """Return a study that has trained these configurations, one after the other."""
    study = optuna.create_study(direction="maximize", pruner=pruner)

    def objective(trial: optuna.Trial) -> float:
        curve = curves[trial.number]
        # In memory nothing can hang, so no thread is needed.
        simulate([Prune(trial, METRIC, timeout=None)], [{METRIC: float(value)} for value in curve])
        return float(curve.max())

    study.optimize(objective, n_trials=len(curves))
    return study


def repeat(curves: np.ndarray, size: Size, make: Callable[[], optuna.pruners.BasePruner]) -> Found:
    """Return what the repetitions of a search come to."""
    used = same = 0
    for seed in range(size.repetitions):
        chosen = curves[np.random.default_rng(seed).permutation(len(curves))[: size.trials]]
        study = search(chosen, make())
        used += sum(len(trial.intermediate_values) for trial in study.trials)
        same += study.best_value == float(chosen.max())
    return Found(used / (size.repetitions * size.trials * size.epochs), same, size.repetitions)


def table(rows: dict[str, Found]) -> str:
    """Return the results as a markdown table."""
    shown = [
        [f"`{name}`", f"{found.epochs:.1%}".replace("%", " %"), f"{found.same_best} of {found.repetitions}"]
        for name, found in rows.items()
    ]
    head = ["pruner", "epochs, of those without pruning", "same best accuracy"]
    return report.table(head, [["none", "100 %", ""], *shown])


def about(size: Size, curves: np.ndarray, seconds: float) -> str:
    """Return what was measured, and when."""
    best = curves.max(1)
    return (
        f"Measured {date.today().isoformat()} with Optuna {optuna.__version__}, curves of seed {size.seed}:"
        f" {size.configurations} configurations of a small network on scikit-learn's digits, each trained for"
        f" {size.epochs} epochs ({seconds:.0f} s for all; best validation accuracies {best.min():.3f} to"
        f" {best.max():.3f}, median {np.median(best):.3f}); searches of {size.trials} trials in random order,"
        f" {size.repetitions} repetitions. The score of a trial is its best accuracy; a pruned trial has none."
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 if the main row does not keep its promise."""
    parser = argparse.ArgumentParser(description="Measure what pruning saves.")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE}")
    parser.add_argument("--quick", action="store_true", help="fewer configurations and repetitions")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other curves")
    options = parser.parse_args(arguments)
    size = (Size(60, 20, 30, 5) if options.quick else Size())._replace(seed=options.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    start = time.monotonic()
    curves = accuracies(size)
    seconds = time.monotonic() - start
    found = {}
    for name, make in PRUNERS.items():
        print(name, file=sys.stderr)
        found[name] = repeat(curves, size, make)
    text = f"{table(found)}\n\n{about(size, curves, seconds)}"
    print(text)
    if options.write:
        report.write(text, [PAGE], mark="pruning")
    main_row = found[MAIN]
    return int(main_row.epochs > LIMIT_EPOCHS or main_row.same_best < LIMIT_BEST * main_row.repetitions)


if __name__ == "__main__":
    sys.exit(main())
