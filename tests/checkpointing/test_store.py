"""The store: what is saved is there, what is damaged is found out, what fails leaves everything else as it was."""

import contextlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from epochal.checkpointing import commit as committing
from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.commit import commit_text, remove_leftovers, temporary_name
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import ArgumentError, CheckpointError

SOURCE = Path(committing.__file__).parent


def state(number, size=100):
    return {
        "model": {"w": torch.full((size,), float(number))},
        "optimizer": {"state": {0: {"m": torch.full((size,), float(number))}}, "param_groups": [{"params": [0]}]},
        "run": {"number": number},
    }


def filled(directory, count=2, **options):
    store = CheckpointStore(directory)
    for number in range(count):
        store.save(state(number), epoch=number, step=10 * number, fitness=float(number), **options)
    return store


def names(directory):
    return sorted(one.name for one in directory.iterdir())


def test_nothing_is_made_before_the_first_save(tmp_path):
    store = CheckpointStore(tmp_path / "a" / "b")
    assert (len(store.checkpoints), store.checkpoints.last, store.newest_resume_point()) == (0, None, None)
    assert names(tmp_path) == []
    store.save(state(1), epoch=0, step=1)
    assert names(tmp_path / "a" / "b") == ["epoch-0000-step-000001", "last"]


def test_a_folder_holds_what_the_manifest_says(tmp_path):
    saved = CheckpointStore(tmp_path).save(
        state(1), epoch=2, batch=5, step=9, reason="asked", asked_by=["me"], pinned=True, resume_point=False,
        metrics={"val/loss": float("nan")}, fitness=0.5, order="abc",
    )  # fmt: skip
    files = ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert names(saved.path) == sorted([*files, "COMMIT", "manifest.json"])
    read = json.loads((saved.path / "manifest.json").read_text())
    assert read["name"] == saved.path.name == "epoch-0002-batch-000005-step-000009"
    assert {name: one["size"] for name, one in read["files"].items()} == {
        name: (saved.path / name).stat().st_size for name in files
    }
    assert (read["reason"], read["asked_by"], read["pinned"], read["resume_point"]) == ("asked", ["me"], True, False)
    assert (read["metrics"], read["fitness"], read["order"], read["format"]) == ({"val/loss": "nan"}, 0.5, "abc", 2)
    assert {"epochal", "python", "torch"} <= read["versions"].keys()
    assert saved.manifest.size == sum(one["size"] for one in read["files"].values())


def test_another_store_finds_what_one_saved_in_its_order(tmp_path):
    filled(tmp_path, 3)
    CheckpointStore(tmp_path).save(state(7), epoch=0, step=5)  # a training that went back
    again = CheckpointStore(tmp_path)
    assert [one.manifest.step for one in again.checkpoints] == [0, 10, 20, 5]
    assert again.checkpoints.last.load("run") == {"number": 7}
    assert again.checkpoints.best().manifest.epoch == 2
    assert (again.checkpoints[0].manifest.epoch, len(again.checkpoints[1:])) == (0, 3)
    assert torch.equal(again.checkpoints[1].load("model")["w"], torch.ones(100))


def test_a_second_save_of_a_moment_gets_a_suffix(tmp_path):
    store = CheckpointStore(tmp_path)
    saved = [store.save(state(n), epoch=1, step=1) for n in range(3)]
    assert [one.path.name for one in saved] == [f"epoch-0001-step-000001{end}" for end in ("", "-2", "-3")]
    assert [one.load("run")["number"] for one in store.checkpoints] == [0, 1, 2]


def test_pointers_name_the_last_and_the_best(tmp_path):
    store = filled(tmp_path, 2)
    store.save(state(9), epoch=9, step=90, fitness=0.5)
    assert (tmp_path / "last").read_text() == "epoch-0009-step-000090\n"
    assert (tmp_path / "best").read_text() == "epoch-0001-step-000010\n"


def test_pointers_are_never_the_truth(tmp_path):
    filled(tmp_path, 2)
    for pointer in ("last", "best"):
        (tmp_path / pointer).write_bytes(b"\xff nonsense")
    assert CheckpointStore(tmp_path).checkpoints.best().manifest.epoch == 1
    assert checkpoint(tmp_path, "last").manifest.epoch == 1


def test_best_by_another_metric_needs_a_mode_or_a_rule(tmp_path):
    store = CheckpointStore(tmp_path)
    for epoch, loss in enumerate([0.5, 0.2, 0.4]):
        store.save({}, epoch=epoch, step=epoch, metrics={"val/loss": loss})
    with pytest.raises(ArgumentError, match="mode='min'"):
        store.checkpoints.best("val/loss")
    assert store.checkpoints.best("val/loss", mode="max").manifest.epoch == 0
    store.keep("x", Keep(best=1, metric="val/loss", mode="min"))
    assert store.checkpoints.best("val/loss").manifest.epoch == 1
    assert store.checkpoints.best() is None


def test_a_resumed_store_does_not_lose_a_better_best(tmp_path):
    for fitnesses in ([0.1, 0.9, 0.3], [0.2, 0.4]):
        store = CheckpointStore(tmp_path)
        store.keep("c", Keep(last=1, best=1))
        for epoch, fitness in enumerate(fitnesses):
            store.save(state(epoch), epoch=epoch, step=epoch, fitness=fitness, asked_by=["c"])
    assert [one.manifest.fitness for one in CheckpointStore(tmp_path).checkpoints] == [0.9, 0.4]


def test_the_one_resumed_from_stays_until_a_newer_one_is_verified(tmp_path):
    store = filled(tmp_path, 1, asked_by=["c"])
    store.keep("c", Keep(last=1))
    first = store.checkpoints[0].manifest.name
    store.protect(first)
    store.save(state(1), epoch=1, step=10, asked_by=["c"], resume_point=False)
    store.save(state(2), epoch=2, step=20, asked_by=["c"], resume_point=False)
    assert [one.manifest.epoch for one in store.checkpoints] == [0, 2]
    store.save(state(3), epoch=3, step=30, asked_by=["c"])
    assert [one.manifest.epoch for one in store.checkpoints] == [3]
    assert names(tmp_path) == ["best", "epoch-0003-step-000030", "last"]


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json", "COMMIT"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_found_and_the_one_before_is_taken(name, damage, tmp_path, caplog):
    broken = filled(tmp_path).checkpoints.last.path
    damage(broken / name)
    with pytest.raises(CheckpointError, match=r"COMMIT|manifest\.json|state\.json|model|optimizer"):
        checkpoint(broken)
    store = CheckpointStore(tmp_path)
    with caplog.at_level(logging.ERROR, logger="epochal"):
        found = store.newest_resume_point()
    assert found.load("run") == {"number": 0}
    assert broken.name in caplog.text
    assert not broken.exists()
    assert broken.with_name(f".bad-{broken.name}").is_dir()
    assert [one.manifest.epoch for one in store.checkpoints] == [0]
    assert [one.manifest.epoch for one in CheckpointStore(tmp_path).checkpoints] == [0]


@pytest.mark.parametrize("name", FILES)
def test_every_single_byte_counts(name, tmp_path):
    saved = CheckpointStore(tmp_path).save(state(1, size=3), epoch=0, step=0)
    data = (saved.path / name).read_bytes()
    for place in range(0, len(data), 7):
        (saved.path / name).write_bytes(data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :])
        assert not saved.verify()
    (saved.path / name).write_bytes(data)
    assert saved.verify()


def test_a_newer_format_is_never_set_aside(tmp_path):
    saved = filled(tmp_path).checkpoints.last
    manifest = (saved.path / "manifest.json").read_bytes().replace(b'"format": 2', b'"format": 3')
    (saved.path / "manifest.json").write_bytes(manifest)
    (saved.path / "COMMIT").write_bytes(commit_text(manifest))
    with pytest.raises(CheckpointError, match="pip install -U epochal"):
        CheckpointStore(tmp_path).newest_resume_point()
    assert saved.path.is_dir()


def test_when_all_are_damaged_nothing_is_taken(tmp_path):
    for saved in filled(tmp_path, 3).checkpoints:
        flip(saved.path / "state.json")
    assert CheckpointStore(tmp_path).newest_resume_point() is None
    with pytest.raises(CheckpointError, match=r"no committed checkpoint.*\n.*set aside as damaged"):
        checkpoint(tmp_path)


def test_resume_never_picks_what_is_no_resume_point(tmp_path):
    store = filled(tmp_path, 1)
    store.save(state(1), epoch=1, batch=3, step=13, resume_point=False)
    assert store.newest_resume_point().manifest.epoch == 0


def test_folders_of_others_are_passed_over(tmp_path):
    store = filled(tmp_path, 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / ".hidden").mkdir()
    assert len(CheckpointStore(tmp_path).checkpoints) == 1
    shutil.copytree(store.checkpoints[0].path, tmp_path / "copied-by-hand")
    again = CheckpointStore(tmp_path)
    assert sorted(one.manifest.name for one in again.checkpoints) == ["copied-by-hand", "epoch-0000-step-000000"]


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    mine = temporary_name("save")
    pid, token, host = mine.split("-")[2:5]
    other = temporary_name("save").replace(f"-{pid}-", f"-{os.getppid()}-")
    of_dead = [mine.replace(f"-{pid}-", f"-{dead.stdout.strip()}-"), mine.replace(token, "00ff")]
    abroad = mine.replace(f"-{token}-", "-00ff-").replace(host, "elsewhere")
    for name in (mine, other, *of_dead, abroad, ".tmp-of-somebody"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    CheckpointStore(tmp_path)
    assert names(tmp_path) == sorted([mine, other, abroad, ".tmp-of-somebody"])


def test_opening_for_reading_removes_nothing(tmp_path):
    filled(tmp_path, 1)
    leftover = tmp_path / temporary_name("save").replace(str(os.getpid()), "999999999")
    leftover.mkdir()
    checkpoint(tmp_path)
    assert leftover.exists()
    remove_leftovers(tmp_path)
    assert not leftover.exists()


@pytest.mark.parametrize("moment", ["write", "fsync", "rename", "interrupt"])
def test_any_error_leaves_no_trace_and_the_older_ones_as_they_were(moment, tmp_path, monkeypatch):
    store = filled(tmp_path, 1)
    before = names(tmp_path)
    real = os.rename

    def fail(*_):
        raise KeyboardInterrupt if moment == "interrupt" else OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        if moment == "write":
            patch.setattr(committing.zlib, "crc32", fail)
        elif moment == "fsync":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(os, "rename", fail)
        with pytest.raises(KeyboardInterrupt if moment == "interrupt" else CheckpointError) as caught:
            store.save(state(1), epoch=1, step=1)
    assert os.rename is real
    if moment != "interrupt":
        assert "Input/output error" in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == before
    assert store.checkpoints.last.verify()
    assert store.save(state(1), epoch=1, step=1).verify()


def test_a_parent_that_cannot_be_synced_is_a_failed_save(tmp_path, monkeypatch):
    store = filled(tmp_path, 1)
    before, real = names(tmp_path), committing.sync_folder

    def fail_on_parent(folder):
        if folder == tmp_path:
            raise OSError(5, "Input/output error")
        real(folder)

    monkeypatch.setattr(committing, "sync_folder", fail_on_parent)
    with pytest.raises(CheckpointError):
        store.save(state(1), epoch=1, step=1)
    assert names(tmp_path) == before


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    done = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name), sync(handle))
    )
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append("rename"), rename(old, new)))
    store.save(state(1), epoch=0, step=0)
    folder = next(name for name in done if name.startswith(".tmp"))
    assert set(done[:3]) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert done[3:] == [
        "manifest.json",
        "COMMIT",
        folder,
        "rename",
        tmp_path.name,
    ]


def test_a_full_disk_costs_the_new_checkpoint_only(small_disk):
    store = filled(small_disk / "run")
    before = names(small_disk / "run")
    with pytest.raises(CheckpointError, match=r"No space left on device.*keep fewer") as caught:
        store.save(state(2, size=200_000), epoch=2, step=20)
    assert str(small_disk) in str(caught.value)
    assert names(small_disk / "run") == before
    assert all(one.verify() for one in CheckpointStore(small_disk / "run").checkpoints)
    assert store.save(state(2), epoch=2, step=20).load("run") == {"number": 2}


def test_a_disk_that_fills_to_the_last_byte_breaks_nothing(small_disk):
    store = CheckpointStore(small_disk)
    store.keep("c", Keep(last=1))
    failed = 0
    with open(small_disk / "ballast", "wb", buffering=0) as ballast:
        for number in range(300):
            with contextlib.suppress(OSError):
                ballast.write(b"x" * 4096)
            try:
                store.save(state(number), epoch=number, step=number, asked_by=["c"])
            except CheckpointError:
                failed += 1
            found = CheckpointStore(small_disk).newest_resume_point()
            assert found.load("run")["number"] == found.manifest.epoch
    assert failed > 10


def test_a_disk_that_became_read_only_can_be_read_and_says_what_to_do(small_disk, caplog):
    store = filled(small_disk)
    flip(store.checkpoints.last.path / "state.json")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(CheckpointError, match=r"Read-only file system.*make the folder writable"):
        store.save(state(2), epoch=2, step=20)
    assert CheckpointStore(small_disk).newest_resume_point().load("run") == {"number": 0}
    assert "could not be set aside" in caplog.text


def test_a_file_size_limit_is_an_error_that_breaks_nothing(tmp_path):
    store = filled(tmp_path, 1)
    before = names(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            store.save(state(1, size=100_000), epoch=1, step=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == before


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"save elsewhere \(dir=\)"):
        CheckpointStore(tmp_path / "file" / "checkpoints").save({}, epoch=0, step=0)
    assert names(tmp_path) == ["file"]


def test_what_cannot_be_encoded_touches_no_disk(tmp_path):
    store = CheckpointStore(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"cannot save run\['f'\]"):
        store.save({"run": {"f": print}}, epoch=0, step=0)
    with pytest.raises(ArgumentError, match="cannot be named"):
        store.save({"../run": {}}, epoch=0, step=0)
    assert names(tmp_path) == []


def test_no_file_of_the_package_knows_how_to_execute_what_it_reads():
    for path in SOURCE.glob("*.py"):
        text = path.read_text()
        assert not [
            word
            for word in ("pickle", "torch.load(", "torch.save(", "marshal", "eval(", "exec(", "shelve", "allow_pickle")
            if word in text
        ]


@pytest.mark.parametrize(
    "node",
    [
        {"$": "object", "module": "os", "name": "system", "args": ["touch hacked"]},
        {"$": "torch", "kind": "dtype", "value": "load"},
        {"$": "array", "key": "x", "dtype": "|O"},
        {"$": "scalar", "dtype": "|O", "base64": "AAAAAAAAAAA="},
        {"$": "scalar", "dtype": "ml_dtypes.__loader__", "base64": ""},
        {"$": "path", "kind": "__class__", "value": "x"},
        {"$": "tensor", "key": "../x"},
        {"$": "OrderedDict", "items": [], "attributes": 3},
        {"$": ["unhashable"]},
    ],
)
def test_a_poisoned_state_is_an_error_and_runs_nothing(node, tmp_path):
    saved = CheckpointStore(tmp_path).save({"run": {"x": 1}}, epoch=0, step=0)
    (saved.path / "state.json").write_text(json.dumps({"format": 1, "parts": {"run": node}}))
    fresh = CheckpointStore(tmp_path).checkpoints.last
    with pytest.raises(CheckpointError):
        fresh.load("run")
    assert not Path("hacked").exists()


def test_a_poisoned_weight_file_is_not_unpickled(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, ("hacked",))

    saved = filled(tmp_path, 1).checkpoints.last
    (saved.path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        saved.load("model")
    with pytest.raises(CheckpointError):
        checkpoint(saved.path)
    assert not Path("hacked").exists()


def test_a_script_that_changes_its_directory_saves_where_it_began(tmp_path, monkeypatch):
    store = CheckpointStore("run")
    filled("run", 1)
    monkeypatch.chdir("/")
    store.save(state(1), epoch=5, step=5)
    assert len(names(tmp_path / "run")) == 4
