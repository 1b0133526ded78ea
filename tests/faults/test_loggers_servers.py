"""MLflow servers that refuse, hang, fail or come back, and its real stores: none of them costs a training a step."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from epochal.core.callback import Callback
from epochal.loggers.csv import CSVLogger
from epochal.loggers.mlflow import MLflowLogger
from epochal.loggers.worker import Limits
from epochal.testing import simulate

mlflow = pytest.importorskip("mlflow")
EPOCHS = [{"val/loss": 3.0}, {"val/loss": 2.0}, {"val/loss": 1.0}]
BOUND = 60.0  # seconds; generous: MLflow's own client waits 247 s and 1,209 s


class QuickLogger(MLflowLogger):
    """Looks into its queue more often than users need."""

    limits = Limits(pause=0.05, longest_pause=0.2)


class Steps(Callback):
    def __init__(self, fn=lambda run: None):
        self.done, self.fn = 0, fn

    def on_train_batch_end(self, run):
        self.done += 1
        run.log({"train/loss": float(run.step)})
        self.fn(run)


class FakeServer(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a logger uses; 500 to everything while ``server.broken``."""

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.server.asked.set()
        code, reply = (500, {"error_code": "INTERNAL_ERROR"}) if self.server.broken else (200, None)
        if reply is None:
            code, reply = self.server.refuse(urlsplit(self.path).path, body) or (200, None)
            reply = self.reply(body) if code == 200 else reply
        data = json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def reply(self, body):
        path = urlsplit(self.path).path
        self.server.calls.append(path)
        if path.endswith("experiments/get-by-name"):
            return {"experiment": {"experiment_id": "1", "name": "epochal"}}
        if path.endswith("runs/create"):
            return {
                "run": {"info": {"run_id": "r", "run_uuid": "r", "experiment_id": "1", "status": "RUNNING"}, "data": {}}
            }
        if path.endswith("runs/log-batch"):
            self.server.metrics += [(one["key"], one.get("step", 0), one["value"]) for one in body.get("metrics", [])]
            self.server.params |= {one["key"]: one["value"] for one in body.get("params", [])}
        if path.endswith("runs/update"):
            self.server.status.append(body["status"])
        return {"run_info": {"run_id": "r"}, "run": {"info": {"run_id": "r"}, "data": {}}}

    def log_message(self, *_): ...


@contextmanager
def server(*, broken=False):
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeServer) as made:
        made.broken, made.asked = broken, threading.Event()
        made.calls, made.metrics, made.status, made.params = [], [], [], {}
        made.refuse = lambda path, body: None
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        try:
            yield made, f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join(BOUND)


@contextmanager
def refusing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        yield None, f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def hanging():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)  # the kernel accepts, nobody answers
        yield None, f"http://127.0.0.1:{silent.getsockname()[1]}"


BAD = {"refuses": refusing, "hangs": hanging, "fails": lambda: server(broken=True)}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_server_costs_no_step_is_said_once_and_is_given_up(kind, tmp_path, caplog):
    before = dict(os.environ)
    with BAD[kind]() as (_, uri), caplog.at_level(logging.INFO, "epochal"):
        steps, start = Steps(), time.monotonic()
        result = simulate(
            [QuickLogger(uri, flush_limit=8.0), CSVLogger("m.csv"), steps], EPOCHS, batches=5, dir=tmp_path
        )
        took = time.monotonic() - start
    assert (steps.done, result.epochs_run, result.end_reason) == (15, 3, "completed")
    assert took < BOUND
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 4, "a healthy logger is complete"
    notes = result.run.past[-1].notes
    assert len(notes) == 1
    assert "records were not written" in notes[0]
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1
    assert dict(os.environ) == before


def test_nothing_is_lost_while_a_server_is_down_and_comes_back(tmp_path):
    with server(broken=True) as (made, uri):

        def come_back(run):
            if run.step == 8:
                assert made.asked.wait(BOUND)
                made.broken = False

        result = simulate([QuickLogger(uri, flush_limit=BOUND), Steps(come_back)], EPOCHS, batches=5, dir=tmp_path)
    assert [value for key, _, value in made.metrics if key == "train/loss"] == list(range(1, 16))
    assert [step for key, step, _ in made.metrics if key == "val/loss"] == [5, 10, 15]
    assert made.status == ["FINISHED"]
    assert "then all records were written" in result.run.past[-1].notes[0]


def test_a_server_that_hangs_does_not_keep_the_process_alive(tmp_path):
    script = (
        "import sys, mlflow\n"
        "from epochal.loggers.mlflow import MLflowLogger\n"
        "from epochal.testing import simulate\n"
        "result = simulate([MLflowLogger(sys.argv[1], flush_limit=1.0)], [{'x': 1.0}])\n"
        "print(result.end_reason, result.run.past[-1].notes[0])\n"
    )
    with hanging() as (_, uri):
        done = subprocess.run(
            [sys.executable, "-c", script, uri],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed MLflowLogger")
    assert "did not answer within 1 s" in done.stdout


def test_the_users_own_calls_keep_their_limits():
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    from epochal.loggers.mlflow_client import quick_calls

    usual = MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    seen = []
    with quick_calls():
        assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (5, 0)
        other = threading.Thread(target=lambda: seen.append(MLFLOW_HTTP_REQUEST_TIMEOUT.get()))
        other.start()
        other.join()
    assert seen == [usual[0]]
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == usual
