"""`epochal checkpoints`: what it tells is true, in 80 columns, and it changes nothing."""

import json
import re

import pytest
import torch

from epochal.checkpointing.store import CheckpointStore

NAMES = ["epoch-0000-step-000010", "epoch-0001-step-000020"]


def rows(text):
    """Return the numbers of each row, and under them its lines."""
    return [line.split() for line in text.splitlines() if re.match(r" +\d", line)]


@pytest.mark.parametrize("how", ["path", "name", "latest"])
def test_they_are_listed_by_path_by_name_and_as_latest(two_checkpoints, epochal, how):
    done = epochal("checkpoints", {"path": str(two_checkpoints), "name": "mnist", "latest": "latest"}[how])
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith("epoch-")] == NAMES
    assert [row[:3] for row in rows(done.stdout)] == [["0", "-", "10"], ["1", "-", "20"]]
    assert ["committed, best, last, pinned" in line for line in lines if "committed" in line] == [False, True]
    assert lines[lines.index(NAMES[1]) + 1 :][:2] == ["Best(fitness)", "fitness 0.75, val/loss 0.25"]


def test_a_run_is_found_by_the_name_in_its_mark(two_checkpoints, epochal):
    (two_checkpoints / "run.json").write_text('{"name": "digits"}')
    done = epochal("checkpoints", "digits")
    assert done.returncode == 0, done.stderr


def test_a_yolo_run_is_found_by_its_save_dir_and_by_its_name(tmp_path, epochal):
    run = tmp_path / "runs" / "detect" / "train" / "epochal"
    CheckpointStore(run / "checkpoints").save({"run": {}}, epoch=0, step=1)
    (run / "run.json").write_text('{"name": "train"}')
    for how in ("runs/detect/train", "runs/detect/train/epochal", "train", "latest"):
        assert "epoch-0000-step-000001" in epochal("checkpoints", how).stdout


def test_sizes_tell_what_was_written_and_what_linked(tmp_path, epochal):
    store = CheckpointStore(tmp_path / "checkpoints")
    for number in range(3):
        saved = store.save({"model": {"w": torch.ones(1_000_000)}}, epoch=number, step=number)
    done = epochal("checkpoints", ".")
    state = saved.manifest.files["state.json"].size
    assert [row[3:7] for row in rows(done.stdout)[1:3]] == [["4.00", "MB", f"{state / 1000:.2f}", "kB"]] * 2
    assert done.stdout.splitlines()[-1] == "3 checkpoints, 4.00 MB on the disk"


def test_nothing_is_wider_than_80_columns(tmp_path, epochal):
    store = CheckpointStore(tmp_path / "checkpoints")
    metrics = {f"metrics/mAP50-95({name}) of a long name": float("nan") for name in "ABCDEF"}
    store.save({}, epoch=12345, batch=1234567, step=123456789, metrics=metrics, reason="because " * 30, fitness=-0.0)
    done = epochal("checkpoints", ".")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "fitness 0," in done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())


def test_verify_names_the_damaged_one_and_fails(two_checkpoints, epochal):
    assert epochal("checkpoints", "mnist", "--verify").returncode == 0
    victim = next((two_checkpoints / "checkpoints").glob("epoch-0001*/state.json"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    assert epochal("checkpoints", "mnist").returncode == 0  # a listing does not read the files
    done = epochal("checkpoints", "mnist", "--verify")
    assert done.returncode == 2
    assert "epoch-0001-step-000020" in done.stderr
    assert "damaged epoch-0001-step-000020: state.json is damaged: crc32:" in done.stdout
    assert len(re.findall("verified", done.stdout)) == 1


def test_what_was_set_aside_is_listed_with_why(two_checkpoints, epochal):
    folder = two_checkpoints / "checkpoints"
    (folder / NAMES[0] / "COMMIT").unlink()
    (folder / NAMES[0]).rename(folder / f".bad-{NAMES[0]}")
    CheckpointStore(folder).save({}, epoch=2, step=30)
    (folder / "epoch-0002-step-000030").rename(folder / ".left-epoch-0002-step-000030")
    done = epochal("checkpoints", "mnist")
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert f"set aside .bad-{NAMES[0]}: COMMIT is missing: it was never finished" in said
    assert "set aside .left-epoch-0002-step-000030: the run went on from an earlier one" in said


def test_one_of_a_newer_format_is_told_and_left(two_checkpoints, epochal):
    from epochal.checkpointing.commit import commit_text

    path = two_checkpoints / "checkpoints" / NAMES[1]
    manifest = json.loads((path / "manifest.json").read_text())
    data = json.dumps({**manifest, "format": 99}).encode()
    (path / "manifest.json").write_bytes(data)
    (path / "COMMIT").write_bytes(commit_text(data))
    done = epochal("checkpoints", "mnist")
    assert done.returncode == 2
    assert "written in checkpoint format 99" in " ".join(done.stdout.split())


def test_listing_changes_nothing(two_checkpoints, epochal):
    def tree():
        return {path: path.stat().st_mtime_ns for path in two_checkpoints.rglob("*")}

    before = tree()
    epochal("checkpoints", "mnist", "--verify")
    assert tree() == before
