"""MLflowLogger: a real SQLite store and a real server, read back with MLflow's own client."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy
import pytest

from epochal.core.callback import Callback
from epochal.core.errors import MissingExtra
from epochal.loggers import mlflow as module
from epochal.loggers import mlflow_client
from epochal.loggers.mlflow import MLflowLogger
from epochal.testing import simulate

mlflow = pytest.importorskip("mlflow")
EPOCHS = [{"val/loss": 2.0, "metrics/mAP50(B)": 0.25}, {"val/loss": 1.0, "metrics/mAP50(B)": 0.5}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite store for all tests of this file: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    logger = MLflowLogger(f"sqlite:///{folder}/mlflow.db", experiment="warm-up")
    assert simulate([logger], [{"x": 1.0}]).run.past[-1].notes == ()
    return logger.uri


@pytest.fixture
def client(store):
    return mlflow.MlflowClient(store)


class BatchLoss(Callback):
    def on_train_start(self, run):
        run.log_params({"lr": 0.1, "note": "x" * 7000, "optimizer": "SGD"})

    def on_train_batch_end(self, run):
        run.log({"train/loss": float(run.step)})


def history(client, logger, key):
    return sorted((one.step, one.value) for one in client.get_metric_history(logger.run_id, key))


def test_metrics_params_and_tags_are_in_the_store(store, client, tmp_path):
    logger = MLflowLogger(store, experiment="one", run_name="mine", tags={"team": "vision"})
    result = simulate([logger, BatchLoss()], EPOCHS, batches=2, lr=0.5, dir=tmp_path)
    assert result.run.past[-1].notes == ()
    run = client.get_run(logger.run_id)
    assert run.info.run_name == "mine"
    assert client.get_experiment(run.info.experiment_id).name == "one"
    assert history(client, logger, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert history(client, logger, "epoch/train/loss") == [(2, 1.5), (4, 3.5)]
    assert history(client, logger, "val/loss") == [(2, 2), (4, 1)]
    assert history(client, logger, "metrics/mAP50_B") == [(2, 0.25), (4, 0.5)]
    assert history(client, logger, "lr/pg0") == [(2, 0.5), (4, 0.5)]
    assert (run.data.params["lr"], run.data.params["optimizer"]) == ("0.1", "SGD")
    assert run.data.tags["team"] == "vision"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("completed", "FINISHED"),
        ("stopped", "FINISHED"),
        ("exception", "FAILED"),
        ("interrupted", "KILLED"),
        ("preempted", "KILLED"),
    ],
)
def test_runs_end_truthfully(how, status, store, client):
    class Preempted(BaseException):
        """Named as the error that a signal raises."""

    class End(Callback):
        def on_train_batch_end(self, run):
            if how == "stopped":
                run.stop("enough")
            elif how != "completed":
                raise {"exception": ValueError, "interrupted": KeyboardInterrupt, "preempted": Preempted}[how]

    logger = MLflowLogger(store, experiment="ends")
    try:
        simulate([logger, End()], EPOCHS)
    except (ValueError, KeyboardInterrupt, Preempted):
        assert status != "FINISHED"
    run = client.get_run(logger.run_id)
    assert run.info.status == status
    assert run.info.end_time is not None
    assert run.data.tags["epochal.end_reason"] == how


def test_a_resumed_training_goes_on_in_the_same_run_and_a_new_one_does_not(store, client, tmp_path):
    logger = MLflowLogger(store, experiment="resume")
    first = simulate([logger, BatchLoss()], EPOCHS[:1], dir=tmp_path)
    state = {"run": first.run.engine.state_dict(), "callbacks": first.run.roster.states()}
    again = MLflowLogger(store, experiment="resume")
    result = simulate([again, BatchLoss()], EPOCHS, dir=tmp_path, state=state)
    assert result.run.past[-1].notes == ()
    assert again.run_id == logger.run_id
    assert history(client, again, "val/loss") == [(1, 2), (2, 1)]
    assert client.get_run(again.run_id).info.status == "FINISHED"
    simulate([again, BatchLoss()], EPOCHS, dir=tmp_path)
    assert again.run_id != logger.run_id


def test_a_run_that_the_store_does_not_know_is_begun_anew(store, client, tmp_path, caplog):
    logger = MLflowLogger(store, experiment="resume")
    first = simulate([logger, BatchLoss()], EPOCHS[:1], dir=tmp_path)
    states = {name: {"run_id": "0" * 32} if "run_id" in one else one for name, one in first.run.roster.states().items()}
    again = MLflowLogger(store, experiment="resume")
    state = {"run": first.run.engine.state_dict(), "callbacks": states}
    assert simulate([again], EPOCHS, dir=tmp_path, state=state).run.past[-1].notes == ()
    assert history(client, again, "val/loss") == [(2, 1)]
    assert "MLflow has no run 000" in caplog.text


def test_images_and_texts_are_artifacts(store, client, tmp_path):
    class Images(Callback):
        def on_fit_epoch_end(self, run):
            run.log_image("val/picture", numpy.zeros((4, 5), dtype=numpy.uint8))
            run.log_text("../samples (5)", f"after {run.step}")

    logger = MLflowLogger(store, experiment="images")
    simulate([logger, Images()], EPOCHS)
    found = [one.path for one in client.list_artifacts(logger.run_id, "images/val/picture")]
    assert found == ["images/val/picture/step-1.png", "images/val/picture/step-2.png"]
    kept = client.download_artifacts(logger.run_id, "texts/samples _5/step-2.txt", str(tmp_path))
    assert Path(kept).read_text() == "after 2"


def test_the_embedded_store_is_one_for_all_runs_and_leaves_no_traces(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_client, "configured_uri", lambda: None)
    monkeypatch.setattr(module, "configured_uri", lambda: None)
    before = dict(os.environ)
    logger, runs = MLflowLogger(), tmp_path / "runs"
    ids = []
    for _ in range(2):
        assert simulate([logger], EPOCHS, dir=runs).run.past[-1].notes == ()
        ids.append(logger.run_id)
    assert dict(os.environ) == before
    assert not (tmp_path / "mlruns").exists()
    client = mlflow.MlflowClient(f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("epochal")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)
    assert experiment.artifact_location == (runs / "mlartifacts").as_uri()


def test_the_environment_names_the_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert mlflow_client.configured_uri() == "http://tracking.example:5000"
    assert not MLflowLogger().needs_folder()


def test_a_missing_package_names_the_cure(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[mlflow\]"'):
        MLflowLogger()


@pytest.mark.slow
def test_a_real_server_end_to_end(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    server = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(f"{uri}/health", server)

        class Images(Callback):
            def on_fit_epoch_end(self, run):
                run.log_image("picture", numpy.zeros((4, 5), dtype=numpy.uint8))

        logger = MLflowLogger(uri, experiment="served", flush_limit=60.0)
        result = simulate([logger, BatchLoss(), Images()], EPOCHS, batches=2)
        assert result.run.past[-1].notes == ()
        client = mlflow.MlflowClient(uri)
        assert client.get_run(logger.run_id).info.status == "FINISHED"
        assert history(client, logger, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4)]
        assert [one.path for one in client.list_artifacts(logger.run_id, "images/picture")] == [
            "images/picture/step-2.png", "images/picture/step-4.png",
        ]  # fmt: skip
    finally:
        stop(server)


def wait_for(url, server, patience=150.0):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server did not start")


def stop(server):
    import signal

    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def test_what_layers_measured_is_there_with_the_step_it_is_from(store, client, tmp_path):
    from epochal.core.metrics import At

    class Late(Callback):
        def on_train_batch_end(self, run):
            run.engine.publish("layers", {"gradient/conv.weight": run.step / 2}, At(run.epoch, run.batch, run.step - 1))

    logger = MLflowLogger(store, experiment="layers")
    simulate([logger, BatchLoss(), Late()], EPOCHS, batches=2, dir=tmp_path)
    assert history(client, logger, "gradient/conv.weight") == [(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0)]
    assert history(client, logger, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_values_sent_to_a_server_are_the_clients_own_request():
    from types import SimpleNamespace

    from google.protobuf.json_format import ParseDict
    from mlflow.entities import Metric
    from mlflow.protos.service_pb2 import LogBatch
    from mlflow.store.tracking.rest_store import RestStore

    from epochal.loggers.mlflow_client import Value, log_values, sends_json

    class Sent(RestStore):
        def __init__(self):
            self.bodies = []

    values = [Value("a/b", one, 1_700_000_000_123, 7) for one in (0.1, 3.0, float("nan"), float("inf"), -float("inf"))]
    ours, own = Sent(), Sent()
    assert sends_json(ours)
    usual = RestStore._call_endpoint
    try:
        RestStore._call_endpoint = lambda self, api, body: self.bodies.append(ParseDict(json.loads(body), api()))
        log_values(SimpleNamespace(_tracking_client=SimpleNamespace(store=ours)), "r", values)
        own.log_batch("r", [Metric(*value) for value in values], [], [])
    finally:
        RestStore._call_endpoint = usual
    assert str(ours.bodies[0]) == str(own.bodies[0])
    assert isinstance(ours.bodies[0], LogBatch)
    assert not sends_json(mlflow.MlflowClient("sqlite:///other.db")._tracking_client.store)
