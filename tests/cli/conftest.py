"""What the tests of all commands need: the command itself, and a run to use it on."""

import os
import subprocess
from pathlib import Path

import pytest

from epochal.checkpointing.store import CheckpointStore
from tests import preloaded


@pytest.fixture
def epochal():
    """Run the command in the current folder, without a terminal, 80 columns wide."""

    def call(*arguments: str, answer: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        changed = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment}
        return preloaded.run(["-m", "epochal", *arguments], input=answer, timeout=120, env=changed)

    return call


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> Path:
    """A run `runs/mnist` with two checkpoints."""
    run = tmp_path / "runs" / "mnist"
    store = CheckpointStore(run / "checkpoints")
    for epoch, fitness in enumerate([0.5, 0.75]):
        store.save(
            {"run": {"big": "x" * 1000}},
            epoch=epoch,
            step=10 * (epoch + 1),
            reason="Best(fitness)",
            metrics={"val/loss": 0.25},
            fitness=fitness,
            pinned=True,
        )
    (run / "run.json").write_text("{}")
    return run
