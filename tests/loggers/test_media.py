"""Images with boxes, texts and histograms: from the store to each destination that takes them, as its own reader sees it."""

import json
from io import BytesIO
from pathlib import Path

import numpy
import pytest

from epochal import Callback, TensorBoardLogger
from epochal.loggers.drawing import COLOURS, colour_of, with_boxes
from epochal.loggers.pictures import Histogram, medium_of, picture_of
from epochal.runs.png import as_png
from epochal.testing import simulate

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
from epochal import Loop  # noqa: E402

GRAY = numpy.full((400, 600), 128, dtype=numpy.uint8)
VALUES = torch.tensor([1.0, 1.0, 2.0, 5.0, float("nan")])
BOXES = [
    {"box": (50, 60, 250, 200), "label": "cat", "score": 0.75},
    {"box": (300, 100, 500, 300), "label": "dog", "true": True},
]


class Shows(Callback):
    def __init__(self, mask=None):
        self.mask = mask

    def on_fit_epoch_end(self, run):
        boxes = [{**BOXES[0], "mask": self.mask}, BOXES[1]] if self.mask is not None else BOXES
        run.log_image("predictions/0", GRAY, boxes=boxes)
        run.log_text("samples", "a <b>cat</b>")
        run.log_histogram("weights", VALUES, bins=4)


def train(*callbacks):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, name="a") as run:
        for _ in run.epochs(2):
            for _ in run.batches(range(3)):
                run.log({"train/loss": 1.0})
    assert run.past[-1].notes == ()
    return run


def opened(data):
    return numpy.asarray(Image.open(BytesIO(data)).convert("RGB"))


def rgb(colour):
    return tuple(int(colour[index : index + 2], 16) for index in (1, 3, 5))


def test_tensorboard_shows_texts_histograms_and_boxes():
    mask = numpy.zeros((20, 30), dtype=bool)  # a coarser grid
    mask[5:8, 5:10] = True
    train(TensorBoardLogger(), Shows(mask))
    events = accumulator.EventAccumulator("runs/a/tensorboard", size_guidance={"tensors": 0, "histograms": 0})
    events.Reload()
    assert [(one.step, one.tensor_proto.string_val[0]) for one in events.Tensors("samples")] == [
        (3, b"a <b>cat</b>"), (6, b"a <b>cat</b>"),
    ]  # fmt: skip
    assert events.summary_metadata["samples"].plugin_data.plugin_name == "text"
    (shown, _) = events.Histograms("weights")
    counts, edges = numpy.histogram([1.0, 1.0, 2.0, 5.0], bins=4)
    assert shown.histogram_value.bucket == counts.tolist()
    assert shown.histogram_value.bucket_limit == edges[1:].tolist()
    assert (shown.histogram_value.num, shown.histogram_value.sum) == (4, pytest.approx(9.0))
    assert shown.histogram_value.sum_squares == pytest.approx(31.0)
    picture = opened(events.Images("predictions/0")[0].encoded_image_string)
    assert picture.shape == (400, 600, 3)
    assert tuple(picture[150, 50]) == rgb(colour_of("cat"))
    assert tuple(picture[150, 301]) == (255, 255, 255)
    assert tuple(picture[300, 550]) == (128, 128, 128)
    inside = picture[120, 150].astype(int)
    assert tuple(inside) != (128, 128, 128), "the mask is tinted"


def test_wandb_has_them_offline(monkeypatch):
    pytest.importorskip("wandb")
    from epochal.loggers import wandb as module
    from tests.loggers.test_wandb import history

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "is_logged_in", lambda _: False)
    train(module.WandbLogger("digits"), Shows())
    rows = [row for row in history("runs/a") if any(name.startswith(("samples", "weights")) for name in row)]
    assert [row["step"] for row in rows] == [3, 3, 6, 6]
    (folder,) = Path("runs/a").glob("wandb/offline-run-*/files/media")
    texts = [one.read_text() for one in sorted(folder.glob("html/*.html"))]
    assert texts == ["<pre>a &lt;b&gt;cat&lt;/b&gt;</pre>"] * len(texts)
    assert texts
    counted = [json.dumps(row) for row in rows if any(name.startswith("weights") for name in row)]
    assert all("histogram" in row for row in counted)
    assert any(
        (opened(one.read_bytes())[150, 50] == rgb(colour_of("cat"))).all() for one in folder.glob("images/**/*.png")
    )


def test_a_live_logger_draws_the_boxes_too(tmp_path):
    simulate([TensorBoardLogger("tb"), Shows(numpy.ones((400, 600), dtype=bool))], [{}], dir=tmp_path)
    events = accumulator.EventAccumulator("tb", size_guidance={"tensors": 0})
    events.Reload()
    picture = opened(events.Images("predictions/0")[0].encoded_image_string)
    assert tuple(picture[150, 50]) == rgb(colour_of("cat"))
    assert events.Tensors("samples")[0].tensor_proto.string_val == [b"a <b>cat</b>"]


@pytest.mark.parametrize(
    "box",
    [
        {"box": [-50.0, -5.0, 5000.0, 2.0], "label": "over the edge", "score": 1.0, "true": False},
        {"box": [9.0, 9.0, 1.0, 1.0], "label": "", "score": None, "true": True},
        {"box": [float("nan")] * 4, "label": "\u4e2d\u6587" * 40, "score": float("nan"), "true": False},
    ],
)
def test_odd_boxes_and_small_images_can_be_drawn(box):
    small = with_boxes(as_png(numpy.zeros((10, 8), dtype=numpy.uint8)), [box])
    assert (small.height, small.width, small.channels) == (320, 256, 3)
    assert opened(small.data).max() > 0


def test_an_image_without_boxes_is_sent_as_it_is():
    png = as_png(GRAY)
    assert picture_of(png) is png


def test_what_the_store_holds_and_cannot_be_read_is_passed_over():
    assert medium_of("histogram", "{}", b"{}") is None
    assert medium_of("histogram", '{"low": 1}', b"[") is None
    assert medium_of("image", "no json", b"") is None
    assert medium_of("image", "{}", b"short") is None
    assert medium_of("text", "{}", b"\xff") == ("\ufffd", ())


def test_a_histogram_with_fewer_bins_counts_the_same():
    fine = Histogram([float(edge) for edge in range(1001)], [1] * 1000, 0.0, 1000.0, 500.0, 1.0)
    coarse = fine.coarser(512)
    assert (len(coarse.counts), len(coarse.edges), sum(coarse.counts)) == (500, 501, 1000)
    assert coarse.edges[-1] == 1000.0
    assert fine.coarser(1000) == fine


def test_labels_have_different_colours_everywhere():
    assert {colour_of(str(number)) for number in range(100)} == set(COLOURS)
