"""What every logger inherits."""

import contextlib
import copy
import os
import subprocess
import sys
import threading

import cloudpickle
import pytest

from epochal.core.callback import Callback
from epochal.loggers.base import Logger
from epochal.loggers.csv import CSVLogger
from epochal.testing import simulate


class Keep(Logger):
    """Keeps what it is handed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.records, self.ends, self.abouts = [], [], []

    def open(self, about):
        self.abouts.append(about)
        return self

    def write(self, records):
        self.records += records

    def finish(self, end_reason):
        self.ends.append(end_reason)

    def rows(self, kind):
        return [dict(record.values) for record in self.records if record.kind == kind]


class Log(Callback):
    def __init__(self, event, fn):
        setattr(self, event, fn)


def test_importing_and_making_loggers_starts_nothing_and_imports_nothing_heavy(tmp_path):
    script = (
        "import sys, threading, os\n"
        "from epochal import CSVLogger, JSONLogger, MLflowLogger, TensorBoardLogger\n"
        "before = dict(os.environ)\n"
        "made = [CSVLogger(), JSONLogger(), MLflowLogger(), TensorBoardLogger()]\n"
        "assert threading.active_count() == 1 and dict(os.environ) == before and not os.listdir()\n"
        "print(sorted({'torch', 'numpy', 'mlflow', 'tensorboard', 'requests', 'PIL', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "end"), [(None, "completed"), (ValueError("x"), "exception"), (KeyboardInterrupt(), "interrupted")]
)
def test_the_end_is_told_truthfully(error, end):
    def fail(run):
        if error is not None:
            raise error

    keep = Keep()
    try:
        simulate([keep, Log("on_train_batch_end", fail)], [{"x": 1.0}])
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert keep.ends == [end]


def test_an_error_at_the_very_end_is_no_success():
    def fail(run):
        raise ValueError("late")

    keep = Keep()
    with pytest.raises(ValueError, match="late"):
        simulate([keep, Log("on_train_end", fail)], [{"x": 1.0}])
    assert keep.ends == ["exception"]


def test_a_stopped_training_is_told_as_stopped():
    keep = Keep()
    simulate([keep, Log("on_fit_epoch_end", lambda run: run.stop("enough"))], [{"x": 1.0}] * 3)
    assert keep.ends == ["stopped"]


def test_params_logged_before_the_start_are_handed_over_too():
    keep = Keep()
    first = Log("on_train_start", lambda run: run.log_params({"early": 1}))
    simulate([first, keep, Log("on_train_epoch_start", lambda run: run.log_params({"late": 2}))], [{"x": 1.0}])
    assert keep.rows("params") == [{"early": 1}, {"late": 2}]


def test_tensors_come_detached_and_are_read_off_the_training_thread():
    torch = pytest.importorskip("torch")
    keep, weight = Keep(), torch.ones(1, requires_grad=True)
    simulate(
        [keep, Log("on_train_batch_end", lambda run: run.log({"train/loss": (weight * run.step).sum()}))],
        [{}],
        batches=3,
    )
    assert [row["train/loss"] for row in keep.rows("metrics") if row] == [1.0, 2.0, 3.0]
    assert keep.rows("epoch")[0]["train/loss"] == 2.0


def test_an_object_that_is_copied_or_pickled_in_a_training_is_an_idle_one():
    twins = []

    def copy_it(run):
        twins.extend([copy.deepcopy(logger), cloudpickle.loads(cloudpickle.dumps(logger))])

    logger = CSVLogger("m.csv")
    simulate([logger, Log("on_train_batch_end", copy_it)], [{"x": 1.0}])
    assert [(twin.path, twin.session) for twin in twins] == [(logger.path, None)] * 2


def test_a_logger_that_cannot_even_open_does_not_touch_the_training(caplog):
    class Broken(Keep):
        def open(self, about):
            raise RuntimeError("no such luck")

    result = simulate([Broken()], [{"x": 1.0}] * 3, batches=3)
    assert result.end_reason == "completed"
    assert result.epochs_run == 3
    assert "RuntimeError: no such luck" in result.run.past[-1].notes[0]
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1


def test_a_folder_that_cannot_be_made_is_a_failure_of_the_logger_only(tmp_path):
    (tmp_path / "blocked").write_text("")
    result = simulate([CSVLogger()], [{"x": 1.0}] * 2, dir=tmp_path / "blocked")
    assert result.epochs_run == 2
    assert result.run.past[-1].failures == {"CSVLogger": 1}
    assert threading.active_count() >= 1


def test_two_trainings_one_after_the_other_do_not_mix():
    keep = Keep()
    simulate([keep], [{"x": 1.0}])
    simulate([keep], [{"x": 2.0}])
    assert [row["x"] for row in keep.rows("epoch")] == [1.0, 2.0]
    assert keep.ends == ["completed", "completed"]
    assert not any(about.resumed for about in keep.abouts)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_says_nothing_of_a_training_that_is_its_parents(tmp_path, caplog):
    said = []

    def fork(run):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                caplog.clear()
                run.log({"of the child": 1.0})
                logger.teardown(run)
                os._exit(len(caplog.records))
            os._exit(99)
        said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    logger = CSVLogger(tmp_path / "metrics.csv")
    simulate([logger, Log("on_train_batch_end", fork)], [{"x": 1.0}, {"x": 2.0}])
    assert said == [0, 0]
    assert [line.split(",")[0] for line in (tmp_path / "metrics.csv").read_text().splitlines()] == ["epoch", "0", "1"]


def test_a_wrong_flush_limit_is_refused():
    with pytest.raises(ValueError, match="flush_limit=-1"):
        CSVLogger(flush_limit=-1)


def test_batch_values_that_a_logger_does_not_want_never_reach_its_queue():
    class EveryThird(Keep):
        def batches(self):
            return 3

    keep = EveryThird()
    simulate(
        [keep, Log("on_train_batch_end", lambda run: run.log({"train/x": float(run.step)}))], [{"y": 1.0}], batches=7
    )
    assert [row["train/x"] for row in keep.rows("metrics") if "train/x" in row] == [3.0, 6.0]
    assert keep.rows("epoch")[0]["train/x"] == 4.0, "the mean is over all batches"


def test_a_validation_outside_the_epochs_is_one_final_record():
    def validate(run):
        run.engine.val_start(2)
        for batch in range(2):
            run.engine.val_batch_start(batch)
            run.log({"val/iou": float(batch)})
            run.engine.val_batch_end()
        run.engine.val_end()

    keep = Keep()
    simulate([Log("on_train_end", validate), keep], [{"x": 1.0}])
    assert keep.rows("final") == [{"final/iou": 0.5}]
    assert all("final/iou" not in row for row in keep.rows("metrics"))
