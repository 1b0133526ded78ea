"""Presets in real trainings: a loop with checkpoints on the disk, and YOLO beside its own patience and best.pt."""

import pytest

import epochal
from epochal import Checkpoint, EarlyStopping, Loop, ReduceLROnPlateau

torch = pytest.importorskip("torch")


def train(folder, callbacks, losses, *, epochs=None, resume=False):
    """A loop whose weight is the number of steps that made it."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=folder, name="loop", resume=resume) as run:
        for epoch in run.epochs(len(losses) if epochs is None else epochs):
            for _ in run.batches(range(2)):
                optimizer.zero_grad()
                net(torch.ones(1, 1)).sum().backward()
                optimizer.step()
                with torch.no_grad():
                    net.weight.fill_(epoch + 1.0)
            with run.validation():
                run.log({"val/loss": losses[epoch]})
    return run, net


def test_checkpoints_on_the_disk_are_those_the_library_keeps(run_dir):
    losses = [0.9, 0.5, 0.7, 0.8, 0.9]
    policies = [
        EarlyStopping("val/loss", patience=3, restore_best=True, compat="transformers"),
        Checkpoint(metric="val/loss", keep_last=1, compat="transformers"),
    ]
    run, net = train(run_dir, policies, losses)
    assert [one.manifest.epoch for one in run.checkpoints] == [1]  # in the end nothing but the best
    assert net.weight.item() == 2.0
    assert epochal.checkpoint(run, "best").manifest.epoch == 1


def test_what_is_decided_in_a_validation_is_saved_where_a_training_goes_on(run_dir):
    run, _ = train(run_dir, [Checkpoint(metric="val/loss", keep_best=1, compat="lightning")], [0.9, 0.5, 0.7])
    (best,) = run.checkpoints
    assert (best.manifest.epoch, best.manifest.resume_point) == (1, True)
    assert best.manifest.reason == "as lightning saves (epoch 2, val/loss 0.5)"


def test_a_validation_in_the_middle_of_an_epoch_is_decided_upon_at_once(run_dir):
    net, losses = torch.nn.Linear(1, 1), iter([0.9, 0.8, 0.7, 0.75])
    save = Checkpoint(metric="val/loss", keep_best=-1, compat="lightning")
    with Loop(model=net, callbacks=[save], dir=run_dir) as run:
        for _ in run.epochs(2):
            for batch in run.batches(range(4)):
                if batch == 1:
                    with run.validation():
                        run.log({"val/loss": next(losses)})
            with run.validation():
                run.log({"val/loss": next(losses)})
    said = [one.manifest.reason.partition("(")[2] for one in run.checkpoints]
    assert said == [f"epoch {n}, val/loss {loss})" for n, loss in ((1, 0.9), (1, 0.8), (2, 0.7), (2, 0.75))]
    assert [one.manifest.resume_point for one in run.checkpoints][1::2] == [True, True]


def test_a_loop_that_was_left_goes_on_with_the_librarys_count(run_dir):
    losses = [float("nan"), 0.5, 0.4, 0.4, 0.4]
    whole = [EarlyStopping("val/loss", patience=3, compat="keras"), Checkpoint(compat="ultralytics")]
    assert train(run_dir / "whole", whole, losses)[0].epoch == 3

    def policies():
        return [EarlyStopping("val/loss", patience=3, compat="keras"), Checkpoint(compat="ultralytics")]

    train(run_dir, policies(), losses, epochs=2)
    run, _ = train(run_dir, policies(), losses, resume=True)
    assert (run.epoch, run.end_reason) == (3, "stopped")


def test_rates_are_cut_per_group_as_torch_cuts_them(run_dir):
    nets = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    groups = [{"params": list(net.parameters()), "lr": lr} for net, lr in zip(nets, (0.1, 0.02), strict=True)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    theirs_optimizer = torch.optim.SGD([dict(group) for group in groups], lr=0.1)
    options = {"factor": 0.5, "patience": 1, "min_lr": [0.03, 0.001], "eps": 0.001}
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs_optimizer, **options)
    ours = ReduceLROnPlateau("val/loss", compat="torch", **options)
    with Loop(model=torch.nn.ModuleList(nets), optimizer=optimizer, callbacks=[ours], dir=run_dir) as run:
        for epoch in run.epochs(9):
            with run.validation():
                run.log({"val/loss": 1.0})
            theirs.step(1.0)
            assert list(run.lr.values()) == pytest.approx([one["lr"] for one in theirs_optimizer.param_groups]), epoch


def test_more_patience_lets_a_training_go_on_that_was_stopped(run_dir):
    losses = [0.5, 0.6, 0.6, 0.4, 0.4]

    def policies(patience):
        return [EarlyStopping("val/loss", patience=patience, compat="lightning"), Checkpoint()]

    assert train(run_dir, policies(2), losses)[0].epoch == 2
    run, _ = train(run_dir, policies(3), losses, resume=True)
    assert (run.epoch, run.end_reason) == (4, "completed")


SEQUENCES = [
    ([0.9, 0.5, None, 0.6, 0.55, 0.4, 0.5], 1),  # the old value is judged again
    ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1], 1),
    ([0.9, 0.8, float("nan"), 0.1], 1),
    ([0.9] * 10, 2),  # and not in an epoch that has no validation
]


@pytest.mark.parametrize(("losses", "every"), SEQUENCES)
def test_lightning_with_ours_ends_where_it_does_with_its_own(losses, every, tmp_path):
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch import callbacks as native

    from epochal import attach

    class Logs(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, index):
            return self.layer(batch).sum()

        def validation_step(self, batch, index):
            if losses[self.current_epoch] is not None:
                self.log("val_loss", torch.tensor(losses[self.current_epoch]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def trainer(*callbacks):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return pl.Trainer(
            max_epochs=len(losses), accelerator="cpu", num_sanity_val_steps=0, default_root_dir=tmp_path,
            enable_checkpointing=bool(callbacks), callbacks=list(callbacks), check_val_every_n_epoch=every, **quiet,
        )  # fmt: skip

    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    saves = native.ModelCheckpoint(tmp_path / "theirs", "{epoch}", monitor="val_loss", save_top_k=2, save_last=True)
    theirs = trainer(native.EarlyStopping("val_loss", patience=3), saves)
    theirs.fit(Logs(), loader, loader)
    policies = [
        EarlyStopping("val_loss", patience=3, compat="lightning"),
        Checkpoint(metric="val_loss", keep_best=2, keep_last=1, compat="lightning"),
    ]
    ours = trainer()
    run = attach(ours, *policies, dir=tmp_path, name="ours")
    ours.fit(Logs(), loader, loader)
    assert ours.current_epoch == theirs.current_epoch
    kept = {int(path.stem.removeprefix("epoch=")) for path in (tmp_path / "theirs").glob("epoch=*.ckpt")}
    last = torch.load(tmp_path / "theirs" / "last.ckpt", weights_only=False)["epoch"]
    assert {one.manifest.epoch for one in run.checkpoints} == kept | {last}


def test_yolo_stops_and_keeps_as_its_own_classes_would(offline_ultralytics, tiny_digits, tmp_path):
    from ultralytics import YOLO
    from ultralytics.utils.torch_utils import EarlyStopping as Theirs

    from epochal import attach

    ours = [EarlyStopping("fitness", patience=1, compat="ultralytics"), Checkpoint(compat="ultralytics")]
    model = YOLO("yolo26n.yaml")
    # The mAP of so short a training is 0 throughout; the loss is not.
    run = attach(model, *ours, fitness="-val/loss", dir=tmp_path, name="ours")
    model.train(
        data=str(tiny_digits), epochs=5, patience=0, imgsz=64, batch=8, device="cpu", plots=False, workers=0,
        project=str(tmp_path), name="yolo", optimizer="SGD", lr0=0.05, warmup_epochs=0, amp=False,
    )  # fmt: skip

    fitness, stopper = [row["fitness"] for row in run.history], Theirs(patience=1)
    stops = [stopper(epoch + 1, value) for epoch, value in enumerate(fitness)]
    assert run.epoch == (stops.index(True) if True in stops else 4)
    assert run.end_reason == ("stopped" if True in stops else "completed")
    best = max(epoch for epoch, value in enumerate(fitness) if value == max(fitness))
    assert [one.manifest.epoch for one in run.checkpoints] == sorted({best, run.epoch})
    assert all(one.manifest.resume_point for one in run.checkpoints)
