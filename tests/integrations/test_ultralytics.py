"""A run sees and steers a YOLO training, and the training stays what it was."""

import copy
import pickle

import pytest

from epochal import Callback, attach
from epochal.core.errors import AttachError
from epochal.testing import RecordEvents, check_events


class Notes(Callback):
    """Writes down what a function makes of the run at an event."""

    def __init__(self, event, make):
        self.made = []
        setattr(self, event, lambda run: self.made.append(make(run)))


class Passive(Callback):
    """Looks at everything that can be looked at."""

    def look(self, run):
        self.seen = [run.data, run.outputs, run.lr, run.fitness, dict(run.metrics), run.history, run.model, run.step]

    on_train_batch_start = optimizer_step = on_train_batch_end = on_train_epoch_end = on_val_batch_end = look
    on_val_end = on_fit_epoch_end = on_train_end = look


def weights(model):
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def same(one, other):
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_passive_callbacks_change_no_weight(yolo, quick):
    lively = quick(epochs=3, batch=4, nbs=8, mosaic=1.0, close_mosaic=1, warmup_epochs=1, optimizer="AdamW", seed=3)
    live = []
    for attached in (False, True):
        model = yolo(whole=True)
        model.add_callback(
            "on_train_end", lambda trainer: live.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        )
        if attached:
            run = attach(model, Passive(), RecordEvents())
            run.add_callback("on_train_batch_end", lambda run: run.metrics["train/loss"])
        model.train(**lively)
        live.append(weights(model))
    assert same(live[0], live[2])
    assert same(live[1], live[3])


def test_metrics_have_our_names_and_theirs(yolo, quick):
    model = yolo()
    ends, batches = Notes("on_fit_epoch_end", lambda run: (dict(run.metrics), dict(run.trainer.metrics))), []
    run = attach(model, ends)

    @run.on("on_train_batch_end")
    def look(run):
        batches.append((run.metrics["train/loss"], sum(float(v) for v in run.trainer.loss_items.values())))

    model.train(**quick(epochs=1))
    ours, theirs = ends.made[0]
    for loss, expected in batches:
        assert loss == pytest.approx(expected, rel=1e-6)
    assert ours["train/loss"] == pytest.approx(sum(loss for loss, _ in batches) / 2)
    for name, value in theirs.items():
        assert run.metrics[name] == value if not name.startswith("val/") else ours[name] == value
    assert ours["val/loss"] == pytest.approx(theirs["val/box_loss"] + theirs["val/cls_loss"] + theirs["val/l1_loss"])
    assert run.metrics["val/mAP50"] == run.metrics["val/mAP50(B)"] == run.metrics["metrics/mAP50(B)"]
    assert "final/mAP50(B)" in run.metrics
    assert "val/mAP50(B)" in run.history[0]
    assert ours["lr/pg0"] == pytest.approx(0.001)
    assert not [name for name in run.history[0] if name.startswith("final/")]


def test_fitness_is_fresh_from_val_end_on_and_its_age_is_told(yolo, quick, caplog, monkeypatch):
    model = yolo()
    values = iter([0.25, 0.5])
    early, late = (
        Notes("on_train_epoch_end", lambda run: run.fitness),
        Notes("on_fit_epoch_end", lambda run: run.fitness),
    )
    val = Notes("on_val_end", lambda run: run.trainer.fitness)
    run = attach(model, early, late, val)

    @run.on("on_train_epoch_start")
    def rate_epoch(run):
        value = next(values)
        monkeypatch.setattr(type(run.trainer.validator.metrics), "fitness", property(lambda _: value))

    model.train(**quick())
    assert early.made == [None, 0.25]
    assert late.made == [0.25, 0.5]
    assert val.made[:2] == [0.25, 0.5]
    assert (run.best_fitness, run.fitness) == (0.5, 0.5)
    assert len([one for one in caplog.messages if "on_fit_epoch_end" in one and "epoch 0" in one]) == 1


def test_data_is_the_batch_as_loaded_and_outputs_what_the_model_returned(yolo, quick):
    import torch

    model = yolo()
    start, end = (Notes(f"on_train_batch_{when}", lambda run: (run.data, run.outputs)) for when in ("start", "end"))
    val = Notes("on_val_batch_end", lambda run: (run.data["img"].dtype, run.outputs is not None))
    run = attach(model, start, end, val)
    model.train(**quick(epochs=1))
    assert [one["img"].dtype for one, _ in start.made + end.made] == [torch.uint8] * 4
    assert [outputs for _, outputs in start.made] == [None, None]
    assert sorted(end.made[0][1][1]) == ["box_loss", "cls_loss", "l1_loss"]
    assert val.made == [(torch.uint8, True)] * 2
    assert (run.data, run.outputs) == (None, None)


def test_the_rate_that_was_set_is_the_rate_of_the_step_through_warmup_and_schedule(yolo, quick):
    model, used = yolo(), []
    run = attach(model)

    @run.on("on_train_start")
    def look(run):
        run.set_lr(0.5e-4)

    @run.on("optimizer_step")
    def see(run):
        used.append([group["lr"] for group in run.optimizer.param_groups])
        if run.step == 3:
            run.scale_lr(0.5)
        if run.step == 5:
            run.set_lr(None)

    model.train(**quick(epochs=4, warmup_epochs=1))
    assert used[:3] == [[0.5e-4] * 3] * 3
    assert used[3:5] == [[0.25e-4] * 3] * 2
    # given back: the linear schedule to 1 % in 4 epochs, halved for good
    assert used[5] == pytest.approx([0.001 * (0.5 * 0.99 + 0.01) * 0.5] * 3)
    assert used[7] == pytest.approx([0.001 * (0.25 * 0.99 + 0.01) * 0.5] * 3)


def test_callbacks_of_the_user_go_on_before_and_after_and_a_val_inside_is_none_of_ours(yolo, quick, tiny_digits):
    model, native, record = yolo(), [], RecordEvents()
    model.add_callback("on_fit_epoch_end", lambda trainer: native.append("before"))
    run = attach(model, record)
    model.add_callback("on_fit_epoch_end", lambda trainer: native.append("after"))

    @run.on("on_fit_epoch_end")
    def validate(run):
        other = copy.deepcopy(run.trainer.ema.ema)
        before = len(record.events)
        twin = yolo()
        twin.callbacks, twin.model = model.callbacks, other
        twin.val(data=str(tiny_digits), imgsz=32, plots=False, device="cpu", project=str(run.dir.parent), name="v")
        assert len(record.events) == before

    model.train(**quick(epochs=1, batch=16))
    assert native == ["before", "after"] * 2  # Ultralytics' own one more after the final validation
    assert not [call for calls in model.callbacks.values() for call in calls if "epochal" in repr(call)]
    check_events(record.events)
    count = len(record.events)
    model.val(data=str(tiny_digits), imgsz=32, plots=False, device="cpu")
    model.trainer.validate()
    assert len(record.events) == count


def test_a_model_trains_again_and_the_run_begins_anew(yolo, quick):
    model, record = yolo(), RecordEvents()
    run = attach(model, record)
    model.train(**quick(epochs=1))
    first = run.dir
    model.reset_callbacks()
    model.train(**quick(epochs=2))
    assert [one.epochs for one in run.past] == [1, 2]
    assert first.name == run.dir.name == "epochal"
    assert first.parent != run.dir.parent == model.trainer.save_dir
    assert run.name == model.trainer.save_dir.name
    cut = record.events.index("teardown") + 1
    check_events(record.events[:cut])
    check_events(record.events[cut:])
    events = len(record.events)
    run.detach()
    assert "train" not in vars(model)
    model.train(**quick(epochs=1))
    assert len(record.events) == events
    assert not [name for name in ("validate", "preprocess_batch", "optimizer_step") if name in vars(model.trainer)]


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "cloudpickle"])
def test_a_copy_of_an_attached_model_trains_with_callbacks_of_its_own(yolo, quick, how):
    cloudpickle = pytest.importorskip("cloudpickle")
    model, record = yolo(), RecordEvents()
    run = attach(model, record)
    run.add_callback("on_train_end", print, once=True)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    else:
        twin = cloudpickle.loads(cloudpickle.dumps(model))
    assert twin.train.run is not run
    assert twin.train.host is twin
    twin.train(**quick(epochs=1))
    assert record.events == []
    check_events(next(iter(twin.train.run.roster.callbacks.values())).events)
    with pytest.raises(AttachError, match="attached"):
        attach(twin)


def test_what_ultralytics_pickles_for_its_workers_is_small_and_whole(yolo, quick):
    cloudpickle = pytest.importorskip("cloudpickle")
    model, pickled = yolo(), []
    run = attach(model, Passive())
    run.add_callback("on_fit_epoch_end", lambda run: None, every=2)

    def find(trainer):
        calls = [call for call in trainer.callbacks["on_pretrain_routine_end"] if hasattr(call, "__self__")]
        pickled.append(cloudpickle.dumps(calls))

    model.add_callback("on_pretrain_routine_start", find)
    model.train(**quick(epochs=1))
    (call,) = cloudpickle.loads(pickled[0])
    assert len(pickled[0]) < 8000
    assert call.__self__.run is not run
    assert [type(one).__name__ for one in call.__self__.run.roster.callbacks.values()] == ["Passive"]
    assert 2 in [handle.every for handle in call.__self__.run.engine.slot("on_fit_epoch_end").handles]


def test_attach_and_add_during_a_training_are_refused(yolo, quick):
    model, errors = yolo(), []

    def try_it(call):
        with pytest.raises(AttachError) as caught:
            call()
        errors.append(str(caught.value))

    model.add_callback("on_train_epoch_end", lambda trainer: try_it(lambda: attach(model)))
    model.train(**quick(epochs=1))
    run = attach(model)
    run.add_callback("on_train_epoch_end", lambda run: try_it(lambda: run.add(Callback())))
    run.add_callback("on_train_epoch_end", lambda run: try_it(run.detach))
    run.add_callback("on_train_epoch_end", lambda run: try_it(lambda: model.train(**quick())))
    model.train(**quick(epochs=1))
    assert "attach while a training runs" in errors[0]
    assert "attached and training already" in errors[1]
    assert "while a training runs" in errors[2]
    assert "cannot be detached while it trains" in errors[3]
    assert "training already" in errors[4]


def test_one_callback_in_two_overlapping_trainings_is_refused(yolo, quick):
    shared, other = RecordEvents(), yolo()
    attach(other, shared)
    model = yolo()
    run = attach(model, shared)
    run.add_callback("on_train_epoch_end", lambda run: other.train(**quick(name="other")))
    with pytest.raises(AttachError, match="serves another training"):
        model.train(**quick())


def test_saves_are_whole_checkpoints_and_the_best_can_be_loaded_back(yolo, quick, tmp_path):
    import epochal

    model, averaged = yolo(), []
    run = attach(model, dir=tmp_path / "ours", name="mine")
    run.add_callback("on_train_batch_end", lambda run: run.save("rescue"), once=True)

    @run.on("on_fit_epoch_end")
    def keep(run):
        averaged.append({name: value.clone() for name, value in run.trainer.ema.ema.state_dict().items()})
        run.save("end of epoch")

    @run.on("on_train_end")
    def back(run):
        run.engine.restore(run.checkpoints[1])

    model.train(**quick(epochs=2, lr0=0.01))
    assert run.dir == tmp_path / "ours" / "mine"
    assert [(one.manifest.epoch, one.manifest.batch) for one in run.checkpoints] == [(0, 0), (0, None), (1, None)]
    assert [one.manifest.resume_point for one in run.checkpoints] == [False, True, False]  # nothing follows the last
    assert same(weights(model), averaged[0])
    assert not same(averaged[0], averaged[1])
    fresh = yolo()
    fresh.model = copy.deepcopy(model.model)
    epochal.checkpoint(run, "last").load_into(fresh)
    assert same(weights(fresh), averaged[1])
    assert "epoch-0000" in run.past[-1].notes[-1]


def test_early_stopping_leaves_the_best_weights_in_the_model(yolo, quick):
    from epochal import EarlyStopping

    model, averaged = yolo(), []
    run = attach(model, EarlyStopping("val/score", patience=1, mode="max", restore_best=True))
    scores = iter([1.0, 3.0, 2.0, 9.0])
    run.add_callback("on_val_end", lambda run: run.log({"val/score": next(scores, 0.0)}))

    @run.on("on_fit_epoch_end")
    def keep(run):
        averaged.append({name: value.clone() for name, value in run.trainer.ema.ema.state_dict().items()})

    model.train(**quick(epochs=4, lr0=0.01))
    assert (run.end_reason, len(averaged)) == ("stopped", 3)
    assert same(weights(model), averaged[1])


class Sink(Callback):
    replaces = frozenset({"mlflow", "tensorboard"})
    keep_native = False


@pytest.mark.parametrize("keep", [False, True])
def test_the_native_logger_of_a_served_destination_is_off_and_the_summary_says_so(yolo, quick, keep, monkeypatch):
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.callbacks import clearml, mlflow

    called = []

    def native(kind):
        def call(trainer):
            called.append(kind)

        call.__module__ = f"ultralytics.utils.callbacks.{kind}"
        return call

    events = ("on_pretrain_routine_start", "on_train_epoch_end", "teardown")
    for module, kind in ((mlflow, "mlflow"), (clearml, "clearml")):
        monkeypatch.setattr(module, "callbacks", dict.fromkeys(events, native(kind)))
        monkeypatch.setitem(SETTINGS, kind, True)
    sink = Sink()
    sink.keep_native = keep
    model = yolo()
    run = attach(model, sink)
    model.train(**quick(epochs=1))
    assert sorted(called) == ["clearml"] * 3 + ["mlflow"] * (3 if keep else 0)
    notes = run.past[0].notes
    assert len(notes) == (0 if keep else 1)
    assert all("MLflow" in note and "Sink" in note for note in notes)
