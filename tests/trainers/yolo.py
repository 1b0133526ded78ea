"""A tiny YOLO training: four batches of digits an epoch, a schedule of learning rates."""

from pathlib import Path

from epochal import attach
from epochal.demo.digits import write_digits

FEW = """
nc: 10
end2end: True
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C3k2, [16, False, 0.25]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[3], 1, {head}]
"""
HEADS = {"": "Detect, [nc]", "-seg": "Segment26, [nc, 8, 16]"}


def few_layers(folder: Path, task: str = "") -> Path:
    """Return the YAML file of YOLO26's head on few layers: a training of YOLO26n takes three times as long."""
    file = folder / f"few{task}.yaml"
    file.write_text(FEW.replace("{head}", HEADS[task]))
    return file


def make(directory: Path):
    """Return what trains it, its runs below a directory; Ultralytics validates at an epoch's end only."""
    from ultralytics import YOLO

    data = write_digits(directory / "digits", train=16, val=16, size=64)
    small = few_layers(directory)

    def train(callbacks, epochs, *, error=None, accumulation=1, resume=False):
        model = YOLO(str(small))
        run = attach(model, *callbacks, resume=resume)
        started = []

        def spoil(trainer):
            started.append(trainer)
            if error is not None and len(started) == 2:
                trainer.model.register_forward_pre_hook(lambda *_: raise_(error))

        model.add_callback("on_train_batch_start", spoil)
        model.train(
            data=str(data), epochs=epochs, imgsz=32, batch=4, nbs=4 * accumulation, workers=0, device="cpu", plots=False,
            verbose=False, project=str(directory), name="yolo", seed=0, optimizer="SGD", warmup_epochs=0, amp=False,
        )  # fmt: skip
        return run

    def raise_(error):
        raise error

    return train
