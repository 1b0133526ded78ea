"""A plain PyTorch loop of one's own, with early stopping, the best checkpoint and a learning rate that falls."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from epochal import Best, Checkpoint, EarlyStopping, Loop, ReduceLROnPlateau


def evaluate(net: nn.Module, loader: DataLoader) -> dict[str, float]:
    """Return mean loss and accuracy over a loader."""
    loss, right, seen = 0.0, 0, 0
    with torch.inference_mode():
        for x, y in loader:
            scores = net(x)
            loss += nn.functional.cross_entropy(scores, y, reduction="sum").item()
            right += (scores.argmax(1) == y).sum().item()
            seen += len(y)
    return {"val/loss": loss / seen, "val/accuracy": right / seen}


def main(epochs: int = 100) -> None:
    """Train a small classifier on scikit-learn's handwritten digits."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    train, val = random_split(digits, [0.8, 0.2])
    train_loader, val_loader = DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=256)

    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    policies = [
        EarlyStopping("val/loss", patience=5),
        Checkpoint(when=Best("val/accuracy"), keep_last=1, keep_best=1),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=3),
    ]

    with Loop(model=net, optimizer=optimizer, callbacks=policies, fitness="val/accuracy") as run:
        for _ in run.epochs(epochs):
            for x, y in run.batches(train_loader):
                loss = nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log({"train/loss": loss})
            with run.validation():
                run.log(evaluate(net, val_loader))

    print(f"{run.end_reason} after epoch {run.epoch + 1}: {run.stop_reason or 'all epochs done'}")
    print(f"best accuracy {run.best_fitness:.3f}; files in {run.dir}")


if __name__ == "__main__":
    main()
