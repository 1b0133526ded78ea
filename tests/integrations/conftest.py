"""Small real trainings of Ultralytics models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def yolo(offline_ultralytics: Path) -> Callable[..., Any]:
    """Return a function that makes an untrained YOLO model."""
    from ultralytics import YOLO

    def make(task: str = "") -> Any:
        import torch

        torch.manual_seed(0)
        return YOLO(f"yolo26n{task}.yaml")

    return make


@pytest.fixture
def quick(tiny_digits: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that gives the arguments of a training of seconds: two batches an epoch, two epochs."""

    def arguments(**changes: Any) -> dict[str, Any]:
        small: dict[str, Any] = {
            "data": str(tiny_digits), "imgsz": 32, "batch": 8, "nbs": 8, "epochs": 2, "workers": 0, "device": "cpu",
            "plots": False, "verbose": False, "optimizer": "SGD", "lr0": 0.001, "warmup_epochs": 0,
            "project": str(tmp_path / "native"), "name": "t",
        }  # fmt: skip
        return {**small, **changes}

    return arguments
