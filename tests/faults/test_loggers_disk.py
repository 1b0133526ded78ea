"""A disk that is full, a folder that is deleted: the training does every step, and it is said once."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from epochal.core.callback import Callback
from epochal.loggers.csv import CSVLogger
from epochal.loggers.json import JSONLogger
from epochal.loggers.tensorboard import TensorBoardLogger
from epochal.testing import simulate

MAKE = {
    "csv": lambda folder: CSVLogger(folder / "metrics.csv"),
    "json": lambda folder: JSONLogger(folder / "metrics.jsonl", every=1),
    "tensorboard": TensorBoardLogger,
}

FULL = """
import logging, sys
from pathlib import Path
from tests.faults.test_loggers_disk import MAKE, Noise
from epochal.loggers.csv import CSVLogger
from epochal.testing import simulate

if sys.argv[3] == "limit":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
full = Path(sys.argv[2])
logger, noise = MAKE[sys.argv[1]](full), Noise()
healthy = [CSVLogger("healthy.csv")] if sys.argv[3] == "tmpfs" else []
result = simulate([logger, *healthy, noise], [{"val/loss": 1.0}] * 30, batches=20)
print("STEPS", noise.steps, result.end_reason)
print("NOTES", result.run.past[-1].notes)
"""


class Noise(Callback):
    """Logs much: incompressible names, so that files grow."""

    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, run):
        self.steps += 1
        run.log({f"train/a-rather-long-name-to-fill-the-disk-sooner-{run.epoch}-{n}": run.step / 3 for n in range(4)})

    def on_fit_epoch_end(self, run):
        import time

        time.sleep(0.02)  # lets the writers see more than one batch


@pytest.fixture
def full_disk(request, tmp_path):
    """A disk of 20 KiB, a tiny tmpfs, where that may be mounted; or a limit on the size of files."""
    folder = tmp_path / "full"
    folder.mkdir()
    if request.param == "limit":
        yield folder, "limit"
        return
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder, "tmpfs"
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("full_disk", ["tmpfs", "limit"], indirect=True)
@pytest.mark.parametrize("kind", MAKE)
def test_a_full_disk_neither_stops_nor_fails_a_training(kind, full_disk, tmp_path):
    folder, how = full_disk
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", FULL, kind, str(folder), how],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "STEPS 600 completed" in done.stdout
    assert done.stdout.count("ERROR ") == 1, "it is reported once"
    errno = "No space left on device" if how == "tmpfs" else "File too large"
    assert errno in done.stdout.partition("NOTES")[2]
    assert "were not written" in done.stdout.partition("NOTES")[2]
    if how == "tmpfs":
        assert len((tmp_path / "healthy.csv").read_text().splitlines()) == 31


@pytest.mark.parametrize("kind", MAKE)
def test_a_deleted_folder_is_begun_anew_and_said_once(kind, tmp_path, caplog):
    folder = tmp_path / "logs"

    class Delete(Callback):
        def on_train_epoch_start(self, run):
            if run.epoch == 3:
                while not folder.exists() or not any(folder.iterdir()):
                    time.sleep(0.01)  # what was logged before is on its way
                shutil.rmtree(folder)

    result = simulate([MAKE[kind](folder), CSVLogger("healthy.csv"), Delete()], [{"val/loss": 1.0}] * 6, dir=tmp_path)
    assert result.epochs_run == 6
    assert [one.name for one in folder.iterdir()]
    errors = [one for one in caplog.records if one.levelname == "ERROR"]
    assert len(errors) == 1
    note = result.run.past[-1].notes[0]
    assert "was deleted" in note or "No such file" in note  # as the writer notices it between two writes, or in one
    assert len((tmp_path / "healthy.csv").read_text().splitlines()) == 7
