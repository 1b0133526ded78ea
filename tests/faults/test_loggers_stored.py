"""MLflow servers that refuse, hang, fail or come back, behind a run's store: nothing is lost, ends are truthful."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from epochal.commands.sync import sync
from epochal.core.callback import Callback
from epochal.core.errors import EpochalError
from epochal.loggers.cursor import all_cursors
from epochal.loggers.mlflow import MLflowLogger, MLflowWriter
from epochal.loggers.worker import Limits
from epochal.runs.stored import StoredRun
from tests.faults.test_loggers_servers import BAD, BOUND, server

torch = pytest.importorskip("torch")
mlflow = pytest.importorskip("mlflow")
from epochal import Loop  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = list(range(1, 16))


class QuickLogger(MLflowLogger):
    """Looks into the store more often than users need."""

    limits = Limits(pause=0.05, longest_pause=0.2)


class Steps(Callback):
    def __init__(self, fn=lambda run: None):
        self.fn = fn

    def on_train_batch_end(self, run):
        run.log({"train/loss": float(run.step)})
        self.fn(run)


@pytest.fixture(autouse=True)
def _without_long_pauses(monkeypatch):
    monkeypatch.setattr("epochal.commands.sync.PAUSE", 0.05)


def train(*callbacks, epochs=3, batches=5, **options):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, name="a", **options) as run:
        for epoch in run.epochs(epochs):
            for _ in run.batches(range(batches)):
                pass
            with run.validation():
                run.log({"val/loss": 1 / (epoch + 1)})
    return run


def of(made, name):
    """What a server has of a metric, each point once."""
    return sorted({(step, value) for key, step, value in made.metrics if key == name})


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_server_costs_no_step_and_what_it_lacks_is_brought_later(kind, caplog):
    with BAD[kind]() as (_, uri):
        begun = time.monotonic()
        run = train(QuickLogger(uri), Steps())
        assert time.monotonic() - begun < BOUND
    (note,) = run.past[-1].notes
    assert "points wait in the run's store; `epochal sync runs/a` will bring them" in note
    with pytest.raises(EpochalError, match=r"points still wait .* run this again later"):
        sync(Path("runs/a"))
    with server() as (made, uri):
        (done,) = sync(Path("runs/a"), uri=uri)
        assert of(made, "train/loss") == [(step, float(step)) for step in STEPS]
        assert [step for step, _ in of(made, "val/loss")] == [5, 10, 15]
        assert (made.status[-1], done.ended) == ("FINISHED", "finished")
        assert done.points == sum(1 for _ in STEPS) + 3 + 3 * 4
        assert sync(Path("runs/a"), uri=uri)[0].points == 0
    assert len([one for one in caplog.records if one.levelname == "ERROR" and "MLflowLogger" not in one.message]) <= 2


def test_a_server_that_returns_during_the_training_gets_everything_once_and_in_order():
    with server(broken=True) as (made, uri):

        def come_back(run):
            if run.step == 8:
                assert made.asked.wait(BOUND)
                made.broken = False

        run = train(QuickLogger(uri, flush_limit=BOUND), Steps(come_back))
        assert [value for key, _, value in made.metrics if key == "train/loss"] == STEPS
        assert made.status[-1] == "FINISHED"
    assert "then all records were written" in run.past[-1].notes[0]


def test_what_was_sent_twice_after_an_error_counts_once_in_a_real_store(monkeypatch):
    uri = f"sqlite:///{Path.cwd()}/mlflow.db"
    real, tries = MLflowWriter.write, Counter()

    def accepted_and_not_said(self, records):
        real(self, records)
        tries["all"] += 1
        if tries["all"] % 2:
            raise ConnectionResetError("the answer was lost")

    monkeypatch.setattr(MLflowWriter, "write", accepted_and_not_said)
    logger = QuickLogger(uri)
    train(logger, Steps())
    monkeypatch.setattr(MLflowWriter, "write", real)
    sync(Path("runs/a"))
    client = mlflow.MlflowClient(uri)
    assert [one.step for one in client.get_metric_history(logger.run_id, "train/loss")] == STEPS
    assert len(client.search_runs([client.get_run(logger.run_id).info.experiment_id])) == 1
    assert tries["all"] > 1


def test_another_server_gets_the_whole_run():
    with server() as (_, uri):
        train(QuickLogger(uri), Steps())
    other = f"sqlite:///{Path.cwd()}/other.db"
    (done,) = sync(Path("runs/a"), uri=other)
    client = mlflow.MlflowClient(other)
    (run,) = client.search_runs([client.get_experiment_by_name("epochal").experiment_id])
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train/loss")] == STEPS
    assert (run.info.status, done.ended) == ("FINISHED", "finished")


def test_a_resumed_training_goes_on_in_the_same_run():
    from epochal import Checkpoint, Every

    uri = f"sqlite:///{Path.cwd()}/mlflow.db"

    def fail(run):
        if run.step == 8:
            raise ValueError("here it ends")

    first, again = QuickLogger(uri), QuickLogger(uri)
    with pytest.raises(ValueError, match="here it ends"):
        train(first, Checkpoint(when=Every(epochs=1)), Steps(fail))
    client = mlflow.MlflowClient(uri)
    assert client.get_run(first.run_id).info.status == "FAILED"
    train(again, Checkpoint(when=Every(epochs=1)), Steps(), resume=True)
    assert again.run_id == first.run_id
    assert {one.step for one in client.get_metric_history(again.run_id, "train/loss")} == set(STEPS)
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_a_password_in_an_address_is_neither_shown_nor_kept(caplog, capfd):
    with server() as (made, uri):
        secret = uri.replace("://", "://me:hunter2@")
        run = train(QuickLogger(secret), Steps())
        assert of(made, "train/loss") == [(step, float(step)) for step in STEPS]
    assert b"hunter2" not in (run.dir / "run.db").read_bytes()
    shown = "".join(capfd.readouterr())
    assert "View run" not in shown, "MLflow prints addresses"
    assert "hunter2" not in shown + caplog.text + str(run.past) + repr(all_cursors(run.dir / "run.db"))
    with pytest.raises(EpochalError, match=r"the password of http://me:\*\*\*@"):
        sync(run.dir)


KILLED = """
import sys, time, torch
from epochal import Loop, MLflowLogger
with Loop(model=torch.nn.Linear(1, 1), callbacks=[MLflowLogger(sys.argv[1])], dir="runs", name="a") as run:
    for epoch in run.epochs(10**6):
        for batch in run.batches(range(100)):
            run.log({"train/loss": float(run.step)})
            time.sleep(0.002)
        print(run.step, "mlflow" in sys.modules, flush=True)
"""


@pytest.mark.slow  # test_loggers_apart.py has the same without MLflow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_training_ends_as_failed_by_itself_and_its_python_never_saw_mlflow():
    with server() as (made, uri):
        training = subprocess.Popen(
            [sys.executable, "-c", KILLED, uri], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert made.asked.wait(BOUND)
        for _ in range(5):
            assert training.stdout.readline().endswith("False\n")
        assert made.status in ([], ["RUNNING"])
        training.send_signal(signal.SIGKILL)
        training.wait()
        training.stdout.close()
        end = time.monotonic() + BOUND
        while made.status[-1:] != ["FAILED"] and time.monotonic() < end:
            time.sleep(0.05)
        assert made.status[-1] == "FAILED"
        run = StoredRun(Path("runs/a"))
        assert [step for step, _ in of(made, "train/loss")] == list(run.points("train/loss").steps)
        while all_cursors(run.file)[0].is_held() and time.monotonic() < end:
            time.sleep(0.05)
        (done,) = sync(run.path)
        assert (done.points, done.ended) == (0, "crashed")


def test_a_training_with_its_logger_in_a_process_ends_well():
    with server() as (made, uri):
        logger = MLflowLogger(uri.replace("://", "://me:hunter2@"), flush_limit=BOUND)
        run = train(logger, Steps())
        assert of(made, "train/loss") == [(step, float(step)) for step in STEPS]
        assert made.status[-1] == "FINISHED"
    assert run.past[-1].notes == ()
    assert logger.run_id == "r"
    assert b"hunter2" not in (run.dir / "run.db").read_bytes()


@pytest.mark.slow
def test_a_real_server_that_starts_after_the_training_has_all_of_it(tmp_path):
    from tests.loggers.test_mlflow import stop, wait_for

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    run = train(QuickLogger(uri, experiment="late"), Steps())
    assert "will bring them" in run.past[-1].notes[0]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    started = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(f"{uri}/health", started)
        sync(run.dir)
        client = mlflow.MlflowClient(uri)
        (found,) = client.search_runs([client.get_experiment_by_name("late").experiment_id])
        assert [one.step for one in client.get_metric_history(found.info.run_id, "train/loss")] == STEPS
        assert found.info.status == "FINISHED"
    finally:
        stop(started)
