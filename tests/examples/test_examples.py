"""The examples run as a user runs them, and print what they promise."""

import logging
import re
import runpy

import pytest

from tools.house import ROOT


@pytest.mark.slow
def test_the_ultralytics_example_warns_of_a_stale_fitness_once_and_prints_the_fresh_one(
    coco8, yolo26n_here, monkeypatch, capsys, caplog
):
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils.metrics import DetMetrics

    validations = []
    counted = DetectionValidator.init_metrics

    def init_metrics(self, model):
        validations.append(len(validations))
        return counted(self, model)

    # Untrained weights on noise give a fitness of 0 in every epoch, which would not tell fresh from stale.
    monkeypatch.setattr(DetectionValidator, "init_metrics", init_metrics)
    monkeypatch.setattr(DetMetrics, "fitness", property(lambda _: 0.25 * len(validations)))
    with caplog.at_level(logging.WARNING, logger="epochal"):
        runpy.run_path(str(ROOT / "examples" / "ultralytics_callbacks.py"), run_name="__main__")

    printed = capsys.readouterr().out
    native = re.findall(r"Epoch (\d) of the trainer\. Current fitness: (\S+)", printed)
    assert native == [("1", "None"), ("2", "0.25"), ("3", "0.5")]  # Ultralytics' own, one epoch late
    ours = re.findall(r"Epoch (\d) complete\. Current fitness: (\S+)", printed)
    assert ours == [("1", "None"), ("1", "0.25"), ("2", "0.25"), ("2", "0.5"), ("3", "0.5"), ("3", "0.75")]
    stale = [record.getMessage() for record in caplog.records if "on_fit_epoch_end" in record.getMessage()]
    assert len(stale) == 1
    assert "fitness" in stale[0]


def test_the_plain_pytorch_example_learns_the_digits_and_saves_its_best(capsys, tmp_path):
    pytest.importorskip("sklearn")
    example = runpy.run_path(str(ROOT / "examples" / "plain_pytorch.py"))
    example["main"](epochs=8)
    best = float(re.search(r"best accuracy (\d\.\d+)", capsys.readouterr().out).group(1))
    assert best > 0.9
    assert list(tmp_path.glob("runs/*/checkpoints/epoch-*/COMMIT"))
