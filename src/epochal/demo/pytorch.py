"""The demo's classifier in a plain PyTorch loop: handwritten digits of 8 x 8 pixels, some seconds."""

from typing import TYPE_CHECKING, Any

from epochal.core.errors import MissingExtra
from epochal.demo.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from epochal.core.callback import Callback
    from epochal.core.run import Run

EPOCHS = 40
PLAN = Plan(
    name="demo-pytorch",
    title="a small network learns to read handwritten digits in a plain PyTorch loop",
    data="1437 scans of digits to train on and 360 to validate, 8 x 8 pixels",
    epochs=EPOCHS,
    watched="val/accuracy",
    quality="accuracy",
    goal=0.9,
    min_delta=0.001,
    curves={
        "loss": {"train": "train/loss", "val": "val/loss"},
        "accuracy": {"val": "val/accuracy"},
    },
)


def train(plan: Plan, folder: "Path", callbacks: "Sequence[Callback]", watch: "Callable[[Run], None]") -> None:
    """Train in a loop of one's own; ``watch`` is given the run before it begins."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network gains nothing from more, and waits for them where others compute
    try:
        train_digits(plan, folder, callbacks, watch)
    finally:
        torch.set_num_threads(threads)


def train_digits(plan: Plan, folder: "Path", callbacks: "Sequence[Callback]", watch: "Callable[[Run], None]") -> None:
    """Train the network: the loop that anybody would write."""
    import torch
    from torch import nn

    from epochal.integrations.pytorch import Loop

    torch.manual_seed(0)
    train_loader, val_loader = loaders(batch=32)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 2 * 2, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    loop = Loop(
        model=net, optimizer=optimizer, callbacks=callbacks, fitness=plan.watched, dir=folder.parent, name=folder.name
    )
    watch(loop.run)
    with loop as run:
        run.log_params({"model": "small CNN", "batch": 32, "lr": 2e-3})
        for _ in run.epochs(plan.epochs):
            net.train()
            for x, y in run.batches(train_loader):
                loss = nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log({"train/loss": loss})
            with run.validation():
                run.log(evaluate(net, val_loader))


def loaders(batch: int) -> tuple[Any, Any]:
    """Return loaders of images (batch, 1, 8, 8) in [0, 1] and labels: 1,437 to train on, 360 to validate."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset, random_split

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo", "the digits data set") from error
    digits: Any = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    parts = random_split(data, [1437, 360], generator=torch.Generator().manual_seed(0))
    return DataLoader(parts[0], batch_size=batch, shuffle=True), DataLoader(parts[1], batch_size=360)


def evaluate(net: Any, loader: Any) -> dict[str, float]:
    """Return the mean loss and the share of digits read rightly."""
    import torch

    net.eval()
    loss, right, seen = 0.0, 0, 0
    with torch.inference_mode():
        for x, y in loader:
            scores = net(x)
            loss += torch.nn.functional.cross_entropy(scores, y, reduction="sum").item()
            right += int((scores.argmax(1) == y).sum())
            seen += len(y)
    return {"val/loss": loss / seen, "val/accuracy": right / seen}
