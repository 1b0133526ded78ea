"""MLflow servers that refuse a part of what is sent, or lose what they had: everything else arrives, once."""

import math
import time
from pathlib import Path

import numpy
import pytest

from epochal.commands.sync import sync
from epochal.core.callback import Callback
from epochal.loggers.mlflow import MLflowLogger
from epochal.loggers.worker import Limits
from tests.faults.test_loggers_servers import BOUND, server

torch = pytest.importorskip("torch")
mlflow = pytest.importorskip("mlflow")
from epochal import Loop  # noqa: E402

STEPS = list(range(1, 16))
WRONG = {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}


class QuickLogger(MLflowLogger):
    """Looks into the store more often than users need, on a thread of this process."""

    limits = Limits(pause=0.05, longest_pause=0.1)


class Steps(Callback):
    def __init__(self, fn=lambda run: None):
        self.fn = fn

    def on_train_batch_end(self, run):
        run.log({"train/loss": float(run.step), "train/" + "long." * 60: 0.5})
        self.fn(run)


def train(*callbacks, epochs=3, batches=5, params=None, **options):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, name="a", **options) as run:
        run.log_params(params or {})
        for _ in run.epochs(epochs):
            for _ in run.batches(range(batches)):
                pass
    return run


def steps(made, name="train/loss"):
    return [step for key, step, _ in made.metrics if key == name]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite store for all tests of this file: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    mlflow.MlflowClient(uri).search_experiments(max_results=1)
    return uri


def history(client, run_id, key):
    return [(one.step, one.value) for one in client.get_metric_history(run_id, key)]


def test_five_thousand_params_arrive_but_for_one_that_an_old_server_refuses(caplog):
    given = {f"p{number}": number for number in range(5000)} | {"wordy": "x" * 900}

    def refuse(path, body):
        return (400, WRONG) if any(len(one["value"]) > 500 for one in body.get("params", [])) else None

    with server() as (made, uri):
        made.refuse = refuse
        train(QuickLogger(uri, flush_limit=BOUND), Steps(), params=given)
    assert made.params == {name: str(value) for name, value in given.items() if name != "wordy"}
    assert steps(made) == STEPS
    assert made.status[-1] == "FINISHED"
    assert caplog.text.count("MLflow refuses the parameter wordy") == 1


def test_a_metric_that_is_refused_costs_only_the_calls_that_logged_it():
    def spoil(run):
        if run.step in (4, 11):
            run.log({"refused": 1.0, "with it": 2.0})

    def refuse(path, body):
        return (400, WRONG) if any(one["key"] == "refused" for one in body.get("metrics", [])) else None

    with server() as (made, uri):
        made.refuse = refuse
        run = train(QuickLogger(uri, flush_limit=BOUND), Steps(spoil))
    assert set(steps(made)) == set(STEPS)
    assert steps(made, "with it") == []
    assert made.status[-1] == "FINISHED"
    assert "records were refused and left out" in run.past[-1].notes[0]


@pytest.mark.parametrize("body", [{"error_code": "REQUEST_LIMIT_EXCEEDED"}, {"detail": "slow down"}])
def test_a_rate_limit_is_waited_out(body):
    left = [5]

    def refuse(path, _):
        left[0] -= 1
        return (429, body) if left[0] >= 0 else None

    with server() as (made, uri):
        made.refuse = refuse
        train(QuickLogger(uri, flush_limit=BOUND), Steps(lambda run: made.asked.wait(BOUND)))
        sync(Path("runs/a"))
    assert set(steps(made)) == set(STEPS)
    assert made.status[-1] == "FINISHED"


def test_a_server_that_fails_in_the_middle_of_a_batch_has_each_point_once_in_the_end(store, monkeypatch):
    from epochal.loggers import mlflow as module

    real, calls = module.log_values, []

    def half(client, run_id, values):
        calls.append(len(values))
        if len(calls) in (2, 5):
            real(client, run_id, values[: len(values) // 2])
            raise ConnectionResetError("in the middle")
        real(client, run_id, values)

    monkeypatch.setattr(module, "METRICS_AT_ONCE", 7)
    monkeypatch.setattr(module, "log_values", half)
    logger = QuickLogger(store, experiment="half")
    train(logger, Steps())
    sync(Path("runs/a"))
    client = mlflow.MlflowClient(store)
    assert history(client, logger.run_id, "train/loss") == [(step, float(step)) for step in STEPS]
    assert client.get_run(logger.run_id).info.status == "FINISHED"
    assert len(calls) > 3


def test_names_that_mlflow_does_not_know_and_values_that_are_no_numbers_arrive(store):
    given = {
        "a//b": 1.0, "../c": 2.0, "/d/": 3.0, "e/./f": 4.0, "top@5 %": 5.0, "Genauigkeit (ü)": 6.0,
        "nan": math.nan, "inf": math.inf, "minus": -math.inf, "x" * 251: 8.0, "x" * 252: 9.0,
    }  # fmt: skip

    def log(run):
        if run.step == 1:
            run.log(given)

    logger = QuickLogger(store, experiment="names")
    run = train(logger, Steps(log))
    assert run.past[-1].notes == ()
    found = mlflow.MlflowClient(store).get_run(logger.run_id).data.metrics
    assert [found[name] for name in ("a/b", "c", "d", "e/f", "top_5", "Genauigkeit _ü")] == [
        1.0,
        2.0,
        3.0,
        4.0,
        5.0,
        6.0,
    ]
    assert {value for name, value in found.items() if name.startswith("xxx")} == {8.0, 9.0}
    assert math.isnan(found["nan"])
    assert (found["inf"], found["minus"]) == (pytest.approx(1.797e308, rel=1e-3), pytest.approx(-1.797e308, rel=1e-3))


def test_where_artifacts_cannot_be_stored_metrics_go_on_and_it_is_said_once(store, caplog):
    client = mlflow.MlflowClient(store)
    client.create_experiment("no artifacts", artifact_location="file:///dev/null/nowhere")

    def show(run):
        run.log_image("picture", numpy.zeros((4, 5), dtype=numpy.uint8))
        run.log_text("told", "a cat")

    logger = QuickLogger(store, experiment="no artifacts")
    train(logger, Steps(show))
    assert history(client, logger.run_id, "train/loss") == [(step, float(step)) for step in STEPS]
    run = client.get_run(logger.run_id)
    assert (run.info.status, run.data.tags["epochal.artifacts_left_out"]) == ("FINISHED", "30")
    assert caplog.text.count("takes no images and texts") == 1


def test_a_run_that_somebody_deletes_begins_anew_with_all_of_it(store, caplog):
    client, logger, first = mlflow.MlflowClient(store), QuickLogger(store, experiment="deleted"), []

    def delete(run):
        if run.step == 8:
            while not logger.session.follower.accepted:
                time.sleep(0.01)
            first.append(logger.run_id)
            client.delete_run(logger.run_id)

    train(logger, Steps(delete))
    sync(Path("runs/a"))
    (found,) = client.search_runs([client.get_experiment_by_name("deleted").experiment_id])
    assert found.info.run_id != first[0]
    assert history(client, found.info.run_id, "train/loss") == [(step, float(step)) for step in STEPS]
    assert found.info.status == "FINISHED"
    assert "a new run begins" in caplog.text


def test_a_run_that_ended_has_ended_after_another_sync_too():
    with server() as (made, uri):
        train(QuickLogger(uri), Steps())
        assert sync(Path("runs/a"))[0].points == 0
        assert made.status[-1] == "FINISHED"


def test_two_names_that_become_one_are_said_once(store, caplog):
    logger = QuickLogger(store, experiment="shared")
    train(logger, Steps(lambda run: run.log({"top@5": 1.0, "top%5": 2.0})), epochs=1)
    said = [record.getMessage() for record in caplog.records if "one curve" in record.getMessage()]
    assert said == ["MLflow has one curve, top_5, for 'top@5' and 'top%5'; give one of them another name"]
