"""A training in Keras that is killed goes on as if nobody had: the same bits, losses and history."""

import json
import os
import subprocess
import sys

import pytest

from tools.house import ROOT

pytest.importorskip("keras")
pytest.importorskip("tensorflow")


def differences(folder, backend, *kinds):
    """Return what differs after a kill, by kind, found in a process of its own: a process has one backend."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.faults.keras_kills", folder, *kinds]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("FOUND "))


def test_arrays_on_tensorflow_go_on_exactly_at_an_epochs_end_and_inside_it(tmp_path):
    kinds = ("arrays", "arrays:inside")
    assert differences(tmp_path, "tensorflow", *kinds) == {kind: [] for kind in kinds}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_kind_of_data_on_tensorflow_goes_on_exactly(tmp_path):
    kinds = ("dataset", "dataset:inside", "repeated", "repeated:inside", "pydataset", "generator", "loader:inside")
    assert differences(tmp_path, "tensorflow", *kinds) == {kind: [] for kind in kinds}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_tensorflow_reads_ahead_is_said_not_to_be_exact(tmp_path):
    (found,) = differences(tmp_path, "tensorflow", "pydataset:inside").values()
    assert "PyDataset: TensorFlow reads ahead" in found[-1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_on_torch_all_of_it_is_exact(tmp_path):
    kinds = ("arrays", "arrays:inside", "loader", "loader:inside", "pydataset", "pydataset:inside")
    assert differences(tmp_path, "torch", *kinds) == {kind: [] for kind in kinds}
