"""Every task of YOLO gives a trace the grammar allows, with its own losses and metrics."""

import numpy as np
import pytest

from epochal import attach
from epochal.testing import RecordEvents, check_events

BOX = "0 0.5 0.5 0.4 0.4"
LABELS = {
    "pose": f"{BOX} 0.4 0.4 2 0.6 0.6 2",
    "obb": "0 0.3 0.3 0.7 0.35 0.65 0.7 0.25 0.65",
}
LOSSES = {
    "": {"box_loss", "cls_loss", "l1_loss"},
    "-seg": {"box_loss", "seg_loss", "cls_loss", "l1_loss", "sem_loss"},
    "-cls": set(),
    "-pose": {"box_loss", "pose_loss", "kobj_loss", "cls_loss", "l1_loss", "rle_loss"},
    "-obb": {"box_loss", "cls_loss", "l1_loss", "angle_loss"},
}
MEASURED = {
    "": {"val/mAP50", "metrics/mAP50(B)"},
    "-seg": {"val/mAP50(M)", "metrics/mAP50-95(B)"},
    "-cls": {"val/accuracy_top1", "metrics/accuracy_top5"},
    "-pose": {"val/mAP50(P)"},
    "-obb": {"val/mAP50-95"},
}


@pytest.fixture
def data(tiny_digits, tmp_path):
    """Return a function that gives a task's data set: noise with one object in the middle."""
    from PIL import Image

    def make(task):
        if task in ("", "-seg"):
            return str(tiny_digits)
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            for number in range(8):
                pixels = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
                folder = tmp_path / "set" / (f"{split}/{number % 2}" if task == "-cls" else f"images/{split}")
                folder.mkdir(parents=True, exist_ok=True)
                pixels.save(folder / f"{number}.png")
                if task != "-cls":
                    labels = tmp_path / "set" / "labels" / split
                    labels.mkdir(parents=True, exist_ok=True)
                    (labels / f"{number}.txt").write_text(LABELS[task[1:]] + "\n")
        if task == "-cls":
            return str(tmp_path / "set")
        shape = "kpt_shape: [2, 3]\n" if task == "-pose" else ""
        yaml = tmp_path / "set" / "set.yaml"
        yaml.write_text(f"path: {yaml.parent}\ntrain: images/train\nval: images/val\n{shape}names:\n  0: thing\n")
        return str(yaml)

    return make


@pytest.mark.parametrize("task", ["", "-seg", "-cls", "-pose", "-obb"])
def test_every_task_is_seen_whole(yolo, quick, data, task):
    model, record = yolo(task, whole=True), RecordEvents()
    run = attach(model, record)
    run.add_callback("on_train_batch_end", lambda run: run.metrics["train/loss"])
    model.train(**quick(epochs=1, data=data(task)))
    check_events(record.events)
    assert record.events.count("on_val_end") == 2
    row = run.history[0]
    assert {name for name in row if name.startswith("train/")} == {f"train/{loss}" for loss in LOSSES[task]} | {
        "train/loss"
    }
    assert {name for name in row if name.endswith("loss") and name.startswith("val/")} == {
        f"val/{loss}" for loss in LOSSES[task]
    } | {"val/loss"}
    for split in ("train", "val"):
        if LOSSES[task]:
            assert row[f"{split}/loss"] == pytest.approx(sum(row[f"{split}/{loss}"] for loss in LOSSES[task]), rel=1e-4)
    assert all(name in run.metrics for name in MEASURED[task])
    assert run.fitness == pytest.approx(model.trainer.fitness)
