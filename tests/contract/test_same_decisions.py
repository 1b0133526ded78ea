"""The same model, the same data, the same callbacks: the same decisions, whoever trains."""

import json
import os
import subprocess
import sys
from importlib import util

import pytest

from tests.trainers import same
from tools.house import ROOT

PACKAGES = {"lightning": ("lightning",), "transformers": ("transformers", "accelerate"), "keras": ("keras",)}
# The same sums in another order: float32 rounds at 6e-8 of a value, some hundred dependent steps later at 1e-5.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    directory = tmp_path_factory.mktemp("loop")
    return {name: same.decide(same.loop, policies, directory / name) for name, policies in same.LISTS.items()}


def by(trainer, directory):
    """Return what a trainer came to with each list of policies."""
    absent = [one for one in PACKAGES[trainer] if util.find_spec(one) is None]
    absent += [] if util.find_spec(f"epochal.integrations.{trainer}") else [f"epochal.integrations.{trainer}"]
    if absent:
        pytest.skip(f"{trainer}: {', '.join(absent)} is not here")
    if trainer != "keras":
        train = getattr(same, trainer)
        return {name: same.decide(train, policies, directory / name) for name, policies in same.LISTS.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainers.same", trainer, str(directory)],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {name: same.Decisions(*one) for name, one in json.loads(done.stdout).items()}
    return {name: one._replace(kept=[tuple(pair) for pair in one.kept]) for name, one in found.items()}


def test_the_plain_loop_decides_something(ours):
    patient, aiming = ours["patient"], ours["aiming"]
    assert patient.reason.startswith("EarlyStopping(val/loss)")
    assert len(set(patient.rates)) > 2
    assert len(patient.kept) == 3
    assert aiming.reason.startswith("Stop: train/loss")
    assert patient.epochs < same.EPOCHS
    assert aiming.epochs < same.EPOCHS


@pytest.mark.parametrize("trainer", PACKAGES)
def test_every_trainer_decides_the_same(ours, tmp_path, trainer):
    theirs = by(trainer, tmp_path)
    for name, one in ours.items():
        assert (theirs[name].epochs, theirs[name].steps) == (one.epochs, one.steps)
        assert theirs[name].kept == one.kept
        assert theirs[name].rates == pytest.approx(one.rates, rel=1e-7)  # Keras keeps its rate as float32
        assert theirs[name].reason.partition(":")[0] == one.reason.partition(":")[0]
        assert theirs[name].train == pytest.approx(one.train, rel=TOLERANCE)
        assert theirs[name].val == pytest.approx(one.val, rel=TOLERANCE)
