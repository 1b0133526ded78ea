"""The report says what the numbers say, however the training went and however wide the screen is."""

import io
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from epochal.core.summary import Summary
from epochal.demo.outcome import Outcome, rates
from epochal.demo.plan import Milestones, Plan
from epochal.demo.report import command_lines, render

PLAN = Plan(
    name="demo", title="a net learns", data="digits", epochs=9, watched="val/auc", quality="AUC",
    curves={"loss": {"train": "train/loss"}, "AUC": {"val": "val/auc"}},
)  # fmt: skip
SUMMARY = Summary(
    name="demo", dir=None, epochs=3, steps=30, seconds=12.0, end_reason="stopped",
    stop_reason="EarlyStopping(val/auc): val/auc has not improved for 1 checks (best 0.9 in epoch 2)",
    fitness=0.7, best_fitness=0.9, best_epoch=1,
    history=({"train/loss": 2.0, "val/auc": 0.5}, {"train/loss": 1.0, "val/auc": 0.9}, {"val/auc": math.nan}),
    checkpoints=0, checkpoint_errors=0, failures={}, switched_off=(), costs={"A": (10, 0.06)}, notes=("careful",),
)  # fmt: skip


def outcome(tmp_path: Path, **changes: object) -> Outcome:
    return Outcome(PLAN, SUMMARY._replace(**changes), tmp_path / "runs" / "demo", {"A": "did this", "B": "did that"})


def printed(one: Outcome, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(one, width))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_it_fits_the_screen_and_tells_all(tmp_path, width):
    text = printed(outcome(tmp_path), width)
    assert all(len(line) <= width for line in text.splitlines())
    joined = " ".join(text.replace("│", " ").split())
    for said in ["stopped after epoch 3 of at most 9, 12 s", "AUC 0.900 at epoch 2", "did this", "60.0 ms", "0.50%"]:
        assert said in joined
    assert "best 0.9 in epoch 2" in joined
    assert "note: careful" in joined


def test_a_training_that_measured_nothing_has_a_report_too(tmp_path):
    nothing = outcome(tmp_path, history=(), epochs=0, best_fitness=None, best_epoch=None, stop_reason=None, costs={})
    assert nothing.best is None
    assert not nothing.learnt
    assert "AUC was never measured" in printed(replace(nothing, deeds={}), 80)


def test_the_first_of_equal_values_is_the_best(tmp_path):
    assert outcome(tmp_path, history=({"val/auc": 0.9}, {"val/auc": 0.9})).best == (1, 0.9)


def test_commands_name_only_what_is_there_and_survive_a_folder_with_a_space(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    one = outcome(tmp_path, dir=tmp_path / "my runs" / "demo")
    one = replace(one, folder=tmp_path / "my runs" / "demo")
    assert command_lines(one) == []
    (tmp_path / "my runs" / "demo" / "tensorboard").mkdir(parents=True)
    (tmp_path / "my runs" / "mlflow.db").touch()
    assert command_lines(one) == [
        "tensorboard --logdir 'my runs'",
        "mlflow ui --backend-store-uri 'sqlite:///my runs/mlflow.db'",
    ]


def test_milestones_are_noted_once_and_in_order():
    from epochal.testing import simulate
    from epochal.testing.simulate import RecordEvents

    milestones = Milestones("val/auc")

    class Watching(RecordEvents):
        def on_train_start(self, run):
            milestones.watch(run)

    simulate([Watching()], [{"val/auc": value} for value in (0.1, 0.6, 0.3, 0.97, 0.99)])
    assert milestones.passed == {0.25: 2, 0.5: 2, 0.75: 4, 0.9: 4, 0.95: 4}
    assert str(milestones) == "0.5 at epoch 2, 0.95 at epoch 4"


def test_rates_are_those_of_the_first_group():
    assert rates([]) == []
    assert rates([{"lr/a": "0.5", "lr/b": "1"}, {"lr/a": "0.25", "lr/b": "1"}]) == [0.5, 0.25]
