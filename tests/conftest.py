"""Fixtures that several rooms' tests share."""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COCO8 = {"images": 4, "size": 64}  # images per split; edge in pixels
# The files that take longest, the longest first: what is left for the end is short, and no core waits for the other.
LONGEST = (
    "contract/test_integrations.py",
    "integrations/test_ultralytics_traces.py",
    "integrations/test_ultralytics.py",
    "integrations/test_pytorch_resume.py",
    "integrations/test_ultralytics_resume.py",
    "faults/test_kill_yolo.py",
    "contract/test_same_decisions.py",
    "faults/test_kill_keras.py",
    "presets/test_presets.py",
    "demo/test_main.py",
    "callbacks/test_learning_rate_finder.py",
    "integrations/test_ultralytics_predictions.py",
    "integrations/test_ultralytics_trial.py",
    "cli/test_control.py",
    "faults/test_loggers_stored.py",
    "faults/test_loggers_servers.py",
    "dashboard/test_browser.py",
    "integrations/test_ultralytics_tasks.py",
    "faults/test_kill_during_save.py",
    "faults/test_kill_loop.py",
    "integrations/test_ultralytics_snapshot.py",
    "runs/test_process.py",
    "runs/test_folder.py",
    "loggers/test_mlflow.py",
    "callbacks/test_where_is_nan.py",
    "integrations/test_lightning_resume.py",
    "integrations/test_transformers_resume.py",
    "distributed/test_agree.py",
    "cli/test_resume.py",
    "cli/test_export.py",
    "integrations/test_preemption.py",
    "examples/test_tune.py",
    "faults/test_power_cut_during_save.py",
    "callbacks/test_layers.py",
    "faults/test_store_kill.py",
    "integrations/test_ultralytics_prune.py",
    "callbacks/test_loss_spike.py",
    "faults/test_loggers_disk.py",
    "callbacks/test_write_predictions.py",
    "demo/test_offline.py",
    "distributed/test_commands.py",
    "contract/test_loggers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest come first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.as_posix().rpartition("/tests/")[2], len(places)))


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Trainers ask for a collection of garbage in each training: it need not look through all that was imported."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leave what is collected at the end of a process to it."""
    gc.unfreeze()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A folder for runs that does not exist yet."""
    return tmp_path / "runs"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(autouse=True)
def _no_gradients_left_off(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that switches PyTorch's global modes must switch them back; tell which one did not."""
    import sys

    yield
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "is_grad_enabled") and not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        pytest.fail(f"{request.node.nodeid} left gradients switched off")


@pytest.fixture(scope="session")
def offline_ultralytics() -> Path:
    """Ultralytics without network and integrations, on two threads; the folder is its ``datasets_dir``."""
    cfg = pytest.importorskip("ultralytics.cfg")
    import torch

    # Under pytest it would write its runs into its own package; a user's go to `runs` in the current folder.
    cfg.TESTS_RUNNING = False
    torch.set_num_threads(2)
    datasets = Path(os.environ["YOLO_CONFIG_DIR"]) / "datasets"
    datasets.mkdir(exist_ok=True)
    return datasets


@pytest.fixture(scope="session")
def tiny_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of a digits data set: 16 training and 8 validation images of 64 pixels, for detect and segment."""
    pytest.importorskip("sklearn")
    pytest.importorskip("cv2")
    from epochal.demo.digits import write_digits

    return write_digits(tmp_path_factory.mktemp("digits") / "tiny", train=16, val=8, size=64)


@pytest.fixture(scope="session")
def coco8(offline_ultralytics: Path) -> Path:
    """A folder of coco8's shape, where Ultralytics looks for it: `data="coco8.yaml"` needs no download."""
    import numpy as np
    from PIL import Image

    root = offline_ultralytics / "coco8"
    rng = np.random.default_rng(8)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(COCO8["images"]):
            pixels = rng.integers(0, 256, (COCO8["size"], COCO8["size"], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{number:012d}.jpg")
            row = f"{rng.integers(80)} 0.5 0.5 {rng.uniform(0.2, 0.8):.4f} {rng.uniform(0.2, 0.8):.4f}\n"
            (root / "labels" / split / f"{number:012d}.txt").write_text(row)
    return root


@pytest.fixture(scope="session")
def yolo26n_weights(offline_ultralytics: Path) -> Path:
    """Untrained weights of YOLO26n, made from its YAML file, as `yolo26n.pt`."""
    from ultralytics import YOLO

    target = offline_ultralytics.parent / "weights" / "yolo26n.pt"
    target.parent.mkdir(exist_ok=True)
    YOLO("yolo26n.yaml").save(target)
    return target


@pytest.fixture
def yolo26n_here(yolo26n_weights: Path) -> Path:
    """`yolo26n.pt` in the current folder, where a user's script looks for it."""
    return Path(shutil.copyfile(yolo26n_weights, Path.cwd() / "yolo26n.pt"))


@pytest.fixture
def yolo(offline_ultralytics: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that makes an untrained YOLO model: of few layers where the task has one, or ``whole``."""
    from ultralytics import YOLO

    from tests.trainers.yolo import HEADS, few_layers

    def make(task: str = "", *, whole: bool = False) -> Any:
        import torch

        torch.manual_seed(0)
        if whole or task not in HEADS:
            return YOLO(f"yolo26n{task}.yaml")
        return YOLO(str(few_layers(tmp_path_factory.getbasetemp(), task)))

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
