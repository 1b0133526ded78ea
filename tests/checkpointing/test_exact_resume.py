"""A training that goes on from a checkpoint ends with the weights, bit for bit, of one that was never interrupted."""

import pytest
import torch
from torch import nn

from epochal.checkpointing.capture import random_state, restore, restore_random_state, state_of
from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.store import CheckpointStore


class Training:
    def __init__(self, kind):
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        options = {"momentum": 0.9} if kind == "SGD" else {}
        self.optimizer = getattr(torch.optim, kind)(self.net.parameters(), lr=0.05, **options)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)

    def steps(self, count):
        for _ in range(count):
            self.optimizer.zero_grad()
            self.net(torch.randn(5, 6)).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()

    def parts(self):
        things = {"model": self.net, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return {"rng": random_state(), **{name: state_of(thing) for name, thing in things.items()}}


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "RMSprop"])
def test_weights_are_those_of_the_uninterrupted_training(kind, tmp_path):
    torch.manual_seed(1)
    whole = Training(kind)
    whole.steps(7)
    CheckpointStore(tmp_path).save(whole.parts(), epoch=0, step=7)
    whole.steps(9)

    torch.manual_seed(2)
    again = Training(kind)
    again.steps(1)
    saved = checkpoint(tmp_path, "last")
    saved.load_into(again.net)
    restore(again.optimizer, saved.load("optimizer"))
    restore(again.scheduler, saved.load("scheduler"))
    restore_random_state(saved.load("rng"))
    again.steps(9)
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name]), name
