"""WandbLogger: offline runs, read back from W&B's own file and listed by `wandb sync`."""

import json
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest

from epochal import Callback
from epochal.core.errors import ArgumentError, MissingExtra
from epochal.loggers import wandb as module
from epochal.loggers.wandb import WandbLogger
from epochal.testing import simulate

wandb = pytest.importorskip("wandb")
EPOCHS = [{"val/loss": 2.0}, {"val/loss": 1.0}]


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "is_logged_in", lambda _: False)


class Logs(Callback):
    def on_train_start(self, run):
        run.log_params({"lr": 0.1, "betas": (0.9, 0.999)})

    def on_train_batch_end(self, run):
        run.log({"train/loss": 1 / run.step})

    def on_fit_epoch_end(self, run):
        run.log_image("picture", numpy.zeros((4, 5), dtype=numpy.uint8))


def records(file):
    """The records of a W&B file: LevelDB's log format behind a head of 7 bytes, protocol buffers inside."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = Path(file).read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(folder):
    rows = []
    for file in sorted(Path(folder).glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in items})
    return rows


def curve(rows, name):
    return [(row["step"], row[name]) for row in rows if name in row]


def test_an_offline_run_holds_metrics_over_the_step_params_images_and_the_end(tmp_path):
    result = simulate([WandbLogger("digits", dir=tmp_path / "w"), Logs()], EPOCHS, batches=2, dir=tmp_path)
    assert result.run.past[-1].notes == ()
    rows = history(tmp_path / "w")
    assert curve(rows, "train/loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert curve(rows, "val/loss") == [(2, 2), (4, 1)]
    assert curve(rows, "epoch/train/loss") == [(2, 0.75), (4, pytest.approx(7 / 24))]
    assert [row["step"] for row in rows if any(name.startswith("picture") for name in row)] == [2, 4]
    (file,) = (tmp_path / "w").glob("wandb/offline-run-*/*.wandb")
    by_kind = {record.WhichOneof("record_type"): record for record in records(file)}
    assert by_kind["exit"].exit.exit_code == 0
    run = next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")
    assert run.project == "digits"
    config = [one for record in records(file) for one in (*record.config.update, *record.run.config.update)]
    assert {one.key: json.loads(one.value_json) for one in config}["betas"] == [0.9, 0.999]
    assert len(list((tmp_path / "w").glob("wandb/offline-run-*/files/media/images/*.png"))) == 2


def test_wandb_sync_finds_the_run(tmp_path):
    simulate([WandbLogger(dir=tmp_path)], EPOCHS)
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert "Would sync 1 run(s)" in done.stderr + done.stdout


def test_a_failed_training_is_a_failed_run(tmp_path):
    class Fail(Callback):
        def on_train_batch_end(self, run):
            raise ValueError("no such luck")

    with pytest.raises(ValueError, match="luck"):
        simulate([WandbLogger(dir=tmp_path), Fail()], EPOCHS)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert [one.exit.exit_code for one in records(file) if one.WhichOneof("record_type") == "exit"] == [1]


def test_the_file_is_whole_though_wandbs_process_is_slow_to_close_it(tmp_path, monkeypatch):
    from wandb.sdk.lib.service.service_connection import ServiceConnection

    said = ServiceConnection.inform_finish

    def slow(service, run_id):
        """The training hears that the run is finished; W&B's process goes on half a second later."""
        process = service._proc._process  # W&B has no public name for its own process
        process.send_signal(signal.SIGSTOP)
        threading.Timer(0.5, process.send_signal, [signal.SIGCONT]).start()
        said(service, run_id)

    monkeypatch.setattr(ServiceConnection, "inform_finish", slow)
    result = simulate([WandbLogger(dir=tmp_path), Logs()], EPOCHS, batches=2)
    rows = history(tmp_path)
    assert curve(rows, "train/loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert result.run.past[-1].notes == ()


def test_a_run_of_the_users_own_is_left_alone(tmp_path):
    own = wandb.init(mode="offline", dir=str(tmp_path), project="own", settings=wandb.Settings(silent=True))
    try:
        simulate([WandbLogger(dir=tmp_path / "ours")], EPOCHS)
        assert wandb.run is own
    finally:
        own.finish()


def test_from_the_store_and_by_sync(tmp_path):
    torch = pytest.importorskip("torch")
    from epochal import Loop
    from epochal.commands.sync import sync

    with Loop(model=torch.nn.Linear(1, 1), callbacks=[WandbLogger("digits"), Logs()], name="a") as run:
        for _ in run.epochs(2):
            for _ in run.batches(range(3)):
                pass
    assert run.past[-1].notes == ()
    assert curve(history("runs/a"), "train/loss") == [(n, 1 / n) for n in range(1, 7)]
    with Loop(model=torch.nn.Linear(1, 1), callbacks=[Logs()], name="b") as run:
        for _ in run.epochs(1):
            for _ in run.batches(range(3)):
                pass
    assert sync(Path("runs/b"), "wandb")[0].ended == "finished"
    assert curve(history("runs/b"), "train/loss") == [(n, 1 / n) for n in range(1, 4)]


def test_wrong_arguments_and_a_missing_package_are_said(monkeypatch):
    with pytest.raises(ArgumentError, match="mode must be"):
        WandbLogger(mode="dryrun")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[wandb\]"'):
        WandbLogger()
