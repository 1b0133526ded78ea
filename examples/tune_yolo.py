"""Search hyper-parameters of YOLO26 with Optuna, and end early what will not win; `model.tune` trains all to the end.

The data are scikit-learn's handwritten digits on canvases, written here: nothing is downloaded. With data of your own
leave `write_digits` and `ultralytics_offline` out.
"""

import sys

import optuna

from epochal import attach
from epochal.demo.digits import write_digits
from epochal.demo.offline import ultralytics_offline
from epochal.tune.optuna import Prune

RECIPE = {"batch": 4, "nbs": 4, "optimizer": "AdamW", "warmup_epochs": 1, "mosaic": 0.0, "fliplr": 0.0, "scale": 0.2,
          "workers": 0, "device": "cpu", "plots": False, "verbose": False, "seed": 0}  # fmt: skip


def objective(trial: optuna.Trial, data: str, epochs: int, size: int) -> float:
    """Train one YOLO26n from scratch and return its best fitness; a pruned one leaves at the end of `train`."""
    from ultralytics import YOLO

    model = YOLO("yolo26n.yaml")
    run = attach(model, Prune(trial, "fitness"))
    model.train(
        data=data,
        epochs=epochs,
        imgsz=size,
        lr0=trial.suggest_float("lr0", 1e-4, 1e-1, log=True),
        lrf=trial.suggest_float("lrf", 0.01, 1.0, log=True),
        momentum=trial.suggest_float("momentum", 0.7, 0.98),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        project="tune_yolo",
        name=f"trial-{trial.number}",
        **RECIPE,
    )
    return run.best_fitness


def main(trials: int = 10, epochs: int = 8, images: tuple[int, int] = (128, 32), size: int = 64) -> None:
    """Search, then say what was found and what pruning saved."""
    if "ultralytics" not in sys.modules:
        ultralytics_offline("runs")
    data = write_digits("runs/digits", train=images[0], val=images[1], size=size)
    study = optuna.create_study(
        storage="sqlite:///tune_yolo.db",
        study_name="yolo26n-digits",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3),
    )
    study.optimize(lambda trial: objective(trial, str(data), epochs, size), n_trials=trials)

    pruned = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    trained, planned = sum(len(trial.intermediate_values) for trial in study.trials), len(study.trials) * epochs
    print(f"best fitness {study.best_value:.3f} with {study.best_params}")
    print(f"{len(study.trials)} trials, {pruned} of them pruned")
    print(f"{trained} epochs instead of {planned}: pruning saved {1 - trained / planned:.0%}")


if __name__ == "__main__":
    main()
