"""The searches of the examples run as a user runs them, and say what pruning saved."""

import re
import runpy

import pytest

from tools.house import ROOT

optuna = pytest.importorskip("optuna")
pytest.importorskip("sklearn")


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(printed):
    """Return trials, pruned trials, epochs trained and epochs planned, as the example says them."""
    trials, pruned = re.search(r"(\d+) trials, (\d+) of them pruned", printed).groups()
    trained, planned = re.search(r"(\d+) epochs instead of (\d+): pruning saved", printed).groups()
    return int(trials), int(pruned), int(trained), int(planned)


def check_study(storage, printed, epochs):
    (study,) = [optuna.load_study(study_name=None, storage=f"sqlite:///{storage}")]
    lengths = {state: [] for state in ("COMPLETE", "PRUNED")}
    for trial in study.trials:
        assert list(trial.intermediate_values) == list(range(len(trial.intermediate_values)))
        lengths[trial.state.name].append(len(trial.intermediate_values))
    assert set(lengths["COMPLETE"]) == {epochs}
    trained = sum(lengths["COMPLETE"]) + sum(lengths["PRUNED"])
    assert saved(printed) == (len(study.trials), len(lengths["PRUNED"]), trained, len(study.trials) * epochs)
    assert study.best_value == max(max(trial.intermediate_values.values()) for trial in study.trials if trial.state.name == "COMPLETE")  # fmt: skip


@pytest.mark.usefixtures("one_thread")
def test_the_digits_search_saves_epochs_and_goes_on_when_it_is_run_again(capsys, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "tune_digits.py"))
    example["main"](trials=12, epochs=8)
    printed = capsys.readouterr().out
    check_study("tune_digits.db", printed, epochs=8)
    trials, pruned, trained, planned = saved(printed)
    assert (trials, planned) == (12, 96)
    assert pruned > 0
    assert trained < planned
    assert float(re.search(r"best accuracy (\d\.\d+)", printed).group(1)) > 0.9

    example["main"](trials=1, epochs=8)
    assert saved(capsys.readouterr().out)[0] == 13


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_yolo_search_runs(capsys, offline_ultralytics, tmp_path):
    pytest.importorskip("cv2")
    example = runpy.run_path(str(ROOT / "examples" / "tune_yolo.py"))
    example["main"](trials=2, epochs=2, images=(8, 4), size=64)
    printed = capsys.readouterr().out
    check_study("tune_yolo.db", printed, epochs=2)
    assert len(list(tmp_path.glob("**/trial-1/weights/best.pt"))) == 1
