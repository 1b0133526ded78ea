"""The demo's YOLO26n: trained from scratch on scikit-learn's handwritten digits, pasted on canvases."""

import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.core.errors import MissingExtra
from epochal.demo.digits import write_digits
from epochal.demo.offline import ultralytics_offline
from epochal.demo.plan import Plan

if TYPE_CHECKING:
    from epochal.core.callback import Callback
    from epochal.core.run import Run

TRAIN_IMAGES, VAL_IMAGES = 256, 48
RECIPE: Mapping[str, Any] = {
    "imgsz": 128, "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.003, "lrf": 0.1, "warmup_epochs": 1,
    "mosaic": 0.0, "fliplr": 0.0, "scale": 0.2, "seed": 0, "workers": 0, "device": "cpu", "plots": False,
    "verbose": False,
}  # fmt: skip
DATA = f"{TRAIN_IMAGES} images to train on and {VAL_IMAGES} to validate, 128 x 128 pixels, 2 to 5 digits on each"
DETECT = Plan(
    name="demo-detect",
    title="YOLO26n learns to find handwritten digits",
    data=DATA,
    epochs=24,
    watched="val/mAP50(B)",
    quality="mAP50",
    curves={
        "loss": {"train": "train/loss", "val": "val/loss"},
        "mAP": {"mAP50": "val/mAP50(B)", "mAP50-95": "val/mAP50-95(B)"},
    },
)
SEGMENT = Plan(
    name="demo-segment",
    title="YOLO26n-seg learns to find and cut out handwritten digits",
    data=DATA,
    epochs=24,
    watched="val/mAP50(M)",
    quality="mask mAP50",
    curves={
        "loss": {"train": "train/loss", "val": "val/loss"},
        "mAP50": {"masks": "val/mAP50(M)", "boxes": "val/mAP50(B)"},
    },
)


def train(
    plan: Plan,
    folder: Path,
    callbacks: "Sequence[Callback]",
    watch: "Callable[[Run], None]",
    *,
    images: tuple[int, int] = (TRAIN_IMAGES, VAL_IMAGES),
) -> None:
    """Train YOLO26n in ``folder``; ``watch`` is given the run before it begins; so many images train and validate."""
    home = folder.parent / "demo-data"
    data = write_digits(home / "digits", train=images[0], val=images[1])
    with quiet_ultralytics(home, folder / "ultralytics.log"):
        from ultralytics import YOLO

        from epochal.integrations.attach import attach

        name = "yolo26n-seg.yaml" if plan.name == SEGMENT.name else "yolo26n.yaml"
        model: Any = YOLO(name)
        run = attach(model, *callbacks)
        watch(run)

        @run.on("on_train_start")
        def hyper_parameters(run: "Run") -> None:
            run.log_params({"model": name, "epochs": plan.epochs, **RECIPE})

        place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        model.train(data=str(data), epochs=plan.epochs, **RECIPE, **place)


@contextmanager
def quiet_ultralytics(home: Path, log: Path) -> Generator[None, None, None]:
    """Keep Ultralytics off the network and, as there is one display already, its own output in a file."""
    if "ultralytics.utils" not in sys.modules:
        os.environ["YOLO_VERBOSE"] = "False"  # no progress bars; the log is switched on again below
        ultralytics_offline(home)
    try:
        from ultralytics import utils
    except ImportError as error:
        raise MissingExtra("ultralytics", "demo", "the demo's YOLO") from error
    log.parent.mkdir(parents=True, exist_ok=True)
    talker, level, handlers, verbose = utils.LOGGER, utils.LOGGER.level, utils.LOGGER.handlers[:], utils.VERBOSE
    into_file = logging.FileHandler(log, encoding="utf-8", delay=True)
    talker.handlers[:], utils.VERBOSE = [into_file], False
    talker.setLevel(logging.INFO)
    try:
        yield
    finally:
        into_file.close()
        talker.handlers[:], utils.VERBOSE = handlers, verbose
        talker.setLevel(level)
