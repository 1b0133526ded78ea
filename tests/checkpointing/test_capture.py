"""Random state, saved and restored, draws the same numbers; state goes through wrappers."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from epochal.checkpointing.capture import random_state, restore, restore_random_state, state_of
from epochal.checkpointing.store import CheckpointStore


def draw():
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(1).item(),
    )


def test_numbers_after_a_restart_are_those_that_would_have_come(tmp_path):
    draw()  # gauss and randn keep a second number back: it is part of the state
    saved = CheckpointStore(tmp_path).save({"rng": random_state()}, epoch=0, step=0)
    expected = [draw() for _ in range(3)]
    restore_random_state(saved.load("rng"))
    assert [draw() for _ in range(3)] == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_numbers_on_cuda_come_back(tmp_path):
    torch.rand(1, device="cuda")
    saved = CheckpointStore(tmp_path).save({"rng": random_state()}, epoch=0, step=0)
    expected = torch.rand(5, device="cuda")
    restore_random_state(saved.load("rng"))
    assert torch.equal(torch.rand(5, device="cuda"), expected)


def test_devices_that_are_not_there_are_said(caplog):
    state = {**random_state(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 9}
    if torch.cuda.is_available():
        pytest.skip("for a machine without CUDA")
    restore_random_state(state)
    assert "9 CUDA devices was saved, 0 are here" in caplog.text


def test_a_wrapped_model_is_saved_under_its_own_names():
    model = nn.Linear(2, 2)
    assert list(state_of(torch.compile(model))) == ["weight", "bias"]
    restore(nn.DataParallel(model), {"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    assert model.bias.tolist() == [1.0, 1.0]
