"""What YOLO predicted and what is true, in our terms, is what Ultralytics and the label files say."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from epochal import PredictionPlots, WritePredictions, attach
from epochal.callbacks.predictions_file import decode_mask, read_predictions
from epochal.core.callback import Callback

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
HEIGHT, WIDTH = 48, 96  # not square: the model sees them with borders


@pytest.fixture
def wide(tmp_path):
    """A data set of wide images with polygons of two classes."""
    rng = np.random.default_rng(0)
    root = tmp_path / "wide"
    for split, count in (("train", 8), ("val", 5)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(
                str(root / "images" / split / f"{number}.png"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            )
            rows = []
            for label, (x, y) in enumerate(((rng.uniform(0.05, 0.2), 0.1), (rng.uniform(0.55, 0.65), 0.3))):
                corners = [(x, y), (x + 0.3, y), (x + 0.25, y + 0.6), (x, y + 0.55)]
                rows.append(f"{label} " + " ".join(f"{value:.5f}" for corner in corners for value in corner))
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(rows) + "\n")
    yaml = root / "wide.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n  0: left\n  1: right\n")
    return yaml


def labels(source):
    """Return classes and polygons, in pixels, of the label file of an image."""
    text = source.replace("images", "labels").replace(".png", ".txt")
    rows = [line.split() for line in Path(text).read_text().splitlines()]
    return [(int(row[0]), np.array(row[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)) for row in rows]


class Native(Callback):
    """Asks Ultralytics' own validator for its predictions in pixels of the images' files."""

    def on_val_start(self, run):
        self.found = {}

    def on_val_batch_end(self, run):
        validator, shown = run.trainer.validator, run.engine.predicted.__self__
        for index, prediction in enumerate(shown.predicted):
            prepared = validator._prepare_batch(index, shown.batch)
            kept = {name: value[prediction["conf"] >= 0.01].clone() for name, value in prediction.items()}
            self.found[prepared["im_file"]] = validator.scale_preds(kept, prepared)


@pytest.mark.parametrize("task", ["", "-seg"])
def test_boxes_masks_and_truth_are_written_in_pixels_of_the_files(yolo, quick, wide, task):
    native, write = Native(), WritePredictions(min_score=0.01)
    model = yolo(task)
    run = attach(model, write, native)
    kept = {}
    run.add_callback("on_fit_epoch_end", lambda run: kept.update(native.found))
    model.train(**quick(data=str(wide), imgsz=64, epochs=2, optimizer="AdamW", lr0=0.01))
    lines = list(read_predictions(run.dir / "write_predictions" / "epoch-0001.jsonl"))
    assert len(lines) == 5
    assert run.past[-1].notes == ()
    names = json.loads((run.dir / "write_predictions" / "classes.json").read_text())
    assert names == {"0": "left", "1": "right"}
    for line in lines:
        theirs = kept[line["source"]]
        assert line["classes"] == theirs["cls"].long().tolist()
        assert line["scores"] == pytest.approx(theirs["conf"].tolist(), abs=1e-5)
        assert np.array(line["boxes"]).reshape(-1, 4) == pytest.approx(theirs["bboxes"].numpy(), abs=0.01)
        assert (line["height"], line["width"]) == (HEIGHT, WIDTH)
        check_truth(line["truth"], labels(line["source"]), masks=task == "-seg")
        assert ("masks" in line) == (task == "-seg")
        if task:
            assert len(line["masks"]) == len(line["boxes"])


def check_truth(truth, expected, *, masks):
    """Compare with the label file: the boxes around its polygons, and the polygons filled."""
    assert Counter(truth["classes"]) == Counter(label for label, _ in expected)
    for label, polygon in expected:
        place = truth["classes"].index(label)
        box = [*polygon.min(axis=0), *polygon.max(axis=0)]
        assert truth["boxes"][place] == pytest.approx(box, abs=0.6)
        if masks:
            coarse = decode_mask(truth["masks"][place]).astype(np.uint8)
            mine = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).astype(bool)
            filled = cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [polygon.round().astype(np.int32)], 1).astype(
                bool
            )
            assert (mine & filled).sum() / (mine | filled).sum() > 0.6  # the mask has a quarter of what the model sees


@pytest.mark.parametrize("task", ["", pytest.param("-seg", marks=pytest.mark.slow)])
def test_a_yolo_training_is_the_same_with_them(yolo, quick, task):
    weights, runs = [], []
    for callbacks in ([], [PredictionPlots(min_score=0.0, images=5), WritePredictions()]):
        model = yolo(task)
        runs.append(attach(model, *callbacks))
        model.train(**quick(optimizer="AdamW", mosaic=1.0, close_mosaic=0))
        weights.append([*model.trainer.model.state_dict().values(), torch.rand(2)])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*weights, strict=True))
    run = runs[-1]
    assert run.past[-1].failures == {}
    assert sorted(path.name for path in (run.dir / "prediction_plots").iterdir()) == [
        "predictions-epoch-0000.png", "predictions-epoch-0001.png"
    ]  # fmt: skip


def test_a_classification_s_matrix_is_ultralytics_own(yolo, quick, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 11)):
        for number in range(count):
            folder = tmp_path / "set" / split / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    plots, write = PredictionPlots(worst=3), WritePredictions()
    matrices = []

    class Matrices(Callback):
        def on_val_end(self, run):
            if run.engine.in_epoch:
                theirs = run.trainer.validator.confusion_matrix.matrix  # rows: predicted, columns: true
                matrices.append((plots._shown.counts.copy(), theirs.T.astype(int)))

    model = yolo("-cls")
    run = attach(model, plots, write, Matrices())
    model.train(**quick(data=str(tmp_path / "set"), epochs=2))
    for mine, theirs in matrices:
        assert (mine == theirs[: len(mine), : len(mine)]).all()
        assert mine.sum() == 11
    lines = list(read_predictions(run.dir / "write_predictions" / "epoch-0001.jsonl"))
    assert Counter((line["target"], line["predicted"]) for line in lines) == Counter(
        {(row, column): int(count) for (row, column), count in np.ndenumerate(matrices[-1][1]) if count}
    )
    assert len(list((run.dir / "prediction_plots").glob("confusion_matrix-*.png"))) == 2
    assert run.past[-1].failures == {}


def test_a_task_without_such_predictions_is_said(yolo, quick, tmp_path, caplog):
    root = tmp_path / "set"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), np.zeros((48, 48, 3), np.uint8))
            (root / "labels" / split / f"{number}.txt").write_text("0 0.3 0.3 0.7 0.35 0.65 0.7 0.25 0.65\n")
    (root / "set.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n  0: thing\n")
    model = yolo("-obb")
    run = attach(model, PredictionPlots())
    model.train(**quick(data=str(root / "set.yaml"), epochs=1))
    assert "showed neither boxes nor classes" in caplog.text
    assert run.past[-1].failures == {}


def test_the_store_has_the_images_with_the_true_boxes_and_masks(yolo, quick, wide):
    import epochal.runs

    model = yolo("-seg")
    run = attach(model, PredictionPlots(min_score=0.01, images=3))
    model.train(**quick(data=str(wide), imgsz=64, epochs=1))
    stored = epochal.runs.open(run.dir)[0]
    shown = [one for one in stored.media() if one["name"].startswith("predictions/")]
    assert [one["name"] for one in shown] == ["predictions/0", "predictions/1", "predictions/2"]
    for one in shown:
        truth = [box for box in one["about"]["boxes"] if box["true"]]
        assert sorted(box["label"] for box in truth) == ["left", "right"]
        for box in truth:
            height, width = box["mask"]["size"]
            assert sum(box["mask"]["counts"]) == height * width
            flat = np.repeat(np.arange(len(box["mask"]["counts"])) % 2, box["mask"]["counts"]).reshape(height, width)
            rows, columns = np.nonzero(flat)
            scale = one["about"]["width"] / width, one["about"]["height"] / height
            found = [
                columns.min() * scale[0],
                rows.min() * scale[1],
                (columns.max() + 1) * scale[0],
                (rows.max() + 1) * scale[1],
            ]
            assert found == pytest.approx(box["box"], abs=5.0)
