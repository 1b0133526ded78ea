"""What Lightning does of its own beside a run: searches, checkpoints and stops of its own, names, optimizers, loaders."""

import pytest

from epochal import Callback, Checkpoint, EarlyStopping, attach
from epochal.core.errors import AttachError
from epochal.core.events import check_events
from epochal.testing import RecordEvents
from tests.integrations.test_lightning import Look, fit
from tests.trainers import lightning as tiny

pytest.importorskip("lightning")


def with_sgd(**options):
    """Return a tiny net whose optimizer and schedulers are those that are given."""
    import torch

    class Net(type(tiny.net())):
        lr, batch_size = 0.05, 2

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
            made = {name: make(optimizer) for name, make in options.items()}
            return {"optimizer": optimizer, **made}

        def train_dataloader(self):
            return torch.utils.data.DataLoader(tiny.loaders()[0].dataset, self.batch_size, shuffle=True)

        def val_dataloader(self):
            return tiny.loaders()[1]

    torch.manual_seed(0)
    return Net()


def test_a_search_of_the_tuner_is_no_training(tmp_path):
    from lightning.pytorch.tuner import Tuner

    tiny.quiet()
    host, module, events = tiny.trainer(tmp_path, 2), with_sgd(), RecordEvents()
    run = attach(host, events, EarlyStopping("val_loss", patience=3), Checkpoint(), dir=tmp_path / "runs")
    Tuner(host).lr_find(module, num_training=12)
    assert (events.events, run.past, (tmp_path / "runs").exists()) == ([], [], False)
    host.fit(module)
    check_events(events.events)
    assert (run.end_reason, len(run.history)) == ("completed", 2)


@pytest.mark.parametrize("search", ["rate", pytest.param("batch size", marks=pytest.mark.slow)])
def test_a_search_before_the_first_epoch_is_no_part_of_a_run(search, tmp_path):
    from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

    tiny.quiet()

    def finder():
        return LearningRateFinder(num_training_steps=12) if search == "rate" else BatchSizeFinder(max_trials=2)

    plain = tiny.trainer(tmp_path, 2, callbacks=[finder()])
    plain.fit(with_sgd())
    host, events = tiny.trainer(tmp_path, 2, callbacks=[finder()]), RecordEvents()
    run = attach(host, events, Checkpoint(), dir=tmp_path, name="run")
    module = with_sgd()
    host.fit(module)
    check_events(events.events)
    assert events.events.index("on_train_start") < events.events.index("on_model_save")
    assert (run.step, len(run.history)) == (plain.global_step, 2)  # Lightning 2.5.0 leaves out half of the first epoch

    again = tiny.trainer(tmp_path, 3, callbacks=[finder()])
    run = attach(again, dir=tmp_path, name="run", resume=True)
    twin = with_sgd()
    twin.batch_size = module.batch_size
    again.fit(twin)
    assert (run.step, len(run.history), again.current_epoch) == (plain.global_step + host.num_training_batches, 3, 3)


def test_a_run_goes_on_where_lightnings_own_checkpoint_does(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def again(folder, epochs, **options):
        native = ModelCheckpoint(folder, save_last=True, **options.pop("native", {}))
        events = RecordEvents()
        tiny.quiet()
        host = tiny.trainer(tmp_path, epochs, callbacks=[native], enable_checkpointing=True, **options)
        run = attach(host, events, EarlyStopping("val_loss", patience=3), dir=tmp_path)
        host.fit(tiny.net(), *tiny.loaders(), ckpt_path="last")
        check_events(events.events)
        return run, events.events

    cases = ({}, {"native": {"save_on_train_epoch_end": False}}, {"val_check_interval": 0.5})
    for number, options in enumerate(cases):
        folder = tmp_path / f"own{number}"
        _, events = again(folder, 2, **options)
        assert "on_resume" not in events  # "last" is none yet, and Lightning begins afresh
        run, events = again(folder, 4, **options)
        assert "on_resume" in events
        assert ([row["train/loss"] > 0 for row in run.history], run.step) == ([True, True], 16)


def test_an_epoch_that_lightning_cut_short_is_no_point_to_go_on_from(tmp_path):
    run, *_ = fit(tmp_path, Checkpoint(keep_last=3), epochs=3, max_steps=6)
    assert [one.manifest.resume_point for one in run.checkpoints] == [True, False]


def test_callbacks_that_the_module_brings_come_before_ours(tmp_path):
    from lightning.pytorch.callbacks import LambdaCallback

    order = []

    class Net(type(tiny.net())):
        def configure_callbacks(self):
            return [LambdaCallback(on_validation_end=lambda *_: order.append("Lightning's"))]

    fit(tmp_path, Look("on_val_end", lambda run: order.append("ours")), epochs=1, module=Net(), num_sanity_val_steps=0)
    assert order == ["Lightning's", "ours"]


def test_a_metric_has_one_name_in_the_history(tmp_path):
    class Net(type(tiny.net())):
        def training_step(self, batch, batch_idx):
            loss = self.of(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("other", loss, on_step=True, on_epoch=True)
            self.log("time_step", 1.0, on_step=True)
            return loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val_loss", self.of(batch), on_step=True, on_epoch=True)

    loader, held_out = tiny.loaders()
    run, *_ = fit(tmp_path, epochs=1, module=Net(), data=(loader, [held_out, held_out]))
    of_loaders = {f"val/loss/dataloader_idx_{number}" for number in (0, 1)}
    assert set(run.history[0]) == {"train/loss", "other", "time_step", "lr/pg0"} | of_loaders


def test_validation_loaders_that_are_read_side_by_side_are_counted_once(tmp_path):
    from lightning.pytorch.utilities import CombinedLoader

    class Net(type(tiny.net())):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.of(batch[0]))

    loader, held_out = tiny.loaders()
    numbers = Look("on_val_batch_end", lambda run: (run.val_batch, run.num_val_batches))
    data = (loader, CombinedLoader([held_out, held_out], "max_size"))
    fit(tmp_path, numbers, epochs=1, module=Net(), data=data)
    assert numbers.found == [(0, 2), (1, 2)]


def test_the_rate_of_an_epoch_is_that_of_its_last_step(tmp_path):
    from torch.optim.lr_scheduler import ExponentialLR

    module = with_sgd(lr_scheduler=lambda one: {"scheduler": ExponentialLR(one, 0.5), "interval": "step"})
    stop = Look("on_train_batch_end", lambda run: run.batch == 1 and run.stop("enough"))
    run, host, _ = fit(tmp_path, stop, epochs=1, module=module)
    assert run.history[0]["lr/pg0"] == pytest.approx(0.025)
    assert host.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_shown_unscaled_under_amp(fused, tmp_path):
    import torch
    from lightning.pytorch.plugins import MixedPrecision

    class Gradients(Callback):
        largest = 0.0

        def before_step(self, run, optimizer):
            self.largest = max(one.grad.abs().max().item() for one in run.model.parameters())

    class Net(type(tiny.net())):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01, fused=fused)

    seen = Gradients()
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    run, *_ = fit(tmp_path, seen, epochs=1, module=Net(), plugins=[plugin])
    assert 0 < seen.largest < 100
    assert run.step == 4


def test_a_trainer_that_pickles_itself_is_refused(tmp_path):
    with pytest.raises(AttachError, match="ddp_spawn"):
        attach(tiny.trainer(tmp_path, 1, strategy="ddp_spawn", devices=2))


def test_lightnings_name_of_a_metric_is_accepted_where_the_module_logs_ours(tmp_path):
    class Net(type(tiny.net())):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.of(batch))

    run, *_ = fit(tmp_path, EarlyStopping("val_loss", patience=3), Checkpoint(), module=Net())
    assert run.end_reason == "completed"
    host = tiny.trainer(tmp_path, 3)
    run = attach(host, EarlyStopping("val_loss", patience=3), dir=tmp_path, name="fit", resume=True)
    host.fit(Net(), *tiny.loaders())
    assert (run.end_reason, len(run.history)) == ("completed", 3)


def test_a_policy_waits_for_a_validation_that_comes_after_the_first_epoch(tmp_path):
    run, *_ = fit(tmp_path, EarlyStopping("val/loss", patience=3), check_val_every_n_epoch=2)
    assert ["val/loss" in row for row in run.history] == [False, True]
