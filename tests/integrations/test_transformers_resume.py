"""Killed and resumed, a Transformers training is bit for bit the one that nobody killed."""

import logging
import os
import random
import signal
from functools import cache

import pytest

from epochal import Checkpoint, EarlyStopping, Every, attach
from epochal.core.errors import CheckpointError
from tests.faults.forks import ended, forked
from tests.trainers.transformers import net, trainer

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.usefixtures("transformers_preloaded"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes"),
]
CLOCK = ("runtime", "per_second")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that gives what a training of a kind comes to that nobody disturbs."""
    return cache(lambda kind: train(tmp_path_factory.mktemp("whole"), kind))


class Noisy:
    """Samples augmented with numbers from all global generators, and from one of their own."""

    def __init__(self, batches):
        import numpy as np
        import torch

        self.x = torch.linspace(-1, 1, 2 * batches * 4).reshape(-1, 2)[: batches * 4 - 1]  # the last batch is short
        self.own = np.random.default_rng(3)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        import numpy as np
        import torch

        noise = random.random() + float(np.random.rand()) + torch.rand(1).item() + float(self.own.random())
        x = self.x[index] + 0.1 * noise
        return {"x": x, "labels": x.sum(0, keepdim=True)}


KINDS = {
    "plain": {},
    "noise": {"train": lambda: Noisy(5)},
    "accumulated, evaluated and logged by steps": {
        "train": lambda: Noisy(5), "gradient_accumulation_steps": 2, "logging_strategy": "steps", "logging_steps": 2,
        "eval_strategy": "steps", "eval_steps": 2, "include_num_input_tokens_seen": "no",
    },
    "workers": {"train": lambda: Noisy(5), "dataloader_num_workers": 2, "logging_strategy": "epoch"},
    "a loader of the user's own": {"train": lambda: Noisy(5), "kind": lambda: with_loader(1)},
    "a loader of the user's own, in the global generator's order": {
        "train": lambda: Noisy(5), "gradient_accumulation_steps": 2, "kind": lambda: with_loader(None),
    },
    "the global generator's order": {"train": lambda: Noisy(5), "accelerator_config": {"use_seedable_sampler": False}},
}  # fmt: skip


def with_loader(seed):
    """Return a Trainer whose loader is torch's own, with a generator inside: nothing of accelerate's."""
    import torch
    from transformers import Trainer

    class Own(Trainer):
        def get_train_dataloader(self):
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            options = {"batch_size": 4, "shuffle": True, "generator": generator, "collate_fn": self.data_collator}
            return torch.utils.data.DataLoader(self.train_dataset, **options)

    return Own


def train(folder, kind, *, resume=False, kill=None, epochs=3):
    """Train once, or be killed at a moment; return everything that must not depend on that."""
    import torch

    options = {name: one() if callable(one) else one for name, one in KINDS[kind].items()}
    host = trainer(folder, num_train_epochs=epochs, **options)
    moments = Checkpoint(Every(batches=2), snapshot="off", keep_last=1)
    run = attach(host, moments, EarlyStopping("val/loss", patience=50), dir=folder, name="run", resume=resume)
    if kill is not None:
        run.add_callback(
            "on_train_batch_end",
            lambda run: os.kill(os.getpid(), signal.SIGKILL) if (run.epoch, run.batch) == kill else None,
        )
    result = host.train()
    logs = [{name: one for name, one in line.items() if not name.endswith(CLOCK)} for line in host.state.log_history]
    return {
        "weights": {name: one.tolist() for name, one in host.model.state_dict().items()},
        "optimizer": {
            index: {name: one.tolist() for name, one in state.items()}
            for index, state in host.optimizer.state_dict()["state"].items()
        },
        "rates": host.lr_scheduler.get_last_lr(),
        "history": [dict(row) for row in run.history],
        "logs": logs,
        "loss": result.training_loss,
        "steps": (run.step, result.global_step, host.state.epoch),
        "next random numbers": (random.random(), torch.rand(1).item()),
    }


@pytest.mark.parametrize(
    ("kind", "kill"),
    [
        ("plain", (1, 2)),
        ("noise", (1, 2)),  # behind the first batch of an epoch
        ("noise", (1, 4)),
        ("noise", (2, 0)),  # at an epoch's end
        ("accumulated, evaluated and logged by steps", (1, 4)),
        ("accumulated, evaluated and logged by steps", (2, 2)),
        ("workers", (1, 3)),
        ("a loader of the user's own", (1, 1)),
        ("a loader of the user's own, in the global generator's order", (1, 3)),
        ("the global generator's order", (1, 3)),
    ],
)
def test_killed_anywhere_it_ends_with_the_same_weights_optimizer_and_history(tmp_path, kind, kill, caplog, whole):
    assert ended(forked(lambda: train(tmp_path, kind, kill=kill))) == -signal.SIGKILL
    with caplog.at_level(logging.INFO, logger="epochal"):
        resumed = train(tmp_path, kind, resume=True)
    told = [record for record in caplog.records if "goes on after step" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"], told
    for what, value in whole(kind).items():
        assert resumed[what] == value, what
    assert not (tmp_path / "run" / ".resume").exists()


def test_a_training_that_was_stopped_goes_on_and_one_that_is_done_trains_no_more(tmp_path, whole):
    host = trainer(tmp_path, num_train_epochs=3)
    run = attach(host, Checkpoint(Every(epochs=1)), dir=tmp_path, name="run")
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough") if run.step == 6 else None)
    host.train()
    assert (run.step, run.end_reason, run.stop_reason) == (6, "stopped", "<lambda>(): enough")
    assert [one.manifest.step for one in run.checkpoints if one.manifest.resume_point][-1] == 6

    resumed = train(tmp_path, "plain", resume=True)
    assert resumed["weights"] == whole("plain")["weights"]
    again = trainer(tmp_path, num_train_epochs=3)
    run = attach(again, Checkpoint(Every(batches=2), snapshot="off"), dir=tmp_path, name="run", resume=True)
    again.train()
    assert (run.step, run.end_reason, len(run.history)) == (12, "completed", 3)


def test_transformers_own_early_stopping_keeps_its_patience(tmp_path):
    from transformers import EarlyStoppingCallback

    def host():
        native = EarlyStoppingCallback(early_stopping_patience=3)
        options = {"metric_for_best_model": "worse", "greater_is_better": True, "num_train_epochs": 9}
        return trainer(tmp_path, callbacks=[native], more={"compute_metrics": lambda _: {"worse": 1.0}}, **options)

    first = host()
    run = attach(first, Checkpoint(), dir=tmp_path, name="run")
    run.add_callback("on_fit_epoch_end", lambda run: run.stop("the machine is needed") if run.epoch == 1 else None)
    first.train()
    second = host()
    run = attach(second, Checkpoint(), dir=tmp_path, name="run", resume=True)
    second.train()
    assert (len(run.history), run.end_reason) == (4, "stopped")  # the best is in epoch 0, then three that are no better
    assert run.stop_reason == "Transformers: no better worse for 3 evaluations (EarlyStoppingCallback)"


def test_another_model_is_refused_and_nothing_is_trained(tmp_path):
    import torch

    host = trainer(tmp_path, num_train_epochs=1)
    attach(host, Checkpoint(), dir=tmp_path, name="run")
    host.train()
    other = net()
    other.layers[0] = torch.nn.Linear(2, 9)
    host = trainer(tmp_path, model=other, num_train_epochs=2)
    run = attach(host, Checkpoint(), dir=tmp_path, name="run", resume=True)
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight: saved \(8, 2\), model \(9, 2\)"):
        host.train()
    host = trainer(tmp_path, num_train_epochs=2, optim="sgd")
    run = attach(host, Checkpoint(), dir=tmp_path, name="run", resume=True)
    with pytest.raises(CheckpointError, match="optimizer: saved AdamW, current SGD"):
        host.train()
    assert run.step == 4


def test_a_checkpoint_of_transformers_own_wins_and_this_is_said(tmp_path, caplog):
    host = trainer(tmp_path, num_train_epochs=2, save_strategy="epoch")
    attach(host, Checkpoint(), dir=tmp_path, name="run")
    host.train()
    weights = host.model.state_dict()
    host = trainer(tmp_path, num_train_epochs=2)
    run = attach(host, dir=tmp_path, name="run", resume=True)
    seen = []
    run.add_callback("on_train_batch_start", lambda run: seen.append((run.epoch, run.batch, run.step)))
    host.train(resume_from_checkpoint=str(tmp_path / "native" / "checkpoint-4"))
    assert seen == [(1, 0, 4), (1, 1, 5), (1, 2, 6), (1, 3, 7)]
    assert all(bool((one == weights[name]).all()) for name, one in host.model.state_dict().items())
    assert sum("goes on from Transformers' own checkpoint" in one.getMessage() for one in caplog.records) == 1


@pytest.mark.parametrize(("step", "batch", "kept"), [(2, 0, 3), (1, 2, 2)])  # in a group; in the last group of an epoch
def test_sigterm_waits_for_the_step_and_for_the_end_of_an_epoch_that_is_near(tmp_path, step, batch, kept):
    host = trainer(tmp_path, num_train_epochs=3, gradient_accumulation_steps=2)
    run = attach(host, Checkpoint(Every(epochs=1)), dir=tmp_path, name="run")
    begun = []

    def send(run):
        begun.append((run.step, run.batch))
        if (run.step, run.batch) == (step, batch):
            os.kill(os.getpid(), signal.SIGTERM)

    run.add_callback("on_train_batch_start", send)
    with pytest.raises(SystemExit) as left:
        host.train()
    assert (left.value.code, run.end_reason, run.step) == (143, "preempted", kept)
    newest = run.checkpoints.last.manifest
    assert (newest.step, newest.resume_point) == (kept, True)
