"""The power goes: what a save has returned for is on the disk itself.

An ext4 image is mounted, a process saves into it, and the image is copied while that process is stopped: what is in the
copy is what had reached the disk. The copy is mounted, as after the power came back. Run as a script, this file is the
process that saves.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from epochal.checkpointing.incremental import WORTH
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.store import CheckpointStore


@contextmanager
def mounted(image, folder):
    folder.mkdir(exist_ok=True)
    if (
        os.geteuid()
        or subprocess.run(["mount", "-o", "loop", image, folder], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount an image")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(32 << 20)
    if not shutil.which("mkfs.ext4") or subprocess.run(["mkfs.ext4", "-q", path], check=False).returncode:
        pytest.skip("needs mkfs.ext4")
    return path


def cut(image, where, *, sync):
    """Save until a random moment, copy the disk; return the copy and the number of the last save that had returned."""
    with mounted(image, where / "before") as disk:
        writer = subprocess.Popen([sys.executable, __file__, disk, sync], stdout=subprocess.PIPE, text=True)
        told = 0
        for _ in range(random.randint(5, 25)):
            told = int(writer.stdout.readline())
        writer.send_signal(signal.SIGSTOP)
        shutil.copyfile(image, where / "copy")
        writer.kill()
        writer.wait()
        writer.stdout.close()
    return where / "copy", told


@pytest.mark.parametrize("cuts", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_what_a_save_returned_for_survives_a_power_cut(cuts, image, tmp_path):
    lost_all = linked = 0
    for _ in range(cuts):
        copy, told = cut(image, tmp_path, sync="sync")
        with mounted(copy, tmp_path / "after") as disk:
            store = CheckpointStore(disk / "run")
            lost_all += not any(saved.verify() for saved in store.checkpoints)
            assert [str(saved.verify()) for saved in store.checkpoints if not saved.verify()] == []
            found = store.newest_resume_point()
            assert found.load("run")["number"] == found.manifest.step >= told
            assert found.load("model")["frozen"].min() == found.load("model")["frozen"].max() == 7.0
            assert list((disk / "run").glob(".bad-*")) == []
            linked += any(record.linked for record in found.manifest.files.values())
    assert lost_all == 0
    assert linked > cuts // 2  # what did not change is linked meanwhile, and just as safe


def test_without_fsync_this_test_would_fail(image, tmp_path):
    copy, told = cut(image, tmp_path, sync="no sync")
    with mounted(copy, tmp_path / "after") as disk:
        found = CheckpointStore(disk / "run").newest_resume_point()
        assert found is None or found.manifest.step < told


def save_forever(disk, sync):
    if sync == "no sync":
        os.fsync = lambda handle: None
    store = CheckpointStore(Path(disk) / "run")
    store.keep("loop", Keep(last=2))
    number = store.checkpoints.last.manifest.step if store.checkpoints.last else 0
    frozen = np.full(WORTH // 4, 7.0, dtype=np.float32)
    while True:
        number += 1
        parts = {"model": {"frozen": frozen}, "run": {"number": number, "ballast": bytes(random.randbytes(20_000))}}
        store.save(parts, epoch=number, step=number, asked_by=["loop"])
        print(number, flush=True)


if __name__ == "__main__":
    save_forever(sys.argv[1], sys.argv[2])
