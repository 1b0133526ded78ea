"""A fit that was killed goes on as if it had not been: to the bit, at an epoch's end and inside one."""

import os
import signal

import pytest

from epochal import Callback, Checkpoint, Every, ResumableLoader, attach
from epochal.core.errors import ArgumentError, CheckpointError
from tests.faults.forks import ended, forked
from tests.trainers import lightning as tiny

pytest.importorskip("lightning")
EPOCHS = 3


class Kill(Callback):
    """Kills the process at the n-th occurrence of an event, once what was asked for is written."""

    def __init__(self, event, occurrence):
        self.left = occurrence
        setattr(self, event, self.happen)

    def happen(self, run):
        self.left -= 1
        run.engine.saver.flush()
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def with_a_generator(loader, held_out):
    """Return loaders that shuffle by generators of their own."""
    import torch
    from torch.utils.data import DataLoader

    one, other = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    train = DataLoader(loader.dataset, 4, shuffle=True, generator=one)
    return train, DataLoader(held_out.dataset, 3, shuffle=True, generator=other)


def stateful(loader, held_out):
    """Return a training loader that has a state of its own."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(loader.dataset, 4, shuffle=True), held_out


def resumable(loader, held_out):
    """Return a training loader of ours."""
    return ResumableLoader(loader.dataset, batch_size=4, shuffle=True, seed=5), held_out


def stream(loader, held_out):
    """Return training data without a length, that draw random numbers."""
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset):
        def __iter__(self):
            return ((x + 0.1 * torch.randn(2), y) for x, y in loader.dataset)

    return DataLoader(Stream(), 4), held_out


def several(loader, held_out):
    """Return two training loaders of different lengths, read at once."""
    from torch.utils.data import DataLoader, Subset

    return {"a": loader, "b": DataLoader(Subset(loader.dataset, range(8)), 4, shuffle=True)}, held_out


def fit(folder, *callbacks, resume=False, workers=0, data=None, module=None, **options):
    """Fit the tiny net and return its run and what it came to."""
    import torch

    tiny.quiet()
    module = module or tiny.net()
    host = tiny.trainer(folder, EPOCHS, **options)
    run = attach(host, *callbacks, dir=folder, name="fit", resume=resume)
    host.fit(module, *(data(*tiny.loaders()) if data else tiny.loaders(workers)))
    end = {
        "model": module.state_dict(),
        "optimizer": host.optimizers[0].state_dict()["state"],
        "scheduler": [config.scheduler.state_dict() for config in host.lr_scheduler_configs],
        "random": torch.get_rng_state(),
        "history": [dict(row) for row in run.history],
        "step": run.step,
        "native": (host.current_epoch, host.global_step, host.fit_loop.epoch_loop._batches_that_stepped),
    }
    return run, end


def same(one, other):
    """Say whether two trees are equal to the bit."""
    import torch

    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def differences(one, other):
    """Return the names of what differs."""
    return [name for name in one if not same(one[name], other[name])]


CASES = {
    "an epoch's end": ({}, Every(epochs=1), ("on_train_batch_end", 6)),
    "an epoch's end, workers": ({"workers": 2}, Every(epochs=1), ("on_train_batch_end", 6)),
    "an epoch's end, accumulation": ({"accumulate_grad_batches": 3}, Every(epochs=1), ("on_train_batch_end", 6)),
    "an epoch's end, max_steps": ({"max_steps": 11}, Every(epochs=1), ("on_train_batch_end", 6)),
    "inside an epoch": ({}, Every(batches=1), ("on_train_batch_start", 7)),
    "inside the first epoch": ({}, Every(batches=1), ("on_train_batch_start", 3)),
    "inside an epoch, workers": ({"workers": 2}, Every(batches=1), ("on_train_batch_start", 7)),
    "inside an epoch, accumulation": ({"accumulate_grad_batches": 2}, Every(batches=1), ("on_train_batch_start", 8)),
    "an epoch's end, generators": ({"data": with_a_generator}, Every(epochs=1), ("on_train_batch_end", 6)),
    "inside an epoch, generators": ({"data": with_a_generator}, Every(batches=1), ("on_train_batch_start", 7)),
    "an epoch's end, a stateful loader": ({"data": stateful}, Every(epochs=1), ("on_train_batch_end", 6)),
    "inside an epoch, a stateful loader": ({"data": stateful}, Every(batches=1), ("on_train_batch_start", 7)),
    "inside an epoch, our loader": ({"data": resumable}, Every(batches=1), ("on_train_batch_start", 7)),
    "an epoch's end, a stream": ({"data": stream}, Every(batches=1), ("on_train_batch_start", 7)),
    "an epoch's end, two loaders": ({"data": several}, Every(batches=1), ("on_train_batch_start", 7)),
    "an epoch's end, reloaded": (
        {"reload_dataloaders_every_n_epochs": 1},
        Every(epochs=1),
        ("on_train_batch_end", 6),
    ),
    "behind a validation": ({"val_check_interval": 0.5}, Every(batches=1), ("on_train_batch_start", 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_killed_fit_goes_on_to_the_bit(case, tmp_path, caplog):
    options, when, moment = CASES[case]
    _, whole = fit(tmp_path / "whole", **options)
    child = forked(
        lambda: fit(tmp_path, Checkpoint(when=when | Every(epochs=1)), Kill(*moment), **options), log=tmp_path / "log"
    )
    assert ended(child) == -signal.SIGKILL, (tmp_path / "log").read_text()
    with caplog.at_level("INFO", logger="epochal"):
        run, end = fit(tmp_path, Checkpoint(when=when | Every(epochs=1)), resume=True, **options)
    assert differences(whole, end) == []
    assert run.end_reason == "completed" or options.get("max_steps")
    assert "the same to the bit" in caplog.text
    assert ("come to by" in caplog.text) == case.startswith(("inside", "behind"))


def test_another_model_or_optimizer_is_refused_by_name(tmp_path):
    import torch

    fit(tmp_path, Checkpoint())
    other = tiny.net()
    other.more = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"more\.weight: missing in the checkpoint"):
        fit(tmp_path, resume=True, module=other)
    other = tiny.net()
    other.configure_optimizers = lambda: torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="optimizer: saved AdamW, current SGD"):
        fit(tmp_path, resume=True, module=other)


def test_two_ways_of_going_on_are_refused(tmp_path):
    fit(tmp_path, Checkpoint())
    host = tiny.trainer(tmp_path, EPOCHS)
    attach(host, dir=tmp_path, name="fit", resume=True)
    with pytest.raises(ArgumentError, match="ckpt_path="):
        host.fit(tiny.net(), *tiny.loaders(), ckpt_path="a.ckpt")


def following(base):
    """Return a net with weights that follow others at each batch's end."""
    import torch

    class Net(base):
        def __init__(self):
            super().__init__()
            self.target = torch.nn.Linear(2, 3)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                for one, other in zip(self.target.parameters(), self.layers[0].parameters(), strict=True):
                    one.lerp_(other, 0.1)

    return Net


def plateau(base):
    """Return a net whose rate falls when a batch's loss does not."""
    import torch

    class Net(base):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5, threshold=0.3)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step", "monitor": "train_size"},
            }

    return Net


def drawing(base):
    """Return a net that draws random numbers between the loader's iterator and its first batch."""
    import torch

    class Net(base):
        def on_train_start(self):
            self.noise = torch.randn(3)

    return Net


def skipping(base):
    """Return a net that leaves the end of each epoch out."""

    class Net(base):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    return Net


def metering(base):
    """Return a net that sums up in a torchmetrics.Metric and logs at the epoch's end."""
    import torchmetrics

    class Net(base):
        def __init__(self):
            super().__init__()
            self.mean = torchmetrics.MeanMetric()

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.mean.update(loss.detach())
            return loss

        def on_train_epoch_end(self):
            self.log("mean", self.mean.compute())
            self.mean.reset()

    return Net


def announcing(base):
    """Return a net that logs when an epoch starts."""

    class Net(base):
        def on_train_epoch_start(self):
            self.log("started", float(self.current_epoch + 1))

    return Net


def pruning(base):
    """Return a net that keeps weights out of its checkpoints, which come from elsewhere when it is loaded."""
    import torch

    class Net(base):
        def __init__(self):
            super().__init__()
            self.frozen = torch.nn.Linear(1, 1).requires_grad_(False)

        def on_save_checkpoint(self, checkpoint):
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: one for name, one in weights.items() if "frozen" not in name}

        def on_load_checkpoint(self, checkpoint):
            checkpoint["state_dict"] |= {f"frozen.{name}": one for name, one in self.frozen.state_dict().items()}

    return Net


HABITS = {  # how a module is -> where the training is killed
    following: ("on_train_batch_start", 7),
    drawing: ("on_train_batch_start", 3),
    plateau: ("on_train_batch_start", 7),
    skipping: ("on_train_epoch_end", 2),
    metering: ("on_train_batch_start", 7),
    announcing: ("on_train_batch_start", 7),
    pruning: ("on_train_batch_start", 7),
}
QUICK = (following, drawing)
SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in HABITS if one not in QUICK]


@pytest.mark.parametrize("habit", [*QUICK, *SLOW], ids=lambda habit: habit.__name__)
def test_a_module_with_habits_goes_on_to_the_bit(habit, tmp_path):
    import torch

    def train(folder, *callbacks, resume=False):
        torch.manual_seed(0)
        return fit(folder, *callbacks, module=habit(type(tiny.net()))(), resume=resume)

    checkpoint = Checkpoint(when=Every(batches=1) | Every(epochs=1))
    _, whole = train(tmp_path / "whole")
    child = forked(lambda: train(tmp_path, checkpoint, Kill(*HABITS[habit])), log=tmp_path / "log")
    assert ended(child) == -signal.SIGKILL, (tmp_path / "log").read_text()
    _, end = train(tmp_path, checkpoint, resume=True)
    assert differences(whole, end) == []


@pytest.mark.slow
def test_no_worker_outlives_a_fit_that_went_on(tmp_path):
    import multiprocessing

    child = forked(
        lambda: fit(tmp_path, Checkpoint(when=Every(batches=1)), Kill("on_train_batch_start", 11), workers=1),
        log=tmp_path / "log",
    )
    assert ended(child) == -signal.SIGKILL, (tmp_path / "log").read_text()
    before = set(multiprocessing.active_children())
    fit(tmp_path, resume=True, workers=1)
    assert set(multiprocessing.active_children()) <= before


def test_a_run_that_the_environment_names_is_gone_on_with_by_the_first_fit_only(tmp_path, monkeypatch):
    first, _ = fit(tmp_path, Checkpoint())
    monkeypatch.setenv("EPOCHAL_RESUME", str(first.dir))
    tiny.quiet()
    host = tiny.trainer(tmp_path, EPOCHS + 1)
    run = attach(host, dir=tmp_path, name="other")
    host.fit(tiny.net(), *tiny.loaders())
    assert (run.dir, run.step) == (first.dir, 16)
    host.fit_loop.max_epochs += 1
    host.fit(tiny.net(), *tiny.loaders())
    assert (run.dir.name, len(run.history)) == ("other", 1)


@pytest.mark.slow
def test_a_fit_that_began_from_lightnings_own_file_goes_on_to_the_bit(tmp_path):
    import torch

    tiny.quiet()
    first = tiny.trainer(tmp_path, 1)
    first.fit(tiny.net(), *tiny.loaders())
    first.save_checkpoint(tmp_path / "own.ckpt")

    def train(folder, *callbacks, resume=False):
        torch.manual_seed(7)
        host, module = tiny.trainer(folder, EPOCHS), tiny.net()
        attach(host, *callbacks, dir=folder, name="fit", resume=resume)
        host.fit(module, *tiny.loaders(), ckpt_path=None if resume else tmp_path / "own.ckpt")
        return module.state_dict()

    checkpoint = Checkpoint(when=Every(batches=1))
    whole = train(tmp_path / "whole")
    child = forked(lambda: train(tmp_path, checkpoint, Kill("on_train_batch_start", 3)), log=tmp_path / "log")
    assert ended(child) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert same(whole, train(tmp_path, checkpoint, resume=True))


def test_neither_a_refused_fit_nor_a_search_uses_up_the_path_to_go_on_from(tmp_path):
    from lightning.pytorch.tuner import Tuner

    first, _ = fit(tmp_path, Checkpoint())
    host, module = tiny.trainer(tmp_path, EPOCHS + 1), tiny.net()
    module.lr = 0.05
    run = attach(host, dir=tmp_path, name="fit", resume=first.dir)
    with pytest.raises(ArgumentError, match=r"ckpt_path='a.ckpt'\) and resume="):
        host.fit(module, *tiny.loaders(), ckpt_path="a.ckpt")
    Tuner(host).lr_find(module, *tiny.loaders(), num_training=8, update_attr=False)
    host.fit(module, *tiny.loaders())
    assert (run.dir, run.step) == (first.dir, 16)
