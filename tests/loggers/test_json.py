"""JSONLogger: lines that every parser reads, also after a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epochal.core.callback import Callback
from epochal.loggers.json import JSONLogger
from epochal.testing import simulate


class BatchLoss(Callback):
    def on_train_batch_end(self, run):
        run.log({"train/loss": float(run.step)})
        run.log({"train/extra": float(-run.step)})


def lines(kind, path="m.jsonl"):
    with open(path) as file:
        rows = [json.loads(line, parse_constant=pytest.fail) for line in file]
    return [row for row in rows if row["kind"] == kind]


def test_one_line_per_epoch_and_per_nth_step(tmp_path):
    simulate(
        [JSONLogger("m.jsonl", every=2), BatchLoss()], [{"val/loss": 2.0}, {"val/loss": 1.0}], batches=3, dir=tmp_path
    )
    assert [row["val/loss"] for row in lines("epoch")] == [2.0, 1.0]
    assert [row["train/loss"] for row in lines("epoch")] == [2.0, 5.0], "means over the epoch"
    assert [(row["step"], row["train/loss"], row["train/extra"]) for row in lines("step")] == [
        (2, 2, -2),
        (4, 4, -4),
        (6, 6, -6),
    ]
    assert lines("end") == [{"kind": "end", "end_reason": "completed"}]


def test_steps_are_left_out_by_default(tmp_path):
    simulate([JSONLogger("m.jsonl"), BatchLoss()], [{"val/loss": 2.0}], batches=3, dir=tmp_path)
    assert lines("step") == []


def test_nan_and_infinity_are_strings_that_float_reads(tmp_path):
    simulate([JSONLogger("m.jsonl")], [{"a": float("nan"), "b": float("inf"), "c": float("-inf")}], dir=tmp_path)
    row = lines("epoch")[0]
    assert [row[name] for name in "abc"] == ["NaN", "Infinity", "-Infinity"]
    assert float(row["c"]) == float("-inf")


def test_params_of_any_type_are_written(tmp_path):
    class Params(Callback):
        def on_pretrain_routine_start(self, run):
            run.log_params({"early": 1})

        def on_train_start(self, run):
            run.log_params({"path": os.curdir, "object": object(), "nested": {"a": [float("nan")]}})

    simulate([Params(), JSONLogger("m.jsonl")], [{"x": 1.0}], dir=tmp_path)
    found = {name: value for row in lines("params") for name, value in row.items()}
    assert found["nested"] == {"a": ["NaN"]}
    assert found["path"] == os.curdir


def test_a_resumed_training_goes_on_without_what_it_repeats(tmp_path):
    first = simulate([JSONLogger("m.jsonl", every=1), BatchLoss()], [{"x": 1.0}], batches=2, dir=tmp_path)
    state = {"run": first.run.engine.state_dict(), "callbacks": first.run.roster.states()}
    for _ in range(2):
        simulate(
            [JSONLogger("m.jsonl", every=1), BatchLoss()],
            [{"x": 1.0}, {"x": 2.0}],
            batches=2,
            dir=tmp_path,
            state=state,
        )
    assert [row["epoch"] for row in lines("epoch")] == [0, 1]
    assert [row["step"] for row in lines("step")] == [1, 2, 3, 4]
    assert len(lines("end")) == 1


def test_wrong_every_is_refused():
    with pytest.raises(ValueError, match="every=0 must be an int >= 1"):
        JSONLogger(every=0)


KILLED = """
import os, signal, sys, time
from epochal.core.callback import Callback
from epochal.loggers.csv import CSVLogger
from epochal.loggers.json import JSONLogger
from epochal.testing import simulate

def count(path, what):
    return open(path).read().count(what) if os.path.exists(path) else 0

class Die(Callback):
    def on_train_epoch_start(self, run):
        if run.epoch == 5:
            # the writer has a moment to see the epochs before; whoever is killed has none
            while count("m.csv", "\\n") < 6 or count("m.jsonl", "\\n") < 5:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

simulate([JSONLogger("m.jsonl"), CSVLogger("m.csv"), Die()], [{"x": float(n)} for n in range(9)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_was_written_survives_kill_9(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    rows = (tmp_path / "m.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2", "3", "4"]
    assert [row["x"] for row in lines("epoch", tmp_path / "m.jsonl")][:4] == [0, 1, 2, 3]


def test_texts_are_lines_and_histograms_are_the_stores():
    class Says(Callback):
        def on_fit_epoch_end(self, run):
            run.log_text("sample", "ROMEO: ay me")
            run.log_histogram("weights", [1.0, 2.0])

    simulate([JSONLogger("m.jsonl"), Says()], [{"x": 1.0}])
    rows = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows if row["kind"] == "text"] == ["ROMEO: ay me"]
    assert not [row for row in rows if "weights" in row]
