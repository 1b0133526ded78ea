"""What the tests of all commands need: the command itself, and a run to use it on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epochal.checkpointing.store import CheckpointStore


@pytest.fixture
def epochal():
    """Run the command in the current folder, without a terminal, 80 columns wide."""

    def call(*arguments: str, answer: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "epochal", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
            **({"stdin": subprocess.DEVNULL} if answer is None else {"input": answer}),
        )

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
