"""YOLO: what is written in the background is the state of the save, however it was taken."""

from pathlib import Path

from epochal import Checkpoint, Every, attach
from epochal.checkpointing import saver


def tensors(run):
    """Return the checksums of the tensor files of each checkpoint, by its step."""
    return {
        saved.manifest.step: {
            name: one.checksum for name, one in saved.manifest.files.items() if name.endswith(".safetensors")
        }
        for saved in run.checkpoints
    }


def test_lazy_copies_write_the_same_bytes_as_none(yolo, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "WORTH", 1 << 40)  # while memory is made ahead, periodic saves wait
    found = {}
    for mode in ("lazy", "off"):
        model = yolo()
        when = Every(epochs=1) | Every(steps=1)
        run = attach(model, Checkpoint(when, keep_last=-1, snapshot=mode), dir=tmp_path, name=mode)
        run.add_callback("on_train_batch_start", lambda run: run.engine.saver.flush())
        model.train(**quick(epochs=1, optimizer="AdamW", name=mode))
        found[mode] = tensors(run)
        assert len(found[mode]) >= 2
        assert not list(Path(tmp_path).rglob(".tmp-epochal-*"))
    assert found["lazy"] == found["off"]
