"""What WritePredictions wrote is read back as it was predicted; a disk that fails costs the training nothing."""

import json
import os
import sys
import threading

import numpy as np
import pytest

from epochal import Best, Loop, WritePredictions
from epochal.callbacks.predictions_file import as_line, decode_mask, encode_mask, on_image, read_predictions
from epochal.core.background import Background
from epochal.core.errors import ArgumentError
from epochal.core.host import Frame, Prediction
from tests import preloaded

torch = pytest.importorskip("torch")
nn = torch.nn
CLASSES = 7


def batches(count=4, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, generator=generator), torch.randint(0, CLASSES, (size,), generator=generator))
        for _ in range(count)
    ]


def train(callbacks, run_dir, losses=(3.0, 1.0, 2.0)):
    """Validate a net in each epoch; return the run and the net's outputs, epoch by epoch."""
    torch.manual_seed(0)
    model = nn.Linear(3, CLASSES)
    outputs = []
    with Loop(model=model, callbacks=callbacks, dir=run_dir) as run:
        for epoch in run.epochs(len(losses)):
            nn.init.normal_(model.weight)
            with run.validation(), torch.no_grad():
                run.log({"val/loss": losses[epoch]})
                outputs.append(torch.cat([model(x) for x, _ in run.batches(batches())]))
    return run, outputs


def files(run, folder="write_predictions"):
    return sorted(path.name for path in (run.dir / folder).iterdir())


def test_a_classification_is_read_back_as_it_was(run_dir):
    run, outputs = train([WritePredictions(keep_last=-1, top=3)], run_dir)
    assert files(run) == ["epoch-0000.jsonl", "epoch-0001.jsonl", "epoch-0002.jsonl"]
    targets = torch.cat([y for _, y in batches()])
    for epoch, logits in enumerate(outputs):
        lines = list(read_predictions(run.dir / "write_predictions" / f"epoch-{epoch:04d}.jsonl"))
        scores, classes = logits.softmax(1).topk(3)
        assert [line["index"] for line in lines] == list(range(20))
        assert [line["target"] for line in lines] == targets.tolist()
        assert [line["predicted"] for line in lines] == logits.argmax(1).tolist()
        assert [line["classes"] for line in lines] == classes.tolist()
        assert np.array([line["scores"] for line in lines]) == pytest.approx(scores.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, [2]), ({"keep_last": 2}, [1, 2]), ({"when": Best("val/loss")}, [1])],
    ids=["the newest", "two", "the best"],
)
def test_the_files_that_were_asked_for_stay(options, kept, run_dir):
    run, _ = train([WritePredictions(**options)], run_dir)
    assert files(run) == [f"epoch-{epoch:04d}.jsonl" for epoch in kept]
    assert run.past[-1].notes == ()


def test_the_classes_names_stand_beside(run_dir):
    run, _ = train([WritePredictions(names=list("abcdefg"))], run_dir)
    names = json.loads((run.dir / "write_predictions" / "classes.json").read_text())
    assert names == {str(index): name for index, name in enumerate("abcdefg")}


def test_masks_come_back_bit_for_bit():
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (5, 7), (40, 30)):
        for share in (0.0, 0.3, 1.0):
            mask = generator.random(shape) < share
            encoded = json.loads(json.dumps(encode_mask(mask)))
            assert sum(encoded["counts"]) == mask.size
            assert (decode_mask(encoded) == mask).all()


@pytest.mark.parametrize(
    ("mask", "counts"), [([0, 0, 1, 1, 1, 0, 1], [2, 3, 1, 1]), ([1, 1, 1, 1, 1, 1, 0], [0, 6, 1])]
)
def test_masks_are_encoded_as_coco_defines_it(mask, counts):
    """The two examples of COCO's own documentation (pycocotools/mask.py), as a column."""
    assert encode_mask(np.array(mask)[:, None]) == {"size": [7, 1], "counts": counts}


def test_boxes_and_masks_are_written_in_pixels_of_the_image_itself():
    """An image of 60 x 40 that the model saw 2 x as large, 30 to the right and 8 below; its mask is 4 x coarser."""
    frame = Frame(height=60, width=40, seen=(144, 160), scale_x=2.0, scale_y=2.0, left=30.0, top=8.0)
    boxes = np.array([[30 + 2 * 10.0, 8 + 2 * 20.0, 30 + 2 * 30.0, 8 + 2 * 50.0]])
    mask = np.zeros((1, 36, 40), dtype=bool)
    mask[0, (8 + 40) // 4 : (8 + 100) // 4, (30 + 20) // 4 : (30 + 60) // 4] = True
    one = Prediction(np.array([3]), np.array([0.5]), boxes, mask, None, "a.png", frame)
    line = json.loads(json.dumps(as_line(0, one, top=5, masks=True)))
    assert line["boxes"] == [[10.0, 20.0, 30.0, 50.0]]
    assert (line["height"], line["width"], line["source"]) == (60, 40, "a.png")
    found = decode_mask(line["masks"][0])
    assert found.shape == (30, 20)  # the mask's own resolution: half of the image's
    rows, columns = np.nonzero(found)
    assert (rows.min() * 2, rows.max() * 2 + 2) == pytest.approx((20, 50), abs=2)
    assert (columns.min() * 2, columns.max() * 2 + 2) == pytest.approx((10, 30), abs=2)
    assert (on_image(mask[0], None) == mask[0]).all()
    assert "masks" not in as_line(0, one, top=5, masks=False)


def test_a_file_appears_only_when_it_is_whole(run_dir):
    class Half(Exception):
        pass

    def read(run):
        if run.epoch == 1 and run.val_batch == 2:
            raise Half
        return run.data[1], run.outputs

    write = WritePredictions(read=read, keep_last=-1)
    run, _ = train([write], run_dir)
    assert files(run) == ["epoch-0000.jsonl", "epoch-0002.jsonl"]
    assert run.past[-1].failures == {"WritePredictions": 1}
    assert run.past[-1].notes == ("WritePredictions: 1 of its files not written",)


def test_an_interrupted_training_leaves_whole_files_only(run_dir):
    torch.manual_seed(0)
    model = nn.Linear(3, CLASSES)
    loop = Loop(model=model, callbacks=[WritePredictions(keep_last=-1)], dir=run_dir)

    def interrupted():
        with loop as run:
            for epoch in run.epochs(3):
                with run.validation():
                    for x, _ in run.batches(batches()):
                        model(x)
                        if epoch == 1:
                            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    run = loop.run
    assert files(run) == ["epoch-0000.jsonl"]
    assert [thread for thread in threading.enumerate() if "WritePredictions" in thread.name] == []


def test_a_slow_disk_gives_the_file_up_and_the_summary_says_so():
    """A thread that hangs: the queue fills up, and nobody waits longer than he said."""
    stuck = threading.Event()
    background = Background("test", waiting=1)
    assert background.do(stuck.wait, patience=1.0)
    while background.deeds.qsize():  # the thread has it in hand
        pass
    assert background.do(print, patience=0.0)
    assert not background.do(print, patience=0.01)
    assert not background.close(limit=0.01)
    stuck.set()
    background.thread.join(0.1)
    assert background.close(limit=10.0)


FULL = """
import logging, resource, sys
from pathlib import Path
from epochal import WritePredictions
from tests.callbacks.test_write_predictions import files, train

resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
run, outputs = train([WritePredictions(keep_last=-1)], Path(sys.argv[1]))
print("EPOCHS", len(outputs), run.end_reason, files(run))
print("NOTES", run.past[-1].notes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_costs_the_training_nothing(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = preloaded.run(["-c", f"import sys; sys.path.insert(1, {root!r})\n{FULL}", str(tmp_path)], timeout=120)
    assert done.returncode == 0, done.stderr
    assert "EPOCHS 3 completed []" in done.stdout
    assert done.stdout.count("ERROR ") == 2  # its own, and the run store's
    assert "3 of its files not written (OSError: [Errno 27] File too large)" in done.stdout.partition("NOTES")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"top": 0}, "top must be"), ({"min_score": -1}, "min_score"), ({"keep_last": 0}, "keep_last must be")],
)
def test_wrong_arguments_are_said_at_once(options, said):
    with pytest.raises(ArgumentError, match=said):
        WritePredictions(**options)
