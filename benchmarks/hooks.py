"""What looking inside a model costs, at every step: ours, one `.item()` per tensor, wandb.watch, detect_anomaly.

`python benchmarks/hooks.py` prints the table, `--write` puts it into docs/hooks.md. On a machine with CUDA it also
measures a step that keeps the GPU busy and a small one that is bound by launches.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import measure
import torch
from report import table, write
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from epochal import ActivationMonitor, Callback, GradientMonitor, Loop

PAGES = ("docs/hooks.md",)
LIMIT = 1.03
CALLS = {"ResNet-18": 200, "transformer": 140}


class Attention(nn.Module):
    """Causal self-attention as in a small GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))


def transformer(width: int = 384, depth: int = 6, words: int = 65) -> nn.Module:
    """A language model of the size that nanoGPT trains on Shakespeare's characters, without positions."""
    blocks = [Block(width, 6) for _ in range(depth)]
    return nn.Sequential(nn.Embedding(words, width), *blocks, nn.LayerNorm(width), nn.Linear(width, words))


def resnet() -> nn.Module:
    """ResNet-18 with ten classes."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


class Task(NamedTuple):
    """A model and one batch of it; ``loss(model)`` is what a step lowers."""

    name: str
    make: Callable[[], nn.Module]
    x: torch.Tensor
    y: torch.Tensor

    def loss(self, model: nn.Module) -> torch.Tensor:
        scores = model(self.x)
        return nn.functional.cross_entropy(scores.flatten(0, -2), self.y.flatten())


def tasks(device: str = "cpu", scale: int = 1) -> list[Task]:
    """The two trainings; ``scale`` multiplies the batch."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(32 * scale, 3, 64, 64, generator=draw).to(device)
    classes = torch.randint(0, 10, (32 * scale,), generator=draw).to(device)
    words = torch.randint(0, 65, (2 * scale, 256), generator=draw).to(device)
    return [
        Task("ResNet-18, 32 x 64 x 64", lambda: resnet().to(device), images, classes),
        Task("transformer, 6 x 384, 2 x 256 words", lambda: transformer().to(device), words, words.roll(-1, 1)),
    ]


class Item(Callback):
    """What is written first: `.norm().item()` on every gradient and on every layer's output."""

    def on_train_start(self, run: Any) -> None:
        self.norms: dict[str, float] = {}
        self.handles = [
            module.register_forward_hook(self.look(name))
            for name, module in run.model.named_modules()
            if not list(module.children())
        ]

    def look(self, name: str) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            self.norms[name] = output.norm().item()

        return hook

    def on_before_zero_grad(self, run: Any) -> None:
        for name, parameter in run.model.named_parameters():
            self.norms[name] = parameter.grad.norm().item()

    def teardown(self, run: Any) -> None:
        for handle in self.handles:
            handle.remove()


class WandbWatch(Callback):
    """wandb.watch(log_freq=1), offline: histograms of every gradient, which go out with the next wandb.log."""

    def on_train_start(self, run: Any) -> None:
        import wandb

        self.model = run.model
        self.run = wandb.init(mode="offline", dir=str(run.dir.parent), settings=wandb.Settings(silent=True))
        wandb.watch(run.model, log="gradients", log_freq=1)

    def on_train_batch_end(self, run: Any) -> None:
        self.run.log({"step": run.step})

    def teardown(self, run: Any) -> None:
        import wandb

        wandb.unwatch(self.model)
        self.run.finish()


WAYS: dict[str, Callable[[], list[Callback]]] = {
    "A/A control: nothing, beside itself": list,
    "**GradientMonitor and ActivationMonitor**": lambda: [GradientMonitor(), ActivationMonitor()],
    "`.norm().item()` per tensor": lambda: [Item()],
    "wandb.watch, gradients": lambda: [WandbWatch()],
    "torch.autograd.detect_anomaly": list,
}


QUOTED = tuple(WAYS)[:2]  # what a promise is about is measured more often


class Training:
    """One model in training, with something looking inside; ``cost`` is of some steps, the hooks in place."""

    def __init__(self, task: Task, way: str, folder: Path, clock: Callable[[], float]) -> None:
        torch.manual_seed(0)
        self.task, self.clock, self.model = task, clock, task.make()
        self.anomaly = torch.autograd.detect_anomaly if "anomaly" in way else nullcontext
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.loop = Loop(model=self.model, optimizer=self.optimizer, callbacks=WAYS[way](), dir=folder)
        self.run = self.loop.__enter__()
        self.epochs = self.run.epochs(1)
        next(self.epochs)
        self.batches = self.run.batches(iter(lambda: 0, 1))
        next(self.batches)

    def step(self) -> None:
        """Do what a training does for a batch."""
        with self.anomaly():
            self.optimizer.zero_grad()
            self.task.loss(self.model).backward()
            self.optimizer.step()
        next(self.batches)

    def cost(self, steps: int) -> float:
        """Return the seconds of a step."""
        start = self.clock()
        for _ in range(steps):
            self.step()
        return (self.clock() - start) / steps

    def close(self) -> None:
        """End the training."""
        self.batches.close()
        self.loop.__exit__(None, None, None)


class Count(TorchDispatchMode):
    """Counts what a training thread asks of torch: all calls, and reads of a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        self.reads += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)
        return function(*args, **(kwargs or {}))


def counted(training: Training) -> Counter[str]:
    """Return the calls and the reads of one step."""
    training.step()
    with Count() as count:
        training.step()
    return Counter(calls=count.calls, reads=count.reads)


class Row(NamedTuple):
    """One way of looking, on one model."""

    task: str
    way: str
    ratio: measure.Ratio
    calls: int
    reads: int


def rows(task: Task, folder: Path, pairs: int, clock: Callable[[], float], steps: int) -> Iterator[Row]:
    """Measure every way on one model, pair by pair with nothing."""
    bare = Training(task, "A/A control: nothing, beside itself", folder, clock)
    own = counted(bare)
    unit = statistics.median(bare.cost(steps) for _ in range(3))
    print(f"  {task.name}: a bare step {unit * 1e3:.1f} ms", file=sys.stderr)
    for way in WAYS:
        print(f"  {task.name}: {way}", file=sys.stderr)
        try:
            watched = Training(task, way, folder, clock)
        except ImportError as error:
            print(f"    left out: {error}", file=sys.stderr)
            continue
        more = counted(watched)
        watched.cost(2)
        often = pairs if way in QUOTED else max(pairs // 4, 15)
        found = measure.paired(lambda: bare.cost(steps), {way: partial(watched.cost, steps)}, pairs=often)
        watched.close()
        more.subtract(own)
        yield Row(f"{task.name}, {unit * 1e3:.0f} ms", way, found[way], more["calls"], more["reads"])
    bare.close()


def shown(ratio: measure.Ratio) -> str:
    """Return a ratio with its quartiles."""
    return f"{ratio.median:.3f} x ({ratio.low:.3f}-{ratio.high:.3f})"


def verdict(row: Row) -> str:
    """Say whether what we promise holds."""
    if not row.way.startswith("**"):
        return ""
    limit = CALLS[row.task.partition(",")[0]]
    return "yes" if row.ratio.median <= LIMIT and row.calls <= limit and row.reads <= 1 else "**no**"


def on_the_gpu(folder: Path, pairs: int) -> Iterator[Row]:
    """The same on CUDA, by the wall clock, with a batch that makes a step of 20 ms or more."""

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    for task in tasks("cuda", scale=64):
        yield from rows(task._replace(name=f"{task.name} on CUDA"), folder, pairs, clock, 5)


def where() -> str:
    """Return on what was measured."""
    return (
        f"Measured {date.today().isoformat()}: Python {platform.python_version()}, torch {torch.__version__}, "
        f"{platform.system()} {platform.machine()}, one thread, load {os.getloadavg()[0]:.1f}. CPU time of the "
        "process, background threads included; median (and quartiles) of paired ratios. Calls and scalar reads are "
        "those that the training thread dispatches in a step, beyond the bare step's."
    )


def main() -> int:
    """Measure, print, and return 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(description="Measure what looking inside a model costs.")
    parser.add_argument("--write", action="store_true", help="put the table into " + " and ".join(PAGES))
    parser.add_argument("--pairs", type=int, default=60, help="paired measurements, 15 or more for a figure to quote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks():
            found += rows(task, Path(folder), options.pairs, time.process_time, 1)
        if torch.cuda.is_available():
            found += on_the_gpu(Path(folder), options.pairs)
    lines: list[Sequence[Any]] = [
        (one.task, one.way, shown(one.ratio), one.calls, one.reads, verdict(one)) for one in found
    ]
    head = ["model, bare step", "looking inside at every step", "step", "calls", "scalar reads", f"<= {LIMIT} x, calls"]
    text = "\n\n".join([table(head, lines), where()])
    print(text)
    if options.write:
        write(text, PAGES, mark="hooks")
    return 1 if any("no" in verdict(one) for one in found) else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
