"""A Lightning Trainer as a run sees it: moments, names, stops, rates, and a trainer that is as before afterwards."""

import copy
import os
import signal

import pytest

from epochal import EMA, Callback, Checkpoint, EarlyStopping, Every, TensorBoardLogger, attach
from epochal.core.errors import AttachError, CapabilityError
from epochal.core.events import check_events
from epochal.testing import RecordEvents
from tests.trainers import lightning as tiny

pytest.importorskip("lightning")


class Look(Callback):
    """Calls a function at every occurrence of an event, and keeps what it returns."""

    def __init__(self, event, see):
        self.see, self.found = see, []
        setattr(self, event, self.happen)

    def happen(self, run):
        self.found.append(self.see(run))


def fit(folder, *callbacks, epochs=2, module=None, data=None, **options):
    """Fit a tiny module; return the run, the trainer and the module."""
    tiny.quiet()
    module = module or tiny.net()
    host = tiny.trainer(folder, epochs, **options)
    run = attach(host, *callbacks, dir=folder, name="fit")
    host.fit(module, *(data or tiny.loaders()))
    return run, host, module


def test_passive_callbacks_change_no_weight_and_the_trainer_is_as_before(tmp_path):
    import torch

    tiny.quiet()
    plain, host = tiny.net(), tiny.trainer(tmp_path, 2)
    host.fit(plain, *tiny.loaders())
    numbers = torch.rand(1)

    watched, trainer = tiny.net(), tiny.trainer(tmp_path, 2)
    callbacks, inside = list(trainer.callbacks), {name: dict(vars(getattr(trainer, name))) for name in ("strategy",)}
    loops = [set(vars(loop)) for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop)]
    run = attach(trainer, RecordEvents(), dir=tmp_path, name="watched")
    trainer.fit(watched, *tiny.loaders())
    assert torch.equal(torch.rand(1), numbers)
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    assert trainer.callbacks == callbacks
    assert set(vars(trainer.strategy)) == set(inside["strategy"])
    assert [set(vars(loop)) for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop)] == loops
    assert [one.name for one in tmp_path.iterdir()] == ["watched"]
    run.detach()
    assert "fit" not in vars(trainer)


def test_what_a_module_logs_has_our_names_and_lightnings_values(tmp_path):
    import torch

    class Net(type(tiny.net())):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train_acc", loss.detach() * 2, on_step=False, on_epoch=True)
            self.log("both", loss.detach() * 3, on_step=True, on_epoch=True)
            return loss

        def on_train_epoch_end(self):
            self.log("late", float(self.current_epoch))

        def on_validation_epoch_end(self):
            if self.current_epoch == 0:
                self.log("val_first", 1.0)

    torch.manual_seed(0)
    losses = Look("on_train_batch_end", lambda run: run.metrics["train/loss"])
    early = Look("on_train_epoch_end", lambda run: (run.metrics["train/acc"], run.metrics["train/loss"]))
    run, host, _ = fit(tmp_path, losses, early, module=Net())
    first, second = run.history
    of_second = losses.found[4:]
    assert second["train/loss"] == pytest.approx(sum(of_second) / 4)
    assert early.found[1] == pytest.approx((2 * second["train/loss"], second["train/loss"]))
    assert second["both"] == pytest.approx(3 * second["train/loss"])
    assert second["val/loss"] == host.callback_metrics["val_loss"].item() == run.metrics["val_loss"]
    assert (first["late"], second["late"]) == (0.0, 1.0)
    assert "val/first" in first
    assert "val/first" not in second  # Lightning still shows the old value
    assert host.callback_metrics["val_first"] == 1.0
    assert run.fitness == -second["val/loss"]
    assert (first["lr/pg0"], second["lr/pg0"]) == pytest.approx((0.05, 0.045))


def test_losses_of_an_accumulation_group_are_not_divided(tmp_path):
    found = []

    class Net(type(tiny.net())):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            found.append(loss.item())
            return {"loss": loss, "more": 1}

    seen = Look("on_train_batch_end", lambda run: (run.metrics["train/loss"], run.outputs["loss"].item(), run.step))
    run, host, _ = fit(tmp_path, seen, module=Net(), epochs=1, accumulate_grad_batches=3)
    assert [one[:2] for one in seen.found] == [(loss, loss) for loss in found]
    assert [one[2] for one in seen.found] == [0, 0, 1, 2]
    assert run.step == host.global_step == 2


def test_a_stop_waits_for_min_epochs_and_for_the_group(tmp_path):
    stop = Look("on_train_batch_end", lambda run: run.stop("enough"))
    run, *_ = fit(tmp_path, stop, epochs=4, min_epochs=2)
    assert (len(run.history), run.end_reason) == (2, "stopped")
    run, *_ = fit(tmp_path, Look("on_train_batch_end", lambda run: run.stop("enough")), accumulate_grad_batches=3)
    assert (run.engine.batches, run.step, len(run.history)) == (3, 1, 1)


def test_lightnings_own_stops_are_written_down(tmp_path):
    from lightning.pytorch.callbacks import EarlyStopping as Native

    run, *_ = fit(tmp_path, epochs=5, callbacks=[Native("val_loss", min_delta=100.0, patience=1)])
    assert len(run.history) == 2
    assert run.end_reason == "stopped"
    assert "Lightning" in run.stop_reason
    run, *_ = fit(tmp_path, epochs=5, max_steps=6)
    assert run.step == 6
    assert "max_steps=6" in run.stop_reason
    assert len(run.history) == 2


def test_validations_come_where_lightning_has_them(tmp_path):
    events = RecordEvents()
    run, *_ = fit(tmp_path, events, epochs=2, check_val_every_n_epoch=2, num_sanity_val_steps=2)
    check_events(events.events)
    assert events.events.count("on_val_start") == 1
    assert "val/loss" not in run.history[0]
    events = RecordEvents()
    loader, held_out = tiny.loaders()
    module = tiny.net()
    original = type(module).validation_step
    type(module).validation_step = lambda self, batch, batch_idx, dataloader_idx=0: original(self, batch, batch_idx)
    numbers = Look("on_val_batch_end", lambda run: (run.val_batch, run.num_val_batches))
    run, *_ = fit(tmp_path, events, numbers, epochs=1, module=module, data=(loader, [held_out, held_out]))
    check_events(events.events)
    assert numbers.found == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert run.history[0]["val/loss/dataloader_idx_0"] == run.history[0]["val/loss/dataloader_idx_1"]


def test_data_without_a_length_and_limits(tmp_path):
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(tiny.loaders()[0].dataset)

    events = RecordEvents()
    run, *_ = fit(tmp_path, events, data=(DataLoader(Stream(), 4), tiny.loaders()[1]))
    check_events(events.events)
    assert (run.num_batches, run.step, len(run.history)) == (None, 8, 2)
    run, *_ = fit(tmp_path, limit_train_batches=3, limit_val_batches=1)
    assert (run.num_batches, run.step) == (3, 6)
    run, *_ = fit(tmp_path, limit_val_batches=0, epochs=1)
    assert "val/loss" not in run.history[0]


def test_ctrl_c_comes_out_as_lightning_lets_it_and_the_run_was_interrupted(tmp_path):
    def press(run):
        raise KeyboardInterrupt

    events = RecordEvents()
    tiny.quiet()
    host = tiny.trainer(tmp_path, 2)
    run = attach(host, Look("on_train_batch_start", press), events, dir=tmp_path)
    with pytest.raises(SystemExit):
        host.fit(tiny.net(), *tiny.loaders())
    assert run.end_reason == "interrupted"
    assert events.events[-2:] == ["on_exception", "teardown"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_leaves_a_checkpoint_and_exits_with_143(tmp_path):
    tiny.quiet()
    host, before = tiny.trainer(tmp_path, 3), signal.getsignal(signal.SIGTERM)
    kill = Look("on_train_batch_start", lambda run: run.step == 5 and os.kill(os.getpid(), signal.SIGTERM))
    run = attach(host, kill, Checkpoint(), dir=tmp_path, name="fit")
    with pytest.raises(SystemExit) as left:
        host.fit(tiny.net(), *tiny.loaders())
    assert left.value.code == 143
    assert run.end_reason == "preempted"
    assert [one.manifest.step for one in run.checkpoints][-1] == 6
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_rate_that_was_set_stays_under_the_schedule(tmp_path):
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    class Rates(Callback):
        def on_train_epoch_start(self, run):
            run.set_lr(0.5 if run.epoch == 1 else None)

    used = []
    run, host, _ = fit(tmp_path, Rates(), epochs=1)
    handle = register_optimizer_step_pre_hook(lambda one, *_: None)
    handle.remove()

    class Net(type(tiny.net())):
        def on_before_optimizer_step(self, optimizer):
            used.append(optimizer.param_groups[0]["lr"])

    run, host, _ = fit(tmp_path, Rates(), epochs=3, module=Net())
    assert used == pytest.approx([0.05] * 4 + [0.5] * 4 + [0.05 * 0.9**2] * 4)
    assert [row["lr/pg0"] for row in run.history] == pytest.approx([0.05, 0.5, 0.05 * 0.9**2])
    assert host.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.9**3)


def test_gradients_are_shown_behind_clipping_and_a_skipped_step_does_not_count(tmp_path):
    import torch

    class Gate(Callback):
        def __init__(self):
            self.norms = []

        def before_step(self, run, optimizer):
            gradients = [one.grad for group in optimizer.param_groups for one in group["params"]]
            self.norms.append(torch.cat([one.flatten() for one in gradients]).norm().item())
            assert run.metrics.measured("train/loss").batch == run.batch
            if len(self.norms) == 2:
                run.skip_step()

    gate = Gate()
    run, *_ = fit(tmp_path, gate, epochs=1, gradient_clip_val=1e-3)
    assert len(gate.norms) == 4
    assert max(gate.norms) <= 1e-3 * 1.001
    assert run.step == 3


def test_the_first_of_several_optimizers_counts(tmp_path):
    import torch

    class Both(type(tiny.net())):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self):
            one, two = self.layers[0].parameters(), self.layers[2].parameters()
            return torch.optim.SGD(one, lr=0.1), torch.optim.SGD(two, lr=0.01)

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.of(batch))
                optimizer.step()

    events = RecordEvents()
    run, *_ = fit(tmp_path, events, epochs=1, module=Both())
    check_events(events.events)
    assert run.step == 4
    assert events.events.count("optimizer_step") == 8
    assert set(run.history[0]) >= {"lr/pg0", "lr/optimizer1/pg0"}


def test_validating_alone_is_no_part_of_a_run_and_a_second_fit_is_a_second_training(tmp_path):
    events = RecordEvents()
    run, host, module = fit(tmp_path, events, EarlyStopping("val_loss", patience=3), epochs=1)
    seen = len(events.events)
    host.validate(module, tiny.loaders()[1], verbose=False)
    assert len(events.events) == seen
    host.fit_loop.max_epochs = 2
    host.fit(module, *tiny.loaders())
    check_events(events.events[seen:])
    assert [one.epochs for one in run.past] == [1, 1]
    host.fit(module, *tiny.loaders())  # nothing is left to do
    assert [one.epochs for one in run.past] == [1, 1, 0]
    assert run.end_reason == "completed"


def test_lightnings_own_checkpoints_are_told_where_an_event_may_come(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    events = RecordEvents()
    options = {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(tmp_path / "own", every_n_train_steps=3)]}
    fit(tmp_path, events, Checkpoint(when=Every(batches=2), snapshot="off"), **options)
    check_events(events.events)
    assert events.events.count("on_model_save") == 6


def test_what_lightning_does_itself_is_refused_with_its_option(tmp_path):
    from epochal import GradientAccumulation

    tiny.quiet()
    host = tiny.trainer(tmp_path, 1)
    with pytest.raises(CapabilityError, match="accumulate_grad_batches"):
        attach(host, GradientAccumulation(2))
    with pytest.raises(AttachError, match="attach the Trainer that fits it"):
        attach(tiny.net())


@pytest.mark.slow  # tensorboard imports TensorFlow, where that is installed
def test_lightnings_logger_for_a_destination_that_ours_serves_writes_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.loggers import TensorBoardLogger as Native

    natives = [Native(tmp_path / "native"), CSVLogger(tmp_path / "csv")]
    before = dict(vars(natives[0]))
    run, host, _ = fit(tmp_path, TensorBoardLogger(), epochs=1, logger=natives, log_every_n_steps=1)
    assert "Lightning's TensorBoardLogger was off in this training" in run.past[-1].notes[0]
    assert set(vars(natives[0])) == set(before)
    assert host.loggers == natives
    assert list((tmp_path / "csv").rglob("metrics.csv"))
    run, *_ = fit(tmp_path, TensorBoardLogger(keep_native=True), epochs=1, logger=[Native(tmp_path / "kept")])
    assert not run.past[-1].notes


def test_the_best_weights_come_back_and_an_average_is_validated(tmp_path):
    import torch

    weights = Look("on_fit_epoch_end", lambda run: {name: one.clone() for name, one in run.model.state_dict().items()})
    rising = Look("on_val_end", lambda run: run.log({"val/rising": float(run.epoch)}))
    best = EarlyStopping("val/rising", mode="min", patience=1, restore_best=True)
    run, _, module = fit(tmp_path, rising, weights, best, epochs=4)
    assert len(run.history) == 2
    assert all(torch.equal(module.state_dict()[name], one) for name, one in weights.found[0].items())

    average = EMA(decay=0.9)
    shown = Look(
        "on_val_batch_start", lambda run: torch.equal(run.model.layers[0].weight, average.module.layers[0].weight)
    )
    run, *_ = fit(tmp_path, average, shown, epochs=1)
    assert average.updates == 4
    assert not any(shown.found)  # what is validated is the average: the numbers are exchanged for the time


def test_what_cannot_be_saved_is_left_out_and_the_rest_reaches_the_module_again(tmp_path, caplog):
    class Net(type(tiny.net())):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"], checkpoint["function"] = [1, 2], print

        def on_load_checkpoint(self, checkpoint):
            self.found = checkpoint["mine"], "function" in checkpoint

    fit(tmp_path, Checkpoint(), epochs=1, module=Net())
    assert "'function' is left out of checkpoints" in caplog.text
    host, module = tiny.trainer(tmp_path, 2), Net()
    attach(host, dir=tmp_path, name="fit", resume=True)
    host.fit(module, *tiny.loaders())
    assert module.found == ([1, 2], False)


def test_a_copied_trainer_has_a_run_of_its_own_and_a_failed_setup_ends_the_run(tmp_path):
    class Net(type(tiny.net())):
        def setup(self, stage):
            raise ValueError("planted")

    tiny.quiet()
    host, events = tiny.trainer(tmp_path, 1), RecordEvents()
    run = attach(host, events, dir=tmp_path)
    twin = copy.deepcopy(host)
    twin.fit(tiny.net(), *tiny.loaders())
    assert twin.fit.run is not run
    assert (twin.fit.run.end_reason, run.end_reason, events.events) == ("completed", None, [])
    with pytest.raises(ValueError, match="planted"):
        host.fit(Net(), *tiny.loaders())
    assert events.events == ["on_pretrain_routine_start", "on_exception", "teardown"]
    host.fit(tiny.net(), *tiny.loaders())
    assert run.end_reason == "completed"


def test_a_module_may_skip_the_rest_of_an_epoch_and_go_on_from_lightnings_own_file(tmp_path):
    class Net(type(tiny.net())):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    events = RecordEvents()
    run, host, _ = fit(tmp_path, events, module=Net())
    check_events(events.events)
    assert (run.step, len(run.history)) == (4, 2)
    host.save_checkpoint(tmp_path / "own.ckpt")
    again, events = tiny.trainer(tmp_path, 3), RecordEvents()
    run = attach(again, events, dir=tmp_path)
    again.fit(tiny.net(), *tiny.loaders(), ckpt_path=tmp_path / "own.ckpt")
    check_events(events.events)
    assert (run.epoch, run.step, len(run.history)) == (2, 8, 1)
    assert "on_resume" in events.events
