"""``attach`` says at once what cannot work, and leaves nothing half-attached."""

import subprocess
import sys

import pytest

from epochal import Callback, EpochalError, attach
from epochal.core.errors import ArgumentError, AttachError, CapabilityError, UnknownEvent


class Mistyped(Callback):
    def on_train_bacth_end(self, run):
        pass


class Demanding(Callback):
    requires = frozenset({"telepathy"})


def test_an_unsupported_trainer_is_refused_with_what_is_supported():
    with pytest.raises(AttachError, match=r"dict cannot be attached\. Supported: .*YOLO.*Loop"):
        attach({})


def test_a_plain_torch_module_is_sent_to_loop():
    torch = pytest.importorskip("torch")
    with pytest.raises(AttachError, match=r"Linear cannot be attached\..*Loop\(model="):
        attach(torch.nn.Linear(1, 1))


def test_a_class_is_refused():
    with pytest.raises(AttachError, match=r"the class dict; attach an object"):
        attach(dict)


def test_the_network_inside_yolo_is_sent_to_yolo(yolo):
    with pytest.raises(AttachError, match="attach the YOLO object itself"):
        attach(yolo().model)


@pytest.mark.parametrize(
    ("callbacks", "options", "error", "says"),
    [
        ([Mistyped()], {}, UnknownEvent, "did you mean 'on_train_batch_end'"),
        ([Callback, Callback()], {}, AttachError, "that is the class; pass an object"),
        ([print], {}, AttachError, "run.add_callback"),
        ([Demanding()], {}, CapabilityError, "requires telepathy, which Ultralytics YOLO cannot deliver"),
        ([], {"fitness": 3}, ArgumentError, "fitness="),
        ([], {"name": "a/b"}, ArgumentError, "name='a/b' must be one folder's name"),
    ],
)
def test_what_cannot_work_is_said_at_attach_and_the_model_stays_free(yolo, callbacks, options, error, says):
    model = yolo()
    before = dict(vars(model))
    with pytest.raises(error, match=says):
        attach(model, Callback(), *callbacks, **options)
    assert vars(model) == before
    attach(model)


def test_a_second_attach_names_the_cures_and_detach_is_one_of_them(yolo):
    model = yolo()
    before = dict(vars(model))
    run = attach(model)
    with pytest.raises(AttachError, match=r"run\.add\(.*run\.detach\(\)"):
        attach(model)
    run.detach()
    assert vars(model) == before
    with pytest.raises(EpochalError, match="detached"):
        run.add(Callback())
    assert attach(model) is not run


def test_importing_attach_imports_no_framework():
    code = "import sys; from epochal import attach, Callback; print(sorted({'numpy', 'torch', 'ultralytics'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
