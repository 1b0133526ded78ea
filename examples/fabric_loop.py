"""A loop of one's own on Lightning Fabric: what Fabric has set up is given to Loop as it is."""

import torch
from lightning.fabric import Fabric
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from epochal import Best, Checkpoint, EarlyStopping, Loop


def main(epochs: int = 30, *, resume: bool = False) -> Loop:
    """Train a small classifier on scikit-learn's handwritten digits, in bfloat16 where Fabric says so."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    train, val = random_split(digits, [0.8, 0.2], generator=torch.Generator().manual_seed(0))
    train_loader, val_loader = fabric.setup_dataloaders(
        DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=256)
    )

    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
    model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=3e-3))
    policies = [
        EarlyStopping("val/loss", patience=5),
        Checkpoint(when=Best("val/accuracy"), keep_last=1, keep_best=1),
    ]

    loop = Loop(
        model=model, optimizer=optimizer, callbacks=policies, fitness="val/accuracy", name="fabric", resume=resume
    )
    with loop as run:
        for _ in run.epochs(epochs):
            model.train()
            for x, y in run.batches(train_loader):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                run.log({"train/loss": loss})
            model.eval()
            with run.validation(), torch.no_grad():
                scores = [(model(x), y) for x, y in val_loader]
                predicted, wanted = (torch.cat(one) for one in zip(*scores, strict=True))
                run.log({"val/loss": nn.functional.cross_entropy(predicted, wanted)})
                run.log({"val/accuracy": (predicted.argmax(1) == wanted).float().mean()})

    fabric.print(
        f"{run.end_reason} after epoch {run.epoch + 1}, {run.step} steps; best accuracy {run.best_fitness:.3f}"
    )
    return loop


if __name__ == "__main__":
    main()
