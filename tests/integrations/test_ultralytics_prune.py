"""A search over trainings of YOLO: a pruned trial ends as a stopped training, and only then Optuna hears of it."""

import pytest

from epochal import attach
from epochal.testing import RecordEvents

optuna = pytest.importorskip("optuna")
from epochal.tune.optuna import Prune  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize(("task", "metric"), [("", "fitness"), ("-seg", "metrics/mAP50(M)")], ids=["detect", "segment"])
def test_a_pruned_training_returns_before_the_trial_is_pruned(yolo, quick, tmp_path, task, metric):
    returned, record, models = [], RecordEvents(), []

    def objective(trial):
        model = yolo(task)
        original = type(model).train

        def train(*args, **options):
            result = original(model, *args, **options)
            returned.append(result)
            return result

        model.train = train  # what attach finds there is what it calls
        run = attach(model, Prune(trial, metric), record)
        models.append((model, run))
        model.train(**quick(epochs=4))
        pytest.fail("a pruned objective went on behind its training")

    # Untrained weights on noise: their fitness is far below.
    pruner = optuna.pruners.ThresholdPruner(lower=0.9, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.optimize(objective, n_trials=1)

    (trial,) = study.trials
    ((model, run),) = models
    assert trial.state.name == "PRUNED"
    assert list(trial.intermediate_values) == [0, 1]
    assert [row[run.metrics.canonical(metric)] for row in run.history] == list(trial.intermediate_values.values())
    assert len(returned) == 1
    assert record.events[-1] == "teardown"
    assert "on_exception" not in record.events
    assert run.end_reason == "stopped"
    assert (tmp_path / "native" / "t" / "weights" / "best.pt").exists()
    assert model.trainer.epoch == 1
