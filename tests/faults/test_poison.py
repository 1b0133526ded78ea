"""A checkpoint that was made to run code does not run it: it is refused, or what is dangerous in it is never looked at."""

import json
import os
import pickle
import shutil
import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from epochal import Checkpoint, Loop
from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.commit import commit_text
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import CheckpointError, EpochalError

PROOF = "hacked"


class Bomb:
    """What is unpickled makes a folder."""

    def __reduce__(self):
        return os.mkdir, (PROOF,)


def zipped(tmp_path):
    """What torch.save writes of it."""
    torch.save(Bomb(), tmp_path / "bomb")
    return (tmp_path / "bomb").read_bytes()


@pytest.fixture(params=["pickle", "torch.save"])
def bomb(request, tmp_path):
    data = pickle.dumps(Bomb()) if request.param == "pickle" else zipped(tmp_path)
    if request.param == "pickle":  # it works
        pickle.loads(data)
    else:
        torch.load(tmp_path / "bomb", weights_only=False)
    os.rmdir(PROOF)
    return data


def seal(folder):
    """Make manifest and COMMIT say that everything is as it was written: whoever can write there can do that."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "checksum": f"crc32:{zlib.crc32(data):08x}"}
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "COMMIT").write_bytes(commit_text(data))


def train(tmp_path, *, resume=False, epochs=1):
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    loop = Loop(model=net, optimizer=optimizer, callbacks=[Checkpoint(name="c")], dir=tmp_path, name="r", resume=resume)
    with loop as run:
        for _ in run.epochs(epochs):
            for x in run.batches([torch.ones(1, 2)]):
                net(x).sum().backward()
                optimizer.step()
    return run


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_a_pickle_in_place_of_a_file_is_refused(name, bomb, tmp_path):
    folder = train(tmp_path).checkpoints.last.path
    (folder / name).write_bytes(bomb)
    seal(folder)
    with pytest.raises(EpochalError):
        train(tmp_path, resume=True, epochs=2)
    saved = checkpoint(folder)  # every byte is as its manifest says
    with pytest.raises(CheckpointError):
        print([saved.load(part) for part in saved.parts])
    with pytest.raises(CheckpointError):
        saved.load_into(nn.Linear(3, 3))
    assert not Path(PROOF).exists()


@pytest.mark.parametrize("name", ["manifest.json", "COMMIT"])
def test_a_pickle_in_place_of_the_seal_makes_it_no_checkpoint(name, bomb, tmp_path):
    run = train(tmp_path)
    folder = run.checkpoints.last.path
    (folder / name).write_bytes(bomb)
    if name == "manifest.json":
        (folder / "COMMIT").write_bytes(commit_text(bomb))
    with pytest.raises(CheckpointError, match=r"manifest\.json|COMMIT"):
        checkpoint(folder)
    assert CheckpointStore(folder.parent).newest_resume_point() is None
    assert not Path(PROOF).exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "optimizer.pickle", "model.2.safetensors", "__init__.py"])
@pytest.mark.parametrize("named", [True, False])
def test_a_pickle_beside_the_files_is_never_opened_as_one(name, named, bomb, tmp_path):
    folder = train(tmp_path).checkpoints.last.path
    (folder / name).write_bytes(bomb)
    if named:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = {}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        seal(folder)
    if named and name.endswith(".safetensors"):
        with pytest.raises(CheckpointError, match=name):
            checkpoint(folder).load("model")
    else:
        assert checkpoint(folder).load("model")["weight"].shape == (1, 2)
        assert train(tmp_path, resume=True, epochs=2).step == 2
    assert not Path(PROOF).exists()


@pytest.mark.parametrize("name", ["last", "best", "run.json"])
def test_a_pickle_in_place_of_a_hint_is_nothing(name, bomb, tmp_path):
    run = train(tmp_path)
    path = run.dir / name if name == "run.json" else run.dir / "checkpoints" / name
    path.write_bytes(bomb)
    assert train(tmp_path, resume=run.dir, epochs=2).step == 2
    assert not Path(PROOF).exists()


def yolo(tmp_path, **architecture):
    """A checkpoint of a YOLO run that says so of its model."""
    pytest.importorskip("ultralytics")
    said = {"module": "ultralytics.nn.tasks", "class": "DetectionModel", "names": {0: "a"}, **architecture}
    facts = {"architecture": said, "args": {"task": "detect"}, "epoch": 0}
    return CheckpointStore(tmp_path / "y").save({"model": {}, "trainer": facts}, epoch=0, step=0)


ACT = f"__import__('os').mkdir('{PROOF}')"


@pytest.mark.parametrize(
    "architecture",
    [
        {"module": "os", "class": "mkdir", "yaml": PROOF},
        {"class": "torch_safe_load", "yaml": "bomb.pt"},
        {"class": "torch_safe_load", "yaml": {"a": 1}},
        {"class": "load_checkpoint", "yaml": "bomb.pt"},
        {"class": "DetectionModel", "yaml": "bomb.yaml"},
        {"yaml": {"activation": ACT, "nc": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []}},
        {"yaml": {"activation": f"nn.SiLU() or {ACT}", "nc": 1, "backbone": [], "head": []}},
        {"yaml": {"nc": 1, "backbone": [[-1, 1, "torch_safe_load", ["bomb.pt"]]], "head": []}},
        {"yaml": {"nc": 1, "backbone": [], "head": [[-1, 1, "nn.functional.relu", []]]}},
    ],
)
def test_a_description_of_a_yolo_model_that_would_run_code_is_refused(architecture, tmp_path):
    from epochal.integrations.ultralytics_file import write_ultralytics

    torch.save(Bomb(), "bomb.pt")
    with pytest.raises(CheckpointError, match="cannot be built again"):
        write_ultralytics(yolo(tmp_path, **architecture), tmp_path / "out.pt")
    assert not Path(PROOF).exists()
    assert not (tmp_path / "out.pt").exists()


def test_every_model_that_ultralytics_describes_may_be_built():
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    from ultralytics.cfg import ROOT
    from ultralytics.utils import YAML

    from epochal.integrations.ultralytics_safe import refusal

    found = {path.name: YAML.load(path) for path in (Path(ROOT) / "ultralytics" / "cfg" / "models").rglob("*.yaml")}
    found = found or {path.name: YAML.load(path) for path in (Path(ROOT) / "cfg" / "models").rglob("*.yaml")}
    assert len(found) > 30
    said = {"module": tasks.__name__, "class": "DetectionModel"}
    assert {name: why for name, plan in found.items() if (why := refusal({**said, "yaml": plan}))} == {}


def test_a_folder_that_was_copied_from_elsewhere_names_no_file_outside(tmp_path):
    folder = train(tmp_path).checkpoints.last.path
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../../secret"] = {"size": 0, "checksum": "crc32:00000000"}
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "COMMIT").write_bytes(commit_text(data))
    with pytest.raises(CheckpointError, match="is no file name"):
        checkpoint(folder)
    shutil.rmtree(folder)
