"""Plain loops of all kinds, as users write them, to be interrupted: what they end with must not depend on it.

Each is a class: ``__init__`` makes everything anew, as a script does, ``body`` is the user's loop.
"""

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, WeightedRandomSampler

from epochal import (
    EMA,
    Callback,
    Checkpoint,
    EarlyStopping,
    Every,
    GradientAccumulation,
    GradientClip,
    LearningRate,
    Loop,
    ReduceLROnPlateau,
    WeightAverage,
)
from epochal.data.resumable_loader import ResumableLoader

SAMPLES, BATCH, EPOCHS = 14, 3, 3  # 5 batches an epoch, the last of 2


class Numbers(Dataset):
    """Samples that know their place; ``noise``: each is augmented with numbers from all global generators."""

    def __init__(self, *, noise: bool = False) -> None:
        self.noise = noise
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(SAMPLES, 4, generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        extra = random.random() + float(np.random.rand()) + torch.rand(1).item() if self.noise else 0.0
        return self.x[index] + extra


class OwnNoise(Numbers):
    """A data set with a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(5)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index] + float(self.rng.random())


class Stream(IterableDataset):
    """A data set without indices."""

    def __iter__(self) -> Any:
        return iter(Numbers().x)


class Forgetful(Sampler):
    """A sampler that draws from the global generator for each sample and keeps nothing."""

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Any:
        return (random.randrange(SAMPLES) for _ in range(SAMPLES))


class Seen(NamedTuple):
    """One event as a callback saw it."""

    event: str
    epoch: int
    batch: int
    step: int
    loss: float | None


class Trace(Callback):
    """Writes down every event of an epoch with its numbers, and nothing in its state."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def note(self, event: str, run: Any) -> None:
        loss = run.metrics.get("train/loss")
        self.seen.append(Seen(event, run.epoch, run.batch, run.step, loss))


def noting(event: str) -> Any:
    return lambda self, run: self.note(event, run)


for _event in ("on_train_batch_start", "optimizer_step", "on_before_zero_grad", "on_train_batch_end",
               "on_train_epoch_end", "on_val_start", "on_val_end", "on_fit_epoch_end"):  # fmt: skip
    setattr(Trace, _event, noting(_event))


class Plain:
    """Shuffle, dropout, AdamW, a cosine per batch, a validation after each epoch."""

    seed = 0
    noise = False

    def __init__(self) -> None:
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.02)
        self.scheduler: Any = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 15)
        self.data = Numbers(noise=self.noise)
        self.loader = self.make_loader()

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, shuffle=True)

    def callbacks(self) -> list[Callback]:
        return []

    def given(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "scheduler": self.scheduler}

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net(x) - x.sum(1, keepdim=True)).square().mean()

    def learn(self, run: Any, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        run.log({"train/loss": loss, "other": loss.detach() * 2})

    def validate(self, run: Any) -> None:
        with run.validation(), torch.no_grad():
            self.net.eval()
            run.log({"val/loss": self.loss(Numbers().x)})
            self.net.train()

    def epoch(self, run: Any) -> None:
        for x in run.batches(self.loader):
            self.learn(run, x)
        self.validate(run)

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}


class Accumulating(Plain):
    """Four batches make a step, over the ends of epochs too."""

    def learn(self, run: Any, x: torch.Tensor) -> None:
        loss = self.loss(x) / 4
        loss.backward()
        if (run.epoch * len(self.loader) + run.batch + 1) % 4 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
        run.log({"train/loss": loss})


class StepFirst(Plain):
    """The gradients of a batch are used in the next."""

    def learn(self, run: Any, x: torch.Tensor) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.loss(x)
        loss.backward()
        self.scheduler.step()
        run.log({"train/loss": loss})


class Accumulation(Plain):
    """The callback that accumulates, and one that clips."""

    def callbacks(self) -> list[Callback]:
        return [GradientAccumulation({0: 2, 1: 3}), GradientClip(1.0)]


class Bfloat16(Plain):
    """Mixed precision on the CPU."""

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().loss(x)


class Sparse(Plain):
    """Sparse gradients that are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(5, 4, sparse=True))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net((x[:, 0].abs() * 3).long() % 5) - x).square().mean()

    learn = Accumulating.learn


class OwnGenerator(Plain):
    """A loader with a generator of its own."""

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))


class GeneratorPerEpoch(Plain):
    """A loader and its generator made anew for each epoch."""

    def epoch(self, run: Any) -> None:
        generator = torch.Generator().manual_seed(run.epoch)
        self.loader = DataLoader(self.data, batch_size=BATCH, shuffle=True, generator=generator)
        super().epoch(run)


class Weighted(Plain):
    """Samples drawn by weight."""

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, sampler=WeightedRandomSampler(range(1, SAMPLES + 1), SAMPLES))


class Replaced(Plain):
    """Samples drawn with replacement, from a generator of the sampler's own."""

    def make_loader(self) -> Any:
        sampler = RandomSampler(self.data, replacement=True, generator=torch.Generator().manual_seed(9))
        return DataLoader(self.data, batch_size=BATCH, sampler=sampler)


class Forgetting(Plain):
    """A sampler that draws for each sample."""

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, sampler=Forgetful())


class Noisy(Plain):
    """Augmentation in the process of the training."""

    noise = True


class NoisyWorkers(Noisy):
    """Augmentation in workers, which are made anew for each epoch."""

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, shuffle=True, num_workers=2)


class PersistentWorkers(Plain):
    """Workers that live on, and a data set that draws nothing."""

    def make_loader(self) -> Any:
        return DataLoader(self.data, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)


class DataWithGenerator(Plain):
    """A data set with a generator of its own."""

    def make_loader(self) -> Any:
        self.data = OwnNoise()
        return super().make_loader()


class Streaming(Plain):
    """A data set that is only iterated."""

    def make_loader(self) -> Any:
        return DataLoader(Stream(), batch_size=BATCH)


class Own(Noisy):
    """Our loader."""

    def make_loader(self) -> Any:
        return ResumableLoader(self.data, batch_size=BATCH, seed=4)


class OwnWorkers(Noisy):
    """Our loader with workers that live on."""

    def make_loader(self) -> Any:
        return ResumableLoader(self.data, batch_size=BATCH, seed=4, num_workers=2, persistent_workers=True)


class Stateful(Plain):
    """torchdata's loader."""

    workers = 0

    def make_loader(self) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(self.data, batch_size=BATCH, shuffle=True, num_workers=self.workers)


class StatefulWorkers(Stateful):
    """torchdata's loader with workers."""

    workers = 2


class List(Plain):
    """A list of batches."""

    def make_loader(self) -> Any:
        return list(self.data.x.split(BATCH))


class TwoLoaders(Plain):
    """Two loaders in an epoch, with random numbers drawn before, between and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.second = DataLoader(self.data, batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(6))

    def epoch(self, run: Any) -> None:
        shift = torch.rand(1)
        for x in run.batches(self.loader):
            self.learn(run, x + shift)
        shift = torch.rand(1)
        for x in run.batches(self.second):
            self.learn(run, x + shift)
        self.validate(run)
        torch.rand(2)


class Gan(Plain):
    """Two optimizers, the second of which leaves gradients in the first's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.net = nn.ModuleDict({"judge": self.net, "maker": self.other})
        self.second = torch.optim.Adam(self.other.parameters(), lr=0.01)

    def given(self) -> dict[str, Any]:
        return {"optimizer": [self.optimizer, self.second], "scheduler": self.scheduler}

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.net["judge"](x) - x.sum(1, keepdim=True)).square().mean()

    def learn(self, run: Any, x: torch.Tensor) -> None:
        super().learn(run, self.other(torch.randn_like(x)).detach())
        if run.batch % 2:
            self.second.zero_grad()
            self.loss(self.other(x)).neg().backward()
            self.second.step()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "second": self.second.state_dict()}


class ValidationInside(Plain):
    """A validation in the middle of an epoch, with a loader that draws, and more work after it in the same body."""

    def __init__(self) -> None:
        super().__init__()
        self.held = DataLoader(
            Numbers(noise=True), batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(8)
        )

    def learn(self, run: Any, x: torch.Tensor) -> None:
        super().learn(run, x)
        if run.batch % 2:
            with run.validation(), torch.no_grad():
                for y in run.batches(self.held):
                    run.log({"val/loss": self.loss(y)})
            with torch.no_grad():
                self.net[0].bias += torch.randn(8) * 0.01

    def callbacks(self) -> list[Callback]:
        return [EarlyStopping("val/loss", patience=50), ReduceLROnPlateau("val/loss", patience=1, factor=0.7)]


class Policies(Plain):
    """Averages, schedules and conditions with a state."""

    def callbacks(self) -> list[Callback]:
        return [
            LearningRate(lambda step: 0.03 / (1 + step), every="step"),
            EMA(0.9),
            WeightAverage(start=1),
            Checkpoint(Every(steps=4), name="steps"),
        ]


class Breaking(Plain):
    """A loop that breaks off, by the number of the batch."""

    def epoch(self, run: Any) -> None:
        for x in run.batches(self.loader):
            self.learn(run, x)
            if run.batch == 3:
                break
        self.validate(run)


class WithoutOptimizer(Plain):
    """Steps that are no optimizer's."""

    def given(self) -> dict[str, Any]:
        return {}

    def learn(self, run: Any, x: torch.Tensor) -> None:
        with torch.no_grad():
            self.net[0].bias += x.mean() + torch.rand(1)
        run.log({"train/loss": self.net[0].bias.sum()})


class Everything(Accumulating):
    """Shuffle, augmentation, dropout, AdamW, a cosine, accumulation and bfloat16 together."""

    noise = True

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().loss(x)


class EverythingWorkers(Everything):
    """The same with workers."""

    make_loader = NoisyWorkers.make_loader


class EverythingOwn(Everything):
    """The same with our loader and workers that live on."""

    make_loader = OwnWorkers.make_loader


LOOPS: dict[str, type[Plain]] = {
    kind.__name__: kind
    for kind in (
        Plain, Accumulating, StepFirst, Accumulation, Bfloat16, Sparse, OwnGenerator, GeneratorPerEpoch, Weighted,
        Replaced, Forgetting, Noisy, NoisyWorkers, PersistentWorkers, DataWithGenerator, Streaming, Own, OwnWorkers,
        Stateful, StatefulWorkers, List, TwoLoaders, Gan, ValidationInside, Policies, Breaking, WithoutOptimizer,
        Everything, EverythingWorkers, EverythingOwn,
    )
}  # fmt: skip


class Trained(NamedTuple):
    """A training that is over, and what it saw."""

    script: Plain
    run: Any
    trace: list[Seen]


def train(
    kind: str,
    folder: Path,
    *,
    seed: int = 0,
    resume: Any = False,
    callbacks: list[Callback] | None = None,
    epochs: int = EPOCHS,
) -> Trained:
    """Train one loop to its end; ``seed`` is what the process begins with."""
    torch.manual_seed(seed)
    script = type(kind, (LOOPS[kind],), {"seed": seed})()
    trace = Trace()
    listed = [*script.callbacks(), *(callbacks or []), trace]
    loop = Loop(model=script.net, **script.given(), callbacks=listed, dir=folder, name="run", resume=resume)
    with loop as run:
        for _ in run.epochs(epochs):
            script.epoch(run)
    return Trained(script, run, trace.seen)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return where two state trees differ, to the bit."""
    if isinstance(one, dict):
        if set(one) != set(other):
            return [f"{path}: {sorted(map(str, set(one) ^ set(other)))}"]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)}"]
        return [
            found for n, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{path}.{n}")
        ]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other or (one != one and other != other)
    return [] if same else [path]
