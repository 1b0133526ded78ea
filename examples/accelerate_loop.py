"""A loop of Hugging Face Accelerate, with Epochal around it: it counts true steps, and goes on exactly after a kill.

Run it, kill it, and run it again with --resume: it ends with the weights it would have ended with.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from epochal import Callback, Checkpoint, EarlyStopping, Every, Loop, Run


class Group:
    """How many batches ``accelerator.accumulate`` has taken for the step that comes: Accelerate saves it nowhere."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def state_dict(self) -> dict[str, int]:
        """Return it."""
        return {"step": self.accelerator.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take it back."""
        self.accelerator.step = state["step"]


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the data for training and for validation."""
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True).sin()
    return DataLoader(TensorDataset(x[:80], y[:80]), 8, shuffle=True), DataLoader(TensorDataset(x[80:], y[80:]), 8)


def main(epochs: int = 4, *, callbacks: Sequence[Callback] = (), resume: bool = False) -> tuple[nn.Module, Run]:
    """Train, and return the model and its run."""
    torch.manual_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 5)
    train, held_out = loaders()
    net, optimizer, scheduler, train, held_out = accelerator.prepare(net, optimizer, scheduler, train, held_out)

    policies = [EarlyStopping("val/loss", patience=3), Checkpoint(Every(batches=3) | Every(epochs=1)), *callbacks]
    with Loop(
        model=net, optimizer=optimizer, scheduler=scheduler, callbacks=policies, state={"group": Group(accelerator)},
        name="accelerate", resume=resume,
    ) as run:  # fmt: skip
        for _ in run.epochs(epochs):
            net.train()
            for x, y in run.batches(train):
                with accelerator.accumulate(net):
                    loss = (net(x) - y).square().mean()
                    accelerator.backward(loss)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                run.log({"train/loss": loss})
            net.eval()
            with run.validation(), torch.no_grad():
                for x, y in run.batches(held_out):
                    run.log({"val/loss": (net(x) - y).square().mean()})
    return net, run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    _, run = main(resume=parser.parse_args().resume)
    print(f"{run.step} optimizer steps, validation loss {run.metrics['val/loss']:.4f}")
