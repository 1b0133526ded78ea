"""What PredictionPlots draws is what was predicted, at the moments asked for, and nothing of the training changes."""

import copy
import random

import numpy as np
import pytest

import epochal.callbacks.figure
from epochal import Best, Callback, Every, Loop, PredictionPlots
from epochal.callbacks.boxes_view import Boxes, colour_of
from epochal.callbacks.confusion_view import Confusion
from epochal.callbacks.read_predictions import classified
from epochal.core.errors import ArgumentError, MissingExtra
from epochal.core.host import Frame, Prediction, Predictions

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")
nn = torch.nn
CLASSES = 4


def batches(count=5, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(size, 1, 6, 6, generator=generator), torch.randint(0, CLASSES, (size,), generator=generator))
        for _ in range(count)
    ]


def train(callbacks, run_dir, *, epochs=3, losses=(3.0, 1.0, 2.0), validate=None, data=None):
    """Train a small net, validate it, and return the run and all that a training can differ in."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = batches() if data is None else data
    with Loop(model=model, optimizer=optimizer, callbacks=callbacks, dir=run_dir) as run:
        for epoch in run.epochs(epochs):
            model.train()
            for x, y in run.batches(batches(seed=1)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            model.eval()
            with run.validation(), torch.no_grad():
                run.log({"val/loss": losses[epoch]})
                for x, *_ in data if validate == "unseen" else run.batches(data):
                    model(x)
    return run, [*model.state_dict().values(), torch.rand(2), torch.tensor([random.random(), np.random.rand()])]


def pictures(run, folder="prediction_plots"):
    return sorted(path.name for path in (run.dir / folder).glob("*"))


# -- the confusion matrix ------------------------------------------------------------------------------------------


class Compare(Callback):
    """Keeps what the model returned, for scikit-learn to count."""

    requires = frozenset({"outputs"})

    def __init__(self):
        self.targets, self.predicted = [], []

    def on_val_start(self, run):
        self.targets, self.predicted = [], []

    def on_val_batch_end(self, run):
        self.targets += run.data[1].tolist()
        self.predicted += run.outputs.argmax(1).tolist()


class Counts(Callback):
    """Reads the counts off the picture's source, right before it is drawn."""

    def __init__(self, plots):
        self.plots, self.seen = plots, []

    def on_val_end(self, run):
        self.seen.append(self.plots._shown.counts.copy())


def test_the_counts_are_scikit_learn_s(run_dir):
    metrics = pytest.importorskip("sklearn.metrics")
    plots, compare = PredictionPlots(names=["a", "b", "c", "d"]), Compare()
    counts = Counts(plots)
    run, _ = train([plots, compare, counts], run_dir)
    expected = metrics.confusion_matrix(compare.targets, compare.predicted, labels=range(CLASSES))
    assert (counts.seen[-1] == expected).all()
    assert pictures(run) == [f"confusion_matrix-epoch-{epoch:04d}.png" for epoch in range(3)]
    with Image.open(run.dir / "prediction_plots" / "confusion_matrix-epoch-0002.png") as picture:
        assert picture.size[0] > 400
        colours = {pixel[:3] for _, pixel in picture.convert("RGB").getcolors(1 << 20)}
    assert len(colours) > 20


def test_the_worst_images_are_those_with_the_lowest_score_of_their_class():
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(40, 3)), generator.integers(0, 3, 40)
    images = [np.full((4, 4, 3), index, dtype=np.uint8) for index in range(40)]
    confusion = Confusion(worst=5)
    for part in range(0, 40, 10):
        chosen = slice(part, part + 10)
        found = classified(targets[chosen], logits[chosen], images[chosen], {})
        confusion.add(found.images, found.names)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = [index for index in range(40) if logits[index].argmax() != targets[index]]
    expected = sorted(wrong, key=lambda index: shares[index, targets[index]])[:5]
    kept = sorted(confusion.heap, key=lambda item: -item[0])
    assert [int(one.image[0, 0, 0]) for _, _, one in kept] == expected
    assert [-low for low, _, _ in kept] == pytest.approx([shares[index, targets[index]] for index in expected])
    assert confusion.draw("epoch 1").shape[2] == 3


def test_a_large_matrix_and_long_names_can_be_drawn():
    for size in (2, 30, 200):
        scores = np.eye(size)
        found = classified(
            np.arange(size), scores, None, {index: f"a rather long name {index}" for index in range(size)}
        )
        confusion = Confusion(worst=0)
        confusion.add(found.images, found.names)
        assert confusion.counts.trace() == size
        assert max(confusion.draw("epoch 1").shape) < 2500


# -- boxes and masks -----------------------------------------------------------------------------------------------


def rgb_of(colour):
    return tuple(int(colour[index : index + 2], 16) for index in (1, 3, 5))


def test_boxes_and_masks_stand_where_they_were_predicted_and_borders_are_cut_off():
    """An image of 40 x 80, seen at half size under a border of 10: box and mask are found by their colours."""
    frame = Frame(40, 80, (40, 40), 0.5, 0.5, left=0.0, top=10.0)
    mask = np.zeros((1, 40, 40), dtype=bool)
    mask[0, 14:26, 8:20] = True
    boxes = np.array([[8.0, 14.0, 20.0, 26.0]], dtype=np.float32)
    black = np.zeros((40, 40, 3), dtype=np.uint8)
    one = Prediction(
        np.array([2]), np.array([0.9]), boxes, mask, black, "x/picture.png", frame, Prediction((), (), boxes[:0])
    )
    view = Boxes(images=1, tile=400)
    tile = np.asarray(view.shown(one, one, scores=True))
    assert tile.shape == (200, 400, 3)  # the picture without its border, ten times as large as it was seen
    colour = rgb_of(colour_of(2))
    rows, columns = np.nonzero((tile == colour).all(axis=2))
    assert (columns.min(), columns.max()) == pytest.approx((80, 200), abs=1)
    assert rows.max() == pytest.approx(160, abs=1)
    tinted = tile[100, 140]
    assert tinted == pytest.approx(np.array(colour) * 0.45, abs=3)
    assert (tile[190, 300] == 0).all()
    assert (np.asarray(view.shown(one, one.truth, scores=False)) == 0).all()


def test_only_so_many_images_are_kept_and_a_grid_holds_them_all():
    boxes = np.array([[1.0, 1.0, 9.0, 9.0]])
    image = np.full((10, 10, 3), 200, dtype=np.uint8)
    one = Prediction(np.array([1]), np.array([0.5]), boxes, None, image, truth=Prediction(np.array([1]), None, boxes))
    view = Boxes(images=5, tile=100)
    for _ in range(3):
        view.add([one] * 2, {1: "one"})
    assert len(view.images) == 5
    picture = view.draw("epoch 1")
    assert picture.shape[1] == 8 + 4 * 108
    assert picture.shape[0] == 44 + 3 * 126


def test_a_loop_may_show_boxes_of_its_own(run_dir):
    def read(run):
        image = np.full((20, 30, 3), 90, dtype=np.uint8)
        boxes = np.array([[2.0, 2.0, 20.0, 15.0]])
        truth = Prediction(np.array([0]), None, boxes + 1)
        return Predictions([Prediction(np.array([0]), np.array([0.8]), boxes, None, image, truth=truth)], {0: "thing"})

    run, _ = train([PredictionPlots(read=read, images=3, size=90)], run_dir)
    assert pictures(run) == [f"predictions-epoch-{epoch:04d}.png" for epoch in range(3)]


# -- when, and how many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "keep_last", "epochs"),
    [
        (None, -1, [0, 1, 2]),
        (None, 2, [1, 2]),
        (Best("val/loss"), -1, [0, 1]),
        (Best("val/loss"), 1, [1]),
        (Every(epochs=2), -1, [1]),
        (Every(batches=4), -1, [0, 1]),  # in epoch 0 before the first validation: nothing to draw
    ],
    ids=["each", "the newest two", "best", "the best", "every second", "in batches"],
)
def test_draws_when_the_condition_holds(when, keep_last, epochs, run_dir):
    run, _ = train([PredictionPlots(when, keep_last=keep_last)], run_dir)
    assert pictures(run) == [f"confusion_matrix-epoch-{epoch:04d}.png" for epoch in epochs]


def test_two_of_them_have_folders_of_their_own(run_dir):
    run, _ = train([PredictionPlots(), PredictionPlots(Best("val/loss"), name="The best")], run_dir)
    assert len(pictures(run)) == 3
    assert len(pictures(run, "the_best")) == 2


def test_loggers_get_the_picture(run_dir):
    class Sink(Callback):
        def on_train_start(self, run):
            run.engine.add_sink(lambda record: seen.append(record) if record.kind == "image" else None)

    seen = []
    train([Sink(), PredictionPlots()], run_dir)
    assert [(record.at.epoch, *record.values) for record in seen] == [(n, "confusion_matrix") for n in range(3)]
    assert all(record.values["confusion_matrix"].dtype == np.uint8 for record in seen)


def test_a_second_training_with_the_same_object_draws_the_same(run_dir):
    plots = PredictionPlots()
    first, _ = train([plots], run_dir)
    second, _ = train([plots], run_dir)
    third, _ = train([copy.deepcopy(plots)], run_dir)
    name = "prediction_plots/confusion_matrix-epoch-0002.png"
    assert len({(run.dir / name).read_bytes() for run in (first, second, third)}) == 1


def test_nothing_of_the_training_changes(run_dir):
    _, plain = train([], run_dir)
    run, drawn = train([PredictionPlots(worst=4)], run_dir)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(drawn, plain, strict=True))
    assert run.past[-1].failures == {}


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_validation_whose_batches_were_not_seen_is_said_once(run_dir, caplog):
    run, _ = train([PredictionPlots()], run_dir, validate="unseen")
    assert caplog.text.count("batches are seen when they come from run.batches(loader)") == 1
    assert not (run.dir / "prediction_plots").exists()


@pytest.mark.parametrize(
    ("options", "data", "said"),
    [
        ({}, [(torch.rand(3, 1, 6, 6), torch.zeros(3, 2))], "must be (n,), scores (n, classes)"),
        ({}, [(torch.rand(3, 1, 6, 6),)], "the batch is no pair of inputs and targets"),
        ({"read": lambda run: 3}, None, "read(run) must return targets and scores, not int"),
    ],
)
def test_a_batch_that_cannot_be_read_is_said_and_the_training_goes_on(options, data, said, run_dir, caplog):
    run, _ = train([PredictionPlots(**options)], run_dir, data=data)
    assert said in caplog.text
    assert run.end_reason == "completed"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"when": "val/loss"}, "when must be a condition"),
        ({"images": 0}, "images must be a whole number"),
        ({"worst": -1}, "worst must be a whole number"),
        ({"keep_last": 0}, "keep_last must be"),
        ({"min_score": -1}, "min_score"),
        ({"read": 3}, "must be a function of the run"),
    ],
)
def test_wrong_arguments_are_said_at_once(options, said):
    with pytest.raises(ArgumentError, match=said):
        PredictionPlots(**options)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(epochal.callbacks.figure, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[plots\]"'):
        PredictionPlots()
