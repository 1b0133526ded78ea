"""Checkpoints that an older Epochal wrote are read for good."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.store import CheckpointStore

OLD = Path(__file__).parents[1] / "data" / "format-1"  # written by the last Epochal that wrote format 1


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "checkpoints"))


def test_a_checkpoint_of_format_1_is_whole_and_says_what_it_said(old):
    saved = checkpoint(old)
    assert (saved.manifest.format, saved.manifest.name) == (1, "epoch-0003-step-000120")
    assert (saved.manifest.fitness, saved.manifest.metrics) == (0.5, {"val/loss": math.inf})
    assert saved.manifest.written == saved.manifest.size == 164 + 160 + 409
    model, run = saved.load("model"), saved.load("run")
    assert torch.equal(model["a.weight"], torch.arange(6.0).reshape(2, 3))
    assert model["a.weight"] is model["b.weight"]
    assert torch.equal(model["half"], torch.tensor([0.5, -2.0]).bfloat16())
    assert torch.equal(saved.load("optimizer")["state"][0]["exp_avg"], torch.full((2, 3), 0.25))
    assert math.isnan(run["best"])
    assert (run["order"], run["lr"]) == ((1, 2), {0: 0.1})


def test_a_run_that_began_with_format_1_goes_on_with_2(old):
    store = CheckpointStore(old)
    assert store.newest_resume_point().manifest.format == 1
    store.save({"run": {}}, epoch=4, step=160)
    assert [(one.manifest.format, one.manifest.serial) for one in CheckpointStore(old).checkpoints] == [(1, 1), (2, 2)]
