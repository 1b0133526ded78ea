"""How good the rates are that a range test suggests: ours, fastai's `steep` and Lightning's, beside a grid.

    python benchmarks/learning_rate_finder.py

Four small nets learn scikit-learn's digits with three optimizers each, for five epochs at a constant rate. One range
test (100 rates from 1e-7 to 10) per seed gives one curve; each rule reads its rate off that curve. The measure is the
best of 14 rates. Takes some minutes; nothing in it is a time, so load does not matter.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from epochal.callbacks.range_test import RangeTest

GRID = np.geomspace(1e-4, 3.0, 14)
EPOCHS, SEEDS, BATCH, IMAGES = 5, 3, 64, 1200
SPOILED = 3.0  # times the best loss
NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(64, 10),
    "mlp": lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    "batchnorm": lambda: nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 10),
    ),
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    ),
}  # fmt: skip
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "AdamW": torch.optim.AdamW,
}


def steep(test: RangeTest) -> float:
    """Fastai's rule: where the average falls fastest over the logarithm of the rate."""
    slopes = np.gradient(test.smoothed, np.log(test.tried))[test.steps // 10 : -5]
    return test.tried[test.steps // 10 + int(slopes.argmin())]


def lightning(test: RangeTest) -> float:
    """Lightning's rule: where the average falls fastest over the rate itself."""
    slopes = np.gradient(test.smoothed[10:-1], test.tried[10:-1])
    return test.tried[10 + int(slopes.argmin())]


RULES: dict[str, Callable[[RangeTest], float | None]] = {
    "ours": RangeTest.suggestion, "fastai's steep": steep, "Lightning's": lightning
}  # fmt: skip


def losses(net: str, optimizer: str, seed: int, rates: Iterator[float]) -> Iterator[float]:
    """Yield the loss of one step after the other, each at the next rate."""
    digits = load_digits()
    x, y = torch.tensor(digits.data[:IMAGES] / 16, dtype=torch.float32), torch.tensor(digits.target[:IMAGES])
    torch.manual_seed(seed)
    model = NETS[net]()
    stepper = OPTIMIZERS[optimizer](model.parameters(), lr=0.1)
    while True:
        for chosen in torch.randperm(IMAGES).split(BATCH):
            rate = next(rates, None)
            if rate is None:
                return
            stepper.param_groups[0]["lr"] = rate
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            yield loss.item()


def range_test(net: str, optimizer: str, seed: int) -> RangeTest:
    """Do one range test."""
    test = RangeTest(1e-7, 10.0, 100, smooth=0.98, diverged=4.0)
    for rate, loss in zip(test.rates(), losses(net, optimizer, seed, iter(test.rates())), strict=False):
        if not test.add(rate, loss):
            break
    return test


def trained(net: str, optimizer: str, rate: float) -> float:
    """Return the mean loss of the last epoch, over the seeds."""
    steps = math.ceil(IMAGES / BATCH)
    found = [
        float(
            np.mean(
                list(islice(losses(net, optimizer, seed, iter([rate] * steps * EPOCHS)), steps * (EPOCHS - 1), None))
            )
        )
        for seed in range(SEEDS)
    ]
    return float(np.nan_to_num(np.mean(found), nan=99.0))


def main() -> None:
    """Print a line per training, then what came out."""
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {rule: [] for rule in RULES}
    spoiled = dict.fromkeys(RULES, 0)
    for net in NETS:
        for optimizer in OPTIMIZERS:
            grid = [trained(net, optimizer, rate) for rate in GRID]
            best, at = min(grid), float(GRID[int(np.argmin(grid))])
            tests = [range_test(net, optimizer, 100 + seed) for seed in range(SEEDS)]
            line = f"{net:10} {optimizer:9} best {best:.3f} at {at:.3g}"
            for name, rule in RULES.items():
                rates = [rate for rate in map(rule, tests) if rate is not None]
                rate = float(np.exp(np.mean(np.log(rates))))
                loss = trained(net, optimizer, rate)
                ratios[name].append(rate / at)
                spoiled[name] += loss > SPOILED * best
                line += f" | {name} {loss:.3f} at {rate:.3g}"
            print(line, flush=True)
    for name, values in ratios.items():
        low, middle, high = min(values), float(np.median(values)), max(values)
        print(
            f"{name}: {low:.2g} to {high:.2g} times the best rate, median {middle:.2g};"
            f" above {SPOILED:g} times the best loss in {spoiled[name]} of {len(values)}"
        )


if __name__ == "__main__":
    main()
