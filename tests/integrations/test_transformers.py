"""What a run sees of Hugging Face's Trainer, and how it steers it."""

import copy
import pickle
import sys
from types import ModuleType

import pytest

from epochal import (
    EMA,
    Best,
    Callback,
    Checkpoint,
    EarlyStopping,
    Every,
    GradientAccumulation,
    GradientClip,
    LearningRateFinder,
    LossSpike,
    Stop,
    Target,
    attach,
)
from epochal.core.errors import AttachError, CapabilityError
from epochal.testing import RecordEvents, check_events
from tests.trainers.transformers import data, net, trainer

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.usefixtures("transformers_preloaded", "traces_checked")


def weights(host):
    """Return a trainer's weights as bytes."""
    return [one.detach().numpy().tobytes() for one in host.model.parameters()]


class Watching(Callback):
    """Looks at everything there is."""

    guarded = True

    def on_train_batch_end(self, run):
        self.seen = (run.data, run.outputs, dict(run.metrics), dict(run.lr))


def test_callbacks_that_only_look_change_no_weight_and_leave_the_trainer_as_it_was(tmp_path):
    alone = trainer(tmp_path, num_train_epochs=2, gradient_accumulation_steps=2)
    alone.train()
    host = trainer(tmp_path, num_train_epochs=2, gradient_accumulation_steps=2)
    callbacks = list(host.callback_handler.callbacks)
    watching = Watching()
    run = attach(host, watching, Checkpoint(Every(batches=1)), RecordEvents(), dir=tmp_path)
    before = set(vars(host))
    host.train()
    assert weights(host) == weights(alone)
    assert set(vars(host)) - set(vars(alone)) == {"train"}
    assert before <= set(vars(host))
    assert host.callback_handler.callbacks == callbacks
    seen = watching.seen
    assert set(seen[0]) == {"x", "labels"}
    assert seen[1]["logits"].shape == (4, 1)
    run.detach()
    assert "train" not in vars(host)


def test_names_are_ours_and_transformers_own_are_understood(tmp_path):
    import torch
    from transformers import TrainerCallback

    losses = []

    class Model(type(net())):
        def forward(self, x, labels=None):
            found = super().forward(x, labels)
            if self.training:
                losses.append(float(found["loss"].detach()))
            return found

    class Speaks(TrainerCallback):
        def on_substep_end(self, args, state, control, **_):
            host.log({"reward": float(state.global_step)})

    torch.manual_seed(0)
    options = {"logging_strategy": "steps", "logging_steps": 1, "gradient_accumulation_steps": 2}
    host = trainer(tmp_path, model=Model(), callbacks=[Speaks()], num_train_epochs=2, **options)
    run = attach(host, EarlyStopping("eval_loss", patience=9), Stop(Target("eval_loss", -1.0)), dir=tmp_path)
    host.train()
    for epoch, row in enumerate(run.history):
        assert set(row) == {"train/loss", "train/grad_norm", "reward", "lr/pg0", "lr/pg1", "val/loss"}
        assert row["train/loss"] == pytest.approx(sum(losses[4 * epoch : 4 * epoch + 4]) / 4)
        native = [line["loss"] for line in host.state.log_history if "loss" in line][2 * epoch : 2 * epoch + 2]
        assert row["train/loss"] == pytest.approx(sum(native) / 2, abs=1e-4)
    assert run.metrics["eval_loss"] == run.metrics["val/loss"] == host.evaluate()["eval_loss"]
    assert run.step == host.state.global_step == 4
    assert run.fitness == -run.metrics["val/loss"]


class Half(Callback):
    """Halves the rate after the first batch, and sets it in the second epoch."""

    def on_train_batch_end(self, run):
        if run.step == 1:
            run.scale_lr(0.5)

    def on_train_epoch_start(self, run):
        if run.epoch == 1:
            run.set_lr(0.01, group="pg0")


def test_rates_that_were_asked_for_stay_under_the_schedule(tmp_path):
    def rates(*callbacks):
        host = trainer(tmp_path, num_train_epochs=2)
        used, hooks = [], []
        run = attach(host, *callbacks, dir=tmp_path)

        def use(optimizer, *_):  # the hook that was registered last is called last
            used.append(tuple(group["lr"] for group in optimizer.param_groups))
            hooks.pop().remove()

        run.add_callback("on_train_batch_start", lambda run: hooks.append(run.optimizer.register_step_pre_hook(use)))
        host.train()
        return used, host.lr_scheduler.get_last_lr()

    plain, last = rates()
    halved, last_too = rates(Half())
    assert len(plain) == len(halved) == 8
    assert [one[1] for one in halved] == [plain[0][1], *(one[1] / 2 for one in plain[1:])]
    assert [one[0] for one in halved] == [plain[0][0], *(one[0] / 2 for one in plain[1:4]), *[0.01] * 4]
    assert last == last_too


def test_several_data_sets_make_one_validation(tmp_path):
    held_out = {"news": data(2, first=1), "mail": data(1, first=2)}
    host = trainer(tmp_path, held_out=held_out, num_train_epochs=1, eval_on_start=True)
    record = RecordEvents()
    run = attach(host, record, Stop(Target("eval_mail_loss", -1.0)), dir=tmp_path, fitness="-eval_news_loss")
    seen = []
    run.add_callback("on_val_batch_start", lambda run: seen.append((run.val_batch, run.num_val_batches)))
    host.train()
    assert record.events.count("on_val_start") == 2  # before the first epoch, and in it
    assert seen == [(0, 2), (1, 2), (2, 3)] * 2
    assert {"val/news_loss", "val/mail_loss"} <= set(run.history[0])
    assert {"final/news_loss", "final/mail_loss"} <= set(run.metrics)
    assert not any(name.startswith("final/") for name in run.history[0])
    assert run.fitness == -run.metrics["val/news_loss"]


def test_the_metric_for_the_best_model_is_the_fitness_and_restore_best_has_the_last_word(tmp_path):
    import torch

    values = iter([3.0, 1.0, 2.0])

    host = trainer(
        tmp_path, num_train_epochs=3, metric_for_best_model="errors", greater_is_better=False, save_strategy="epoch",
        load_best_model_at_end=True, more={"compute_metrics": lambda _: {"errors": next(values)}},
    )  # fmt: skip
    record, kept = RecordEvents(), {}
    run = attach(host, record, EarlyStopping("train/loss", patience=9, restore_best=True), dir=tmp_path)
    run.add_callback(
        "on_fit_epoch_end",
        lambda run: kept.update({run.epoch: {name: one.clone() for name, one in run.model.state_dict().items()}}),
    )
    host.train()
    assert [row["fitness"] for row in run.history] == [-3.0, -1.0, -2.0]
    assert run.best_fitness == -1.0
    assert host.state.best_global_step == 8
    assert (tmp_path / "native" / "checkpoint-12").is_dir()
    assert record.events.count("on_model_save") >= 6  # Transformers' own three, and ours
    best = min(range(3), key=lambda epoch: run.history[epoch]["train/loss"])
    assert all(torch.equal(one, kept[best][name]) for name, one in host.model.state_dict().items())


def test_steps_decide_where_a_training_ends_and_that_is_no_stop(tmp_path):
    host = trainer(tmp_path, max_steps=6, eval_strategy="steps", eval_steps=3)
    record = RecordEvents()
    run = attach(host, record, Checkpoint(), dir=tmp_path)
    ends = []
    run.add_callback("on_train_epoch_end", lambda run: ends.append(run.engine.metrics.measured("train/loss").step))
    host.train()
    assert (run.end_reason, run.stop_reason, run.num_epochs, run.step) == ("completed", None, 2, 6)
    assert [row.get("val/loss") is not None for row in run.history] == [True, True]
    last = record.events[record.events.index("on_train_epoch_end", record.events.index("on_fit_epoch_end")) :]
    assert last[:2] == ["on_train_epoch_end", "on_val_start"]  # the last validation of a step is behind it
    assert [one.manifest.resume_point for one in run.checkpoints] == [True, False]  # half an epoch is none


def test_data_without_a_length_are_trained_on_and_no_checkpoint_is_called_a_point_to_go_on_from(tmp_path):
    import torch

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(data(3))

    host = trainer(tmp_path, train=Stream(), max_steps=5, eval_strategy="steps", eval_steps=2)
    record = RecordEvents()
    run = attach(host, record, Checkpoint(Every(batches=1), snapshot="off", keep_last=9), dir=tmp_path)
    host.train()
    assert (run.end_reason, run.step, run.num_epochs, run.num_batches, len(run.history)) == (
        "completed",
        5,
        None,
        None,
        2,
    )
    assert [one.manifest.resume_point for one in run.checkpoints] == [False] * 5
    check_events(record.events)


def test_a_stop_before_the_first_epoch_trains_nothing(tmp_path):
    host = trainer(tmp_path, num_train_epochs=2)
    record, before = RecordEvents(), weights(host)
    run = attach(host, record, dir=tmp_path)
    run.add_callback("on_train_start", lambda run: run.stop("no need"))
    host.train()
    assert "on_train_epoch_start" not in record.events
    assert "on_val_start" not in record.events
    assert (weights(host) == before, run.step, run.end_reason) == (True, 0, "stopped")


def test_evaluations_of_the_users_own_inside_an_epoch_are_validations_between_batches(tmp_path):
    from transformers import TrainerCallback

    class Own(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step % 4 == 2:
                host.evaluate()
                host.predict(host.eval_dataset)

        on_epoch_begin = on_step_end

        def on_epoch_end(self, args, state, control, **_):
            host.evaluate()

    host = trainer(tmp_path, callbacks=[Own()], num_train_epochs=2, eval_strategy="no")
    record = RecordEvents()
    run = attach(host, record, Checkpoint(Every(batches=1), keep_last=20, snapshot="off"), dir=tmp_path)
    host.train()
    assert record.events.count("on_val_start") == 4
    assert record.events.count("on_val_batch_start") == 8
    saved = [(one.manifest.epoch, one.manifest.step) for one in run.checkpoints]
    assert saved == [(epoch, 4 * epoch + step) for epoch in (0, 1) for step in (1, 2, 3, 4)]


def test_no_memory_left_begins_anew_with_smaller_batches(tmp_path):
    class Small(type(net())):
        def forward(self, x, labels=None):
            if len(x) > 2:
                raise RuntimeError("CUDA out of memory.")
            return super().forward(x, labels)

    host = trainer(tmp_path, model=Small(), num_train_epochs=1, auto_find_batch_size=True, per_device_eval_batch_size=2)
    record = RecordEvents()
    run = attach(host, record, dir=tmp_path)
    host.train()
    assert record.events.count("on_train_epoch_abort") >= 1
    assert record.events.count("on_train_start") == record.events.count("on_fit_epoch_end") == 1
    assert (run.end_reason, run.step, len(run.history)) == ("completed", host.state.global_step, 1)


def test_our_loggers_take_the_place_of_transformers_own(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    # TensorBoard's own switch: it does not import TensorFlow, which takes a minute.
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
    from transformers.integrations import TensorBoardCallback

    from epochal import TensorBoardLogger

    def kinds(*loggers):
        host = trainer(tmp_path, num_train_epochs=1, report_to="tensorboard")
        run = attach(host, *loggers, dir=tmp_path)
        seen = []
        run.add_callback("on_train_start", lambda run: seen.extend(map(type, host.callback_handler.callbacks)))
        before = list(host.callback_handler.callbacks)
        host.train()
        assert host.callback_handler.callbacks == before
        return TensorBoardCallback in seen, run.past[-1].notes

    assert kinds() == (True, ())
    assert kinds(TensorBoardLogger(keep_native=True)) == (True, ())
    native, notes = kinds(TensorBoardLogger())
    assert not native
    assert "Transformers' own TensorBoard logging was off in this training" in notes[0]


def test_a_search_makes_many_trainings_of_one_run(tmp_path):
    optuna = pytest.importorskip("optuna")

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    host = trainer(tmp_path, num_train_epochs=1)
    host.model_init, host.model = (lambda _=None: net()), None
    run = attach(host, EarlyStopping("val/loss", patience=1), dir=tmp_path)
    best = host.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1)}, n_trials=3, backend="optuna"
    )
    assert [one.end_reason for one in run.past] == ["completed"] * 3
    assert min(one.history[-1]["val/loss"] for one in run.past) == pytest.approx(best.objective)
    assert len({one.dir for one in run.past}) == 3  # each is recorded as a run of its own


def test_callbacks_that_transformers_makes_anew_do_not_displace_ours(tmp_path):
    from transformers import EarlyStoppingCallback

    options = {"metric_for_best_model": "loss", "greater_is_better": False, "save_strategy": "epoch"}
    host = trainer(tmp_path, callbacks=[EarlyStoppingCallback(9)], num_train_epochs=2, **options)
    host.train()
    options |= {"restore_callback_states_from_checkpoint": True}
    host = trainer(tmp_path, callbacks=[EarlyStoppingCallback(9)], num_train_epochs=2, **options)
    record = RecordEvents()
    run = attach(host, record, EarlyStopping("val/loss", patience=5), dir=tmp_path)
    host.train(resume_from_checkpoint=str(tmp_path / "native" / "checkpoint-4"))
    assert (len(run.history), run.epoch, run.step) == (1, 1, 8)
    check_events(record.events)
    assert [type(one).__name__ for one in host.callback_handler.callbacks].count("Training") == 0


def test_gradients_can_be_changed_and_weights_averaged(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1, max_grad_norm=0.0)
    norms = []

    class Norm(Callback):
        def before_step(self, run, optimizer):
            norms.append(float(sum(p.grad.square().sum() for p in run.model.parameters()) ** 0.5))

    attach(host, GradientClip(0.1), Norm(), EMA(decay=0.5), dir=tmp_path)
    host.train()
    assert len(norms) == 4
    assert max(norms) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: GradientAccumulation(4), "gradient_accumulation_steps"),
        (lambda: LearningRateFinder(), "LearningRateFinder(loss="),
        (lambda: LossSpike("train/loss", then="rollback"), "cannot go back"),
    ],
)
def test_what_cannot_be_delivered_is_refused_with_its_cure(tmp_path, made, says):
    host = trainer(tmp_path, num_train_epochs=1)
    with pytest.raises(CapabilityError) as caught:
        attach(host, made())
    assert says in str(caught.value)
    assert "train" not in vars(host)


def test_a_second_attach_a_model_and_an_accelerator_are_refused(tmp_path):
    import accelerate

    host = trainer(tmp_path, num_train_epochs=1)
    attach(host)
    with pytest.raises(AttachError, match=r"attached to a run already: its run is \.train\.run"):
        attach(host)
    with pytest.raises(AttachError, match="an Accelerate loop is a loop of your own"):
        attach(accelerate.Accelerator())
    with pytest.raises(AttachError, match=r"attach the Trainer that trains it|attach a trainer|loop"):
        attach(host.model)


def test_an_error_leaves_the_trainer_able_to_train_again(tmp_path):
    model = net()
    model.error = ValueError("planted")
    host = trainer(tmp_path, model=model, num_train_epochs=1)
    before, callbacks = set(vars(host)), list(host.callback_handler.callbacks)
    record = RecordEvents()
    run = attach(host, record, Checkpoint(Best("val/loss")), dir=tmp_path)
    with pytest.raises(ValueError, match="planted"):
        host.train()
    assert record.events[-1] == "teardown"
    assert host.callback_handler.callbacks == callbacks
    assert not {"training_step", "evaluate", "prediction_step", "get_batch_samples"} & (set(vars(host)) - before)
    model.error = None
    host.train()
    assert [one.end_reason for one in run.past] == ["exception", "completed"]


def test_subclasses_with_losses_of_their_own_are_trainers_too(tmp_path):
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

    class Weighted(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(inputs["x"], labels)
            loss = 10 * outputs["loss"]
            return (loss, outputs) if return_outputs else loss

    host = trainer(tmp_path, kind=Weighted, num_train_epochs=1)
    run = attach(host, dir=tmp_path)
    seen = []
    run.add_callback("on_train_batch_end", lambda run: seen.append((set(run.data), run.metrics["train/loss"])))
    run.add_callback("on_train_batch_end", lambda run: seen.append(run.outputs["loss"].item()))
    host.train()
    assert seen[0][0] == {"x", "labels"}
    assert seen[0][1] == pytest.approx(10 * seen[1])

    host = Seq2SeqTrainer(
        model=net(), train_dataset=data(4), eval_dataset=data(2), args=Seq2SeqTrainingArguments(
            str(tmp_path / "s"), num_train_epochs=1, report_to="none", use_cpu=True, disable_tqdm=True,
            eval_strategy="epoch", save_strategy="no", per_device_train_batch_size=4,
        ),
    )  # fmt: skip
    run = attach(host, dir=tmp_path)
    host.train()
    assert "val/loss" in run.history[0]


def test_alone_an_evaluation_and_a_prediction_are_none_of_the_runs(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1)
    record = RecordEvents()
    attach(host, record, dir=tmp_path)
    host.evaluate()
    host.predict(host.eval_dataset)
    assert record.events == []


def test_an_entry_travels_with_a_copy_of_its_trainer(tmp_path):
    host = trainer(tmp_path, num_train_epochs=1)
    attach(host, EarlyStopping("val/loss", patience=3), dir=tmp_path)
    packed = pickle.loads(pickle.dumps(host.train.run.roster.callbacks["EarlyStopping(val/loss)"]))
    assert packed.name == "EarlyStopping(val/loss)"
    twin = copy.deepcopy(host)
    assert twin.train.run is not host.train.run
    twin.train()
    assert (len(twin.train.run.past), len(host.train.run.past)) == (1, 0)
