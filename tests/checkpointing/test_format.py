"""Checkpoints that an older Epochal wrote are read for good."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.layout import FORMAT, FileRecord, Manifest
from epochal.checkpointing.store import CheckpointStore

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
OLD = Path(__file__).parents[1] / "data" / "format-1"  # written by the last Epochal that wrote format 1


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "checkpoints"))


def test_a_checkpoint_of_format_1_is_whole_and_says_what_it_said(old):
    saved = checkpoint(old)
    assert (saved.manifest.format, saved.manifest.name) == (1, "epoch-0003-step-000120")
    assert (saved.manifest.fitness, saved.manifest.metrics) == (0.5, {"val/loss": math.inf})
    assert saved.manifest.written == saved.manifest.size == 164 + 160 + 409
    model, run = saved.load("model"), saved.load("run")
    assert torch.equal(model["a.weight"], torch.arange(6.0).reshape(2, 3))
    assert model["a.weight"] is model["b.weight"]
    assert torch.equal(model["half"], torch.tensor([0.5, -2.0]).bfloat16())
    assert torch.equal(saved.load("optimizer")["state"][0]["exp_avg"], torch.full((2, 3), 0.25))
    assert math.isnan(run["best"])
    assert (run["order"], run["lr"]) == ((1, 2), {0: 0.1})


def test_a_run_that_began_with_format_1_goes_on_with_2(old):
    store = CheckpointStore(old)
    assert store.newest_resume_point().manifest.format == 1
    store.save({"run": {}}, epoch=4, step=160)
    assert [(one.manifest.format, one.manifest.serial) for one in CheckpointStore(old).checkpoints] == [(1, 1), (2, 2)]


def test_the_page_tells_the_version_and_every_field_of_a_manifest():
    page = PAGE.read_text()
    fields = json.loads(Manifest(name="a", epoch=0, step=0, files={"a": FileRecord(1, "b", linked=True)}).to_bytes())
    table = page[page.index("**`manifest.json`**") : page.index("**`state.json`**")]
    told = [
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall("`(.+?)`", line.split("|")[1])
    ]
    assert sorted(told) == sorted(fields)
    assert all(f"`{name}`" in table for name in fields["files"]["a"])
    assert f"Version {FORMAT}." in page


def reader():
    """Return the source of the reader on the page."""
    return next(code for code in re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL) if "def read(" in code)


def test_the_reader_on_the_page_is_short_and_needs_nothing_of_ours():
    source = reader().split("\n\ndirectory =")[0]
    assert len(source.strip().splitlines()) <= 30
    assert "epochal" not in source


def test_the_reader_on_the_page_reads_both_versions_and_several_files(old, tmp_path):
    namespace = {}
    exec(reader().split("\n\ndirectory =")[0], namespace)
    manifest, state, tensors = namespace["read"](old / "epoch-0003-step-000120")
    assert (manifest["format"], state["run"]["lr"]) == (1, {"$": "dict", "items": [[0, 0.1]]})
    assert torch.equal(tensors["model"]["a.weight"], torch.arange(6.0).reshape(2, 3))
    store = CheckpointStore(tmp_path / "new")
    for number in range(3):
        saved = store.save(
            {"model": {"body": torch.ones(1 << 20), "head": torch.full((2,), 1.0 * number)}}, epoch=number, step=0
        )
    assert len(saved.manifest.files) == 3
    _, _, tensors = namespace["read"](saved.path)
    assert torch.equal(tensors["model"]["body"], torch.ones(1 << 20))
    assert tensors["model"]["head"].tolist() == [2.0, 2.0]
    (saved.path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="is damaged"):
        namespace["read"](saved.path)
