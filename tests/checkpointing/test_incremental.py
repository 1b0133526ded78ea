"""What did not change is written once; every folder stays whole, whatever happens to the others."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from epochal import Checkpoint, Loop
from epochal.checkpointing import incremental
from epochal.checkpointing.incremental import FILES, PATIENCE
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.store import CheckpointStore

LARGE = 1 << 18  # floats: 1 MB


def weights(**values):
    return {"model": {name: torch.full((LARGE,), float(value)) for name, value in values.items()}}


def save(store, number, **values):
    return store.save({**weights(**values), "run": {"number": number}}, epoch=number, step=number)


def links(saved):
    return {name: (saved.path / name).stat().st_nlink for name in saved.manifest.files}


def content(saved):
    return {name: tensor[0].item() for name, tensor in saved.load("model").items()}


def by_safetensors(saved):
    """Read all tensor files with the library that defines the format."""
    files = [load_file(path) for path in saved.path.glob("model*.safetensors")]
    assert len({name for file in files for name in file}) == sum(map(len, files))
    return {name: tensor[0].item() for file in files for name, tensor in file.items()}


def test_a_file_in_which_nothing_changed_is_linked(tmp_path):
    store = CheckpointStore(tmp_path)
    first, second = save(store, 0, a=1, b=2), save(store, 1, a=1, b=2)
    assert links(second) == {"model.safetensors": 2, "state.json": 1}
    assert (first.manifest.written, first.manifest.size) == (first.manifest.size, second.manifest.size)
    assert second.manifest.written == second.manifest.files["state.json"].size
    assert second.verify()
    assert content(second) == by_safetensors(second) == {"a": 1, "b": 2}


def test_frozen_layers_are_split_off_once_and_linked_from_then_on(tmp_path):
    store = CheckpointStore(tmp_path)
    saves = [save(store, n, frozen=7, head=n) for n in range(4)]
    assert [sorted(links(one)) for one in saves[1:]] == [["model.2.safetensors", "model.safetensors", "state.json"]] * 3
    assert saves[3].path.joinpath("model.2.safetensors").stat().st_nlink == 3
    assert saves[3].manifest.written < saves[3].manifest.size * 0.6
    assert [content(one) for one in saves] == [by_safetensors(one) for one in saves]
    assert [content(one) for one in saves] == [{"frozen": 7, "head": n} for n in range(4)]
    assert all(one.verify() for one in saves)


def test_what_is_frozen_after_long_training_is_found(tmp_path):
    store = CheckpointStore(tmp_path)
    for number in range(40):
        save(store, number, body=min(number, 20), head=number)
        shutil.rmtree(store.checkpoints[-2].path) if number > 1 else None
    assert save(store, 40, body=20, head=40).manifest.files["model.2.safetensors"].linked


def test_layers_that_thaw_are_written_again(tmp_path):
    store = CheckpointStore(tmp_path)
    for number in range(3):
        save(store, number, a=1, b=1, head=number)
    thawed = save(store, 3, a=1, b=2, head=3)
    assert content(thawed) == {"a": 1, "b": 2, "head": 3}
    assert thawed.verify()
    again = save(store, 4, a=1, b=3, head=4)
    assert content(again) == by_safetensors(again) == {"a": 1, "b": 3, "head": 4}
    assert any(record.linked for record in again.manifest.files.values())


def test_retention_needs_to_know_nothing(tmp_path):
    store = CheckpointStore(tmp_path)
    store.keep("c", Keep(last=1))
    for number in range(6):
        store.save({**weights(frozen=7, head=number)}, epoch=number, step=number, asked_by=["c"])
    [left] = store.checkpoints
    assert (left.manifest.epoch, content(left)) == (5, {"frozen": 7, "head": 5})
    assert left.verify()
    assert set(links(left).values()) == {1}
    assert sum(one.stat().st_size for one in tmp_path.rglob("*") if one.is_file()) < left.manifest.size + 5000


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_links_it_is_written_again(code, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    store = CheckpointStore(tmp_path)
    saves = [save(store, n, frozen=7, head=n) for n in range(3)]
    assert [one.manifest.written for one in saves] == [one.manifest.size for one in saves]
    assert all(set(links(one).values()) == {1} and one.verify() for one in saves)
    assert [content(one) for one in saves] == [{"frozen": 7, "head": n} for n in range(3)]


@pytest.mark.parametrize("place", [3, 20, 100, 1_000_000, -1])
def test_damage_never_spreads(place, tmp_path):
    store = CheckpointStore(tmp_path)
    first = save(store, 0, a=1, b=2)
    path = first.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    second = save(store, 1, a=1, b=2)
    assert not first.verify()
    assert second.verify()
    assert content(second) == {"a": 1, "b": 2}


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 9), lambda path: path.write_bytes(b"")])
def test_a_file_that_is_gone_is_written_anew(harm, tmp_path):
    store = CheckpointStore(tmp_path)
    harm(save(store, 0, a=1, b=2).path / "model.safetensors")
    second = save(store, 1, a=1, b=2)
    assert second.verify()
    assert second.manifest.written == second.manifest.size


def test_bytes_at_the_end_of_a_file_are_damage(tmp_path):
    store = CheckpointStore(tmp_path)
    with open(save(store, 0, a=1, b=2).path / "model.safetensors", "ab") as file:
        file.write(b"more")
    assert save(store, 1, a=1, b=2).verify()


def test_small_files_are_never_shared(tmp_path):
    store = CheckpointStore(tmp_path)
    for number in range(3):
        saved = store.save({"model": {"w": torch.ones(1000)}}, epoch=number, step=number)
    assert links(saved) == {"model.safetensors": 1, "state.json": 1}


def test_a_resumed_run_goes_on_linking(tmp_path):
    for number in range(3):
        saved = save(CheckpointStore(tmp_path), number, frozen=7, head=number)  # each time a new process' store
    assert saved.manifest.files["model.2.safetensors"].linked


def test_freezing_layer_by_layer_does_not_end_in_a_file_per_layer(tmp_path):
    names, written = [f"layer{n}" for n in range(2 * FILES)], 0
    for number in range(len(names)):  # one layer more stands still in each save
        store = CheckpointStore(tmp_path)
        saved = save(store, number, **{name: min(number, n) for n, name in enumerate(names)})
        assert len(saved.manifest.files) <= FILES + 1
        assert content(saved) == by_safetensors(saved) == {name: min(number, n) for n, name in enumerate(names)}
        assert saved.verify()
        written += saved.manifest.written
    assert written < 0.8 * len(names) * saved.manifest.size


def test_what_always_changes_is_seldom_compared(tmp_path, monkeypatch):
    asked = []
    real = incremental._lies_at
    monkeypatch.setattr(incremental, "_lies_at", lambda *one: asked.append(one) or real(*one))
    store = CheckpointStore(tmp_path)
    store.keep("c", Keep(last=1))
    saves = 100
    for number in range(saves):
        store.save(weights(w=number), epoch=number, step=number, asked_by=["c"])
    assert len(asked) <= 5 + saves / PATIENCE  # after 1, 2, 4, 8, then every 17th


def test_tied_and_typed_tensors_come_back_from_several_files(tmp_path):
    store = CheckpointStore(tmp_path)
    frozen = torch.arange(LARGE, dtype=torch.float64)
    for number in range(3):
        tree = {
            "w": frozen,
            "tied": frozen,
            "turned": torch.full((4, 1 << 17), 2.0).T,
            "head": torch.full((9,), number),
        }
        saved = store.save({"model": tree}, epoch=number, step=number)
    assert len(saved.manifest.files) == 3
    back = saved.load("model")
    assert back["w"] is back["tied"]
    assert torch.equal(back["w"], frozen)
    assert back["turned"].stride() == tree["turned"].stride()
    assert back["head"].tolist() == [2] * 9


@settings(max_examples=25, deadline=None)
@given(st.lists(st.fixed_dictionaries({name: st.integers(0, 1) for name in "abc"}), min_size=2, max_size=6))
def test_whatever_changes_when_all_checkpoints_say_what_was_saved(tmp_path_factory, rounds):
    store = CheckpointStore(tmp_path_factory.mktemp("any"))
    saves = [save(store, number, **values) for number, values in enumerate(rounds)]
    assert [content(one) for one in saves] == rounds
    assert all(one.verify() for one in saves)
    shutil.rmtree(saves[0].path)
    assert all(one.verify() for one in saves[1:])


def test_a_file_that_the_manifest_does_not_name_is_never_opened(tmp_path):
    saved = save(CheckpointStore(tmp_path), 0, a=1)
    (saved.path / "model.2.safetensors").write_bytes(b"\x80\x04 whatever")
    assert content(saved) == {"a": 1}


def test_the_manifest_tells_links_and_only_links(tmp_path):
    store = CheckpointStore(tmp_path)
    for number in range(2):
        saved = save(store, number, a=1)
    files = json.loads((saved.path / "manifest.json").read_text())["files"]
    assert files["model.safetensors"]["linked"] is True
    assert "linked" not in files["state.json"]


@pytest.mark.parametrize("snapshot", ["eager", "lazy", "off"])
def test_a_training_with_a_frozen_body_writes_it_twice_at_most(snapshot, tmp_path):
    torch.manual_seed(0)
    body, head = torch.nn.Linear(1000, 500), torch.nn.Linear(500, 1)
    net = torch.nn.Sequential(body.requires_grad_(False), head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    heads = []
    keep_all = Checkpoint(keep_last=-1, snapshot=snapshot)
    with Loop(model=net, optimizer=optimizer, callbacks=[keep_all], dir=tmp_path, name="r") as run:
        for _ in run.epochs(6):
            for x in run.batches([torch.ones(2, 1000)]):
                optimizer.zero_grad()
                net(x).square().mean().backward()
                optimizer.step()
            heads.append(head.weight.detach().clone())
    saves = list(run.checkpoints)
    assert len({(one.path / "model.2.safetensors").stat().st_ino for one in saves[1:]}) == 1
    assert [one.manifest.written < 200_000 for one in saves] == [False, False, True, True, True, True]
    for one, expected in zip(saves, heads, strict=True):
        assert one.verify()
        assert torch.equal(one.load("model")["1.weight"], expected)
        assert torch.equal(one.load("model")["0.weight"], body.weight)
