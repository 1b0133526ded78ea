"""Differences between optimizers are told in words."""

import pytest
import torch
from torch import nn

from epochal.checkpointing.difference import describe_difference


def state(make, sizes=(2,)):
    groups = [{"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)]} for size in sizes]
    optimizer = make(groups)
    return {**optimizer.state_dict(), "class": type(optimizer).__name__}


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


def adam(groups):
    return torch.optim.Adam(groups, lr=0.1)


@pytest.mark.parametrize(
    ("saved", "current", "said"),
    [
        (state(sgd), state(sgd), None),
        (state(sgd), state(adam), "optimizer: saved SGD, current Adam"),
        (state(sgd, (1, 2)), state(sgd), "parameter groups: saved 2, current 1"),
        (state(sgd, (1, 2)), state(sgd, (1, 3)), "parameter group 1: saved 2 parameters, current 3"),
    ],
)
def test_optimizers(saved, current, said):
    assert describe_difference(saved, current) == said


def test_the_options_tell_another_optimizer_even_without_its_name():
    saved, current = state(sgd), state(adam)
    del saved["class"]
    assert "another kind of optimizer" in describe_difference(saved, current)


def test_a_scheduler_makes_no_difference():
    optimizer = sgd([nn.Parameter(torch.zeros(1))])
    plain = optimizer.state_dict()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert describe_difference(optimizer.state_dict(), plain) is None
    assert describe_difference(plain, optimizer.state_dict()) is None


def test_a_lazy_parameter_fits_everything():
    assert describe_difference(nn.Linear(2, 2).state_dict(), nn.LazyLinear(2).state_dict()) is None
