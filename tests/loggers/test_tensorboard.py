"""TensorBoardLogger: event files as TensorBoard's own reader reads them."""

import subprocess
import sys

import numpy
import pytest
from PIL import Image

from epochal.core.callback import Callback
from epochal.core.errors import MissingExtra
from epochal.loggers import tensorboard as module
from epochal.loggers.tensorboard import TensorBoardLogger
from epochal.testing import simulate

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder="tb"):
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


class BatchLoss(Callback):
    def on_train_batch_end(self, run):
        run.log({"train/loss": float(run.step)})


def test_batches_epochs_rates_and_fitness_over_the_step(tmp_path):
    simulate(
        [TensorBoardLogger("tb"), BatchLoss()], [{"val/loss": 2.0}, {"val/loss": 1.0}], batches=2, lr=0.5, dir=tmp_path
    )
    events = read()
    assert points(events, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert points(events, "epoch/train/loss") == [(2, 1.5), (4, 3.5)]
    assert points(events, "val/loss") == [(2, 2), (4, 1)]
    assert points(events, "fitness") == [(2, -2), (4, -1)]
    assert points(events, "epoch") == [(2, 0), (4, 1)]
    assert points(events, "lr/pg0") == [(2, 0.5), (4, 0.5)]


def test_a_mean_over_validation_batches_comes_once(tmp_path):
    class Validate(Callback):
        def on_train_epoch_end(self, run):
            run.engine.val_start(2)
            for batch in range(2):
                run.engine.val_batch_start(batch)
                run.log({"val/iou": float(batch)})
                run.engine.val_batch_end()
            run.engine.val_end()

    simulate([TensorBoardLogger("tb"), Validate()], [{}], dir=tmp_path)
    assert points(read(), "val/iou") == [(1, 0.5)]


def test_a_resumed_training_hides_the_steps_it_repeats(tmp_path):
    epochs = [{"val/loss": 2.0}, {"val/loss": 1.0}]
    first = simulate([TensorBoardLogger("tb"), BatchLoss()], epochs[:1], batches=2, dir=tmp_path)
    state = {"run": first.run.engine.state_dict(), "callbacks": first.run.roster.states()}
    for _ in range(2):
        simulate([TensorBoardLogger("tb"), BatchLoss()], epochs, batches=2, dir=tmp_path, state=state)
    events = read()
    assert [step for step, _ in points(events, "train/loss")] == [1, 2, 3, 4]
    assert points(events, "val/loss") == [(2, 2), (4, 1)]


def test_images_as_arrays_and_files(tmp_path):
    gray = numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)
    color = numpy.zeros((5, 6, 3), dtype=numpy.float32)
    color[0, 0] = (0.0, 0.5, 1.0)
    Image.fromarray(gray).save("gray.png")

    class Images(Callback):
        def on_fit_epoch_end(self, run):
            run.log_image("gray", gray)
            run.log_image("color", color)
            run.log_image("file", "gray.png")
            color[:] = 1.0  # what was logged is what was there then

    simulate([TensorBoardLogger("tb"), Images()], [{"x": 1.0}], dir=tmp_path)
    events = read()
    found = {tag: events.Images(tag)[0] for tag in events.Tags()["images"]}
    assert {tag: (one.height, one.width) for tag, one in found.items()} == {
        "gray": (3, 4),
        "color": (5, 6),
        "file": (3, 4),
    }
    from io import BytesIO

    assert (numpy.asarray(Image.open(BytesIO(found["gray"].encoded_image_string))) == gray).all()
    assert tuple(numpy.asarray(Image.open(BytesIO(found["color"].encoded_image_string)))[0, 0]) == (0, 128, 255)


def test_an_image_of_a_wrong_shape_costs_only_itself(tmp_path):
    class Wrong(Callback):
        def on_fit_epoch_end(self, run):
            run.log_image("wrong", numpy.zeros((2, 3, 4, 5)))

    result = simulate([TensorBoardLogger("tb"), Wrong()], [{"x": 1.0}, {"x": 2.0}], dir=tmp_path)
    assert points(read(), "x") == [(1, 1), (2, 2)]
    assert "height x width" in result.run.past[-1].notes[0]


def test_hyperparameters_and_the_end_are_on_the_hparams_page(tmp_path):
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    class Params(Callback):
        def on_train_start(self, run):
            run.log_params({"lr": 0.1, "nesterov": True, "name": "SGD"})
            if run.past:
                raise ValueError

    simulate([TensorBoardLogger("tb"), Params()], [{"x": 1.0}], dir=tmp_path)
    plugin = read().summary_metadata
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(plugin[tag].plugin_data.content)
        for tag in plugin
        if "hparams" in tag
    }
    start = content["_hparams_/session_start_info"].session_start_info
    assert start.hparams["lr"].number_value == 0.1
    assert start.hparams["nesterov"].bool_value is True
    assert start.hparams["name"].string_value == "SGD"
    assert content["_hparams_/session_end_info"].session_end_info.status == api_pb2.STATUS_SUCCESS


def test_tensorflow_and_torch_are_not_needed(tmp_path):
    script = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['torch'] = None\n"
        "from epochal.loggers.tensorboard import TensorBoardLogger\n"
        "from epochal.testing import simulate\n"
        "print(simulate([TensorBoardLogger('tb')], [{'x': 1.0}]).run.past[-1].notes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "()"
    assert points(read(tmp_path / "tb"), "x") == [(1, 1)]


def test_a_missing_package_names_the_cure(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[tensorboard\]"'):
        TensorBoardLogger()


def test_checksums_are_tensorboards_own():
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    from epochal.loggers.crc32c import masked

    random = numpy.random.default_rng(0)
    for size in (0, 1, 3, 4, 8, 16, 17, 600, 1023, 1024, 1025, 1027, 1028, 2049, 12_345):
        data = random.bytes(size)
        assert masked(data) == masked_crc32c(data), size
