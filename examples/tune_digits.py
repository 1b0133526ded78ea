"""Search the hyper-parameters of a small digits classifier with Optuna, and end early what will not win.

The study is a file, tune_digits.db, that Optuna writes itself; run this again and the search goes on.
"""

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from epochal import Loop
from epochal.tune.optuna import Prune


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Return scikit-learn's handwritten digits, four fifths to train on and every fifth to validate."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    held_out = torch.arange(len(y)) % 5 == 0
    return TensorDataset(x[~held_out], y[~held_out]), TensorDataset(x[held_out], y[held_out])


def objective(trial: optuna.Trial, epochs: int) -> float:
    """Train one classifier and return its best accuracy; a pruned one leaves at the end of the `with`."""
    torch.manual_seed(trial.number)
    train, val = digits()
    hidden = trial.suggest_int("hidden", 2, 128, log=True)
    net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=trial.suggest_float("lr", 1e-3, 1.0, log=True),
        momentum=trial.suggest_float("momentum", 0.0, 0.95),
        weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
    )
    prune = Prune(trial, "val/accuracy")
    with Loop(model=net, optimizer=optimizer, callbacks=[prune], fitness="val/accuracy") as run:
        for _ in run.epochs(epochs):
            for rows in run.batches(torch.randperm(len(train)).split(128)):
                x, y = train[rows]
                loss = nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with run.validation(), torch.inference_mode():
                x, y = val[:]
                run.log({"val/accuracy": (net(x).argmax(1) == y).float().mean()})
    return run.best_fitness


def main(trials: int = 40, epochs: int = 20, seed: int = 0) -> None:
    """Search, then say what was found and what pruning saved."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)  # so small a network gains nothing by more
    study = optuna.create_study(
        storage="sqlite:///tune_digits.db",
        study_name="digits",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(lambda trial: objective(trial, epochs), n_trials=trials)

    pruned = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    trained, planned = sum(len(trial.intermediate_values) for trial in study.trials), len(study.trials) * epochs
    print(f"best accuracy {study.best_value:.3f} with {study.best_params}")
    print(f"{len(study.trials)} trials, {pruned} of them pruned")
    print(f"{trained} epochs instead of {planned}: pruning saved {1 - trained / planned:.0%}")


if __name__ == "__main__":
    main()
