"""What people do with Hugging Face's Trainer beside the usual: data, loaders, evaluations and trainings of their own."""

import multiprocessing
import os
import random
import signal
import weakref

import pytest

from epochal import Checkpoint, EarlyStopping, Every, MetricNotFound, ResumableLoader, SaveOnException, attach
from epochal.core.errors import CapabilityError, CheckpointError
from epochal.testing import RecordEvents
from tests.trainers.transformers import BATCHES, data, net, trainer

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.usefixtures("transformers_preloaded", "traces_checked")


def small(room):
    """Return a net that has memory for so many samples only."""

    class Small(type(net())):
        def forward(self, x, labels=None):
            if len(x) > room:
                raise RuntimeError("CUDA out of memory.")
            return super().forward(x, labels)

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return Small()


# -- data and evaluations ---------------------------------------------------------------------------------------------


def test_a_trainer_needs_no_evaluation_data(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1, eval_strategy="no")
    host.eval_dataset = None
    run = attach(host, dir=tmp_path)
    host.train()
    assert run.end_reason == "completed"


def test_evaluation_data_are_read_by_evaluations_only(tmp_path):
    reads = []

    class Drawing:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            reads.append(index)
            random.random()
            return data(1, first=1)[index]

    host = trainer(tmp_path, held_out=Drawing(), num_train_epochs=1)
    attach(host, dir=tmp_path)
    assert reads == []
    host.train()
    assert reads == [0, 1, 2, 3]


def test_an_evaluate_that_returns_nothing_is_an_evaluation(tmp_path):
    from transformers import Trainer

    class Own(Trainer):
        def evaluate(self, *args, **options):
            super().evaluate(*args, **options)

    host = trainer(tmp_path, kind=Own, num_train_epochs=1)
    run = attach(host, dir=tmp_path)
    host.train()
    assert run.history[0]["val/loss"] > 0


@pytest.mark.parametrize("evaluated", [{}, {"eval_strategy": "steps", "eval_steps": 2}])
def test_what_transformers_logs_at_a_step_belongs_to_its_batch(tmp_path, evaluated):
    host = trainer(tmp_path, num_train_epochs=1, logging_strategy="steps", logging_steps=1, **evaluated)
    record = RecordEvents()
    run = attach(host, record, dir=tmp_path)
    host.train()
    norms = [line["grad_norm"] for line in host.state.log_history if "grad_norm" in line]
    assert len(norms) == BATCHES
    assert run.history[0]["train/grad_norm"] == pytest.approx(sum(norms) / BATCHES)
    last = len(record.events) - record.events[::-1].index("on_val_start") - 1
    assert record.events.index("on_train_epoch_end") < last


def test_an_evaluation_inside_a_group_lets_its_stop_wait_for_the_step(tmp_path):
    from transformers import TrainerCallback

    class Own(TrainerCallback):
        def on_substep_end(self, args, state, control, **_):
            host.evaluate()

    host = trainer(tmp_path, callbacks=[Own()], num_train_epochs=1, gradient_accumulation_steps=2, eval_strategy="no")
    run = attach(host, Checkpoint(Every(batches=1), snapshot="off", keep_last=9), dir=tmp_path)
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough") if run.batch == 0 else None)
    host.train()
    assert [(one.manifest.batch, one.manifest.step, one.manifest.resume_point) for one in run.checkpoints] == [
        (1, 1, True)
    ]


def test_what_the_model_returned_lives_on_only_where_somebody_may_look(tmp_path, monkeypatch):
    from transformers import TrainerCallback

    monkeypatch.delenv("EPOCHAL_DEBUG")  # it listens to everything
    lives = []

    class Model(type(net())):
        def forward(self, x, labels=None):
            found = super().forward(x, labels)
            found["scores"] = found["logits"].detach().clone()
            self.scores = weakref.ref(found["scores"])
            return found

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **_):
            lives.append(host.model.scores() is not None)

    for listens in (False, True):
        host = trainer(tmp_path, model=Model(), callbacks=[Look()], max_steps=1, eval_strategy="no")
        run = attach(host, EarlyStopping("train/loss", patience=3), dir=tmp_path)
        if listens:
            run.add_callback("on_train_batch_end", lambda run: lives.append(run.outputs["scores"] is not None))
        host.train()
    assert lives == [False, True, True]


# -- trainings --------------------------------------------------------------------------------------------------------


def test_a_train_of_ones_own_gets_its_arguments(tmp_path):
    from transformers import Trainer

    class Own(Trainer):
        def train(self, stage, resume_from_checkpoint=None):
            self.stage = stage
            return super().train(resume_from_checkpoint=resume_from_checkpoint)

    host = trainer(tmp_path, kind=Own, num_train_epochs=1)
    attach(host, dir=tmp_path)
    host.train("second")
    assert host.stage == "second"


def test_a_stop_leaves_no_workers_behind(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1, dataloader_num_workers=1, eval_strategy="no")
    run = attach(host, dir=tmp_path)
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough"))
    host.train()
    assert run.step == 1
    assert multiprocessing.active_children() == []


def test_rates_hold_when_all_begins_anew_with_smaller_batches(tmp_path):
    options = {"auto_find_batch_size": True, "per_device_eval_batch_size": 2, "max_steps": 6, "eval_strategy": "no"}
    host = trainer(tmp_path, model=small(2), **options)
    run = attach(host, dir=tmp_path)
    run.add_callback("on_train_start", lambda run: run.set_lr(0.0))
    host.train()
    assert run.step == 6
    assert all(
        bool((one == other).all()) for one, other in zip(host.model.parameters(), net().parameters(), strict=True)
    )
    assert run.num_epochs == host.state.num_train_epochs == 1


def test_a_stop_of_one_process_is_a_stop_of_all(tmp_path):
    host = trainer(tmp_path, num_train_epochs=4)
    run = attach(host, dir=tmp_path)
    asked = []

    def agree(number):  # a process beside this one wants to stop at the end of the second epoch
        asked.append(number)
        return int(run.epoch == 1 and len(asked) % 2 == 0)

    run.add_callback("on_train_epoch_start", lambda run: setattr(run.engine, "agree", agree), once=True)
    host.train()
    assert (len(run.history), run.stop_reason) == (2, "Transformers: asked for in another process")


# -- signals ----------------------------------------------------------------------------------------------------------


def test_a_signal_waits_for_transformers_own_save_and_loses_no_step(tmp_path):
    host = trainer(tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=2)
    record = RecordEvents()
    run = attach(host, record, Checkpoint(Every(epochs=1)), dir=tmp_path)
    run.add_callback(
        "on_train_batch_start", lambda run: os.kill(os.getpid(), signal.SIGTERM) if run.step == 5 else None
    )
    with pytest.raises(SystemExit):
        host.train()
    newest = run.checkpoints.last.manifest
    assert (run.step, newest.step, newest.resume_point) == (6, 6, True)
    assert (tmp_path / "native" / "checkpoint-6").is_dir()


def test_a_signal_in_a_step_that_brings_an_evaluation_loses_no_step(tmp_path):
    host = trainer(tmp_path, num_train_epochs=2, eval_strategy="steps", eval_steps=2)
    run = attach(host, Checkpoint(Every(epochs=1)), dir=tmp_path)
    run.add_callback("on_val_start", lambda run: os.kill(os.getpid(), signal.SIGTERM) if run.step == 6 else None)
    with pytest.raises(SystemExit):
        host.train()
    newest = run.checkpoints.last.manifest
    assert (run.step, newest.step, newest.resume_point) == (6, 6, True)


def test_a_policy_waits_for_an_evaluation_that_comes_after_the_first_epoch(tmp_path):
    host = trainer(tmp_path, num_train_epochs=3, eval_strategy="steps", eval_steps=6)
    run = attach(host, EarlyStopping("val/loss", patience=3), dir=tmp_path)
    host.train()
    assert (run.end_reason, "val/loss" in run.history[0], "val/loss" in run.history[1]) == ("completed", False, True)

    host = trainer(tmp_path, num_train_epochs=3, eval_strategy="steps", eval_steps=6)
    run = attach(host, EarlyStopping("val/los", patience=3, mode="min"), dir=tmp_path)
    with pytest.raises(MetricNotFound, match="did you mean 'val/loss'"):
        host.train()
    assert run.epoch == 1


def test_a_signal_outlives_an_error_while_it_waits(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1, gradient_accumulation_steps=2)
    run = attach(host, dir=tmp_path)
    run.add_callback("on_train_batch_start", lambda _: os.kill(os.getpid(), signal.SIGTERM), once=True)
    run.add_callback("on_train_batch_end", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as left:
        host.train()
    assert left.value.code == 143


# -- going on ---------------------------------------------------------------------------------------------------------


def stopped(folder, *, at, **options):
    """Train until a step, and leave a checkpoint there."""
    host = trainer(folder, **{"num_train_epochs": 2} | options)
    run = attach(host, Checkpoint(Every(batches=1), snapshot="off"), dir=folder, name="run")
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough") if run.step == at else None)
    host.train()


@pytest.mark.parametrize(
    ("at", "options", "says"),
    [
        (6, {"per_device_train_batch_size": 2}, "batches was 4, is 8"),
        (
            4,
            {"gradient_accumulation_steps": 2},
            "step 4 was behind batch 0 of epoch 1, and would be behind batch 0 of epoch 2",
        ),
    ],
)
def test_another_number_of_steps_in_an_epoch_is_refused(tmp_path, at, options, says):
    stopped(tmp_path, at=at)
    host = trainer(tmp_path, num_train_epochs=2, **options)
    run = attach(host, Checkpoint(), SaveOnException(), dir=tmp_path, name="run", resume=True)
    with pytest.raises(CheckpointError, match=says):
        host.train()
    assert run.step == at
    assert not (tmp_path / "run" / ".resume").exists()


def test_no_memory_left_in_a_resumed_training_is_no_new_begin(tmp_path):
    options = {"auto_find_batch_size": True, "eval_strategy": "no"}
    stopped(tmp_path, at=4, model=small(4), **options)
    host = trainer(tmp_path, model=small(2), num_train_epochs=2, **options)
    attach(host, Checkpoint(), dir=tmp_path, name="run", resume=True)
    with pytest.raises(CheckpointError, match="no memory was left for batches of the size it was saved with"):
        host.train()


def test_a_loader_that_transformers_cannot_enter_is_gone_on_with_at_an_epochs_end(tmp_path):
    from transformers import Trainer

    class Own(Trainer):
        def get_train_dataloader(self):
            return ResumableLoader(self.train_dataset, batch_size=4, seed=1, collate_fn=self.data_collator)

    stopped(tmp_path, at=6, kind=Own)
    host = trainer(tmp_path, kind=Own, num_train_epochs=2)
    run = attach(host, Checkpoint(), dir=tmp_path, name="run", resume=True)
    begun = []
    run.add_callback("on_train_batch_start", lambda run: begun.append((run.epoch, run.batch)))
    host.train()
    assert begun == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_several_processes_are_gone_on_with_by_transformers_only(tmp_path, monkeypatch):
    stopped(tmp_path, at=4)
    host = trainer(tmp_path, num_train_epochs=2)
    attach(host, Checkpoint(), dir=tmp_path, name="run", resume=True)
    monkeypatch.setattr(type(host.args), "world_size", property(lambda _: 2))
    with pytest.raises(CapabilityError, match=r"in 2 processes .*train\(resume_from_checkpoint="):
        host.train()
