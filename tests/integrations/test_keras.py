"""Keras 3 on TensorFlow: its moments, numbers, rates and stops as a run shows them."""

import pickle

import pytest

keras = pytest.importorskip("keras")

import numpy as np  # noqa: E402

from epochal import Callback, Checkpoint, EarlyStopping, attach, checkpoint  # noqa: E402
from epochal.core.errors import AttachError, CapabilityError, CheckpointError  # noqa: E402
from epochal.core.events import check_events  # noqa: E402
from epochal.testing import RecordEvents  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend in this process", allow_module_level=True)

X = np.arange(1, 13, dtype="float32").reshape(12, 1)
FIT = {"batch_size": 4, "shuffle": False, "verbose": 0}


def linear(optimizer=None, *, rate=0.0, **options):
    """Return a model y = w x with w = 1; its loss is the mean of w x, so that a step takes rate * mean(x) off w."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.layers.Input((1,)), layer])
    model.compile(optimizer or keras.optimizers.SGD(rate), loss=mean, **options)
    return model


def mean(_y_true, y_pred):
    return keras.ops.mean(y_pred, axis=-1)


def weight(model):
    return float(model.weights[0].numpy()[0, 0])


def test_numbers_of_batches_epochs_and_validations_are_what_keras_and_arithmetic_say(tmp_path):
    model, events, seen = linear(rate=0.0, metrics=["mae"]), RecordEvents(), {}
    run = attach(model, events, dir=tmp_path)

    def batch(run):
        loss = run.metrics["train/loss"]
        seen.setdefault("batches", []).append((run.epoch, run.batch, run.step, loss, run.metrics["train/mae"]))

    run.add_callback("on_train_batch_end", batch)
    run.add_callback("on_train_epoch_end", lambda run: seen.setdefault("means", []).append(run.metrics["loss"]))
    history = model.fit(X[:10], X[:10] - 2, validation_data=(X, X), validation_freq=2, epochs=2, **FIT).history
    assert [one[:3] for one in seen["batches"]] == [(e, b, 3 * e + b + 1) for e in range(2) for b in range(3)]
    own = [X[start : min(start + 4, 10)].mean() for start in (0, 4, 8)] * 2  # the last batch is not full
    assert [one[3] for one in seen["batches"]] == pytest.approx(own, rel=1e-6)
    assert [one[4] for one in seen["batches"]] == pytest.approx([2.0] * 6, rel=1e-6)
    assert seen["means"] == history["loss"] == pytest.approx([5.5, 5.5])  # weighted by samples
    assert [row["train/loss"] for row in run.history] == history["loss"]
    assert "val/loss" not in run.history[0]
    assert run.history[1]["val/loss"] == history["val_loss"][0] == pytest.approx(6.5)
    assert run.history[1]["lr/pg0"] == 0.0
    assert run.fitness == -run.metrics["val_loss"] == -history["val_loss"][0]
    check_events(events.events)
    assert events.events.count("on_val_start") == 1
    before = len(events.events)
    model.evaluate(X, X, verbose=0)
    assert len(events.events) == before


def test_watching_changes_no_weight_and_the_model_saves_pickles_and_detaches(tmp_path):
    def trained(watched):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("adam", "mse")
        run = attach(model, RecordEvents(), dir=tmp_path) if watched else None
        model.fit(X, X, batch_size=4, epochs=2, verbose=0)
        return model, run

    (plain, _), (model, run) = trained(False), trained(True)
    for one, other in zip(plain.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    model.save(tmp_path / "model.keras")
    copies = [pickle.loads(pickle.dumps(model)), keras.models.load_model(tmp_path / "model.keras")]
    for copy in copies:
        np.testing.assert_array_equal(copy.predict(X, verbose=0), model.predict(X, verbose=0))
        assert "fit" not in vars(copy)
    with pytest.raises(AttachError, match=r"\.fit\.run"):
        attach(model)
    model.fit(X, X, batch_size=4, epochs=1, verbose=0, callbacks=keras.callbacks.TerminateOnNaN())
    assert [summary.epochs for summary in run.past] == [2, 1]
    run.detach()
    assert not {"fit", "compute_metrics", "_maybe_symbolic_build"} & set(vars(model))
    model.fit(X, X, epochs=1, verbose=0)
    assert len(run.past) == 2


class Rates(Callback):
    """Asks for rates at batches' ends, and writes down which are in effect."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, run):
        self.seen.append(run.lr["pg0"])

    def on_train_batch_end(self, run):
        if (run.epoch, run.batch) == (0, 0):
            run.set_lr(0.5)
        if (run.epoch, run.batch) == (0, 1):
            run.set_lr(None)
            run.scale_lr(0.1)


def rates_by_weights(model, run, **options):
    """Train on ones, so that each step takes its rate off the weight; return the rates."""
    weights = [weight(model)]
    run.add_callback("on_train_batch_end", lambda _: weights.append(weight(model)))
    model.fit(np.ones((12, 1), "float32"), np.ones((12, 1), "float32"), epochs=2, **FIT, **options)
    return [before - after for before, after in zip(weights, weights[1:], strict=False)]  # noqa: RUF007


def test_rates_hold_against_a_schedule_that_runs_on_unseen(tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.25, 0.125])
    model, callback = linear(keras.optimizers.SGD(schedule)), Rates()
    run = attach(model, callback, dir=tmp_path)
    wanted = [0.25, 0.5, 0.025, 0.0125, 0.0125, 0.0125]  # the schedule: 0.25 up to step 2, then 0.125
    assert rates_by_weights(model, run) == pytest.approx(wanted, rel=1e-4)
    assert callback.seen == pytest.approx(wanted)
    assert model.optimizer._learning_rate is schedule
    run.detach()
    before = weight(model)
    model.fit(np.ones((4, 1), "float32"), np.ones((4, 1), "float32"), **FIT)
    assert before - weight(model) == pytest.approx(0.125, rel=1e-4)


def test_rates_hold_against_a_native_scheduler_that_sees_its_own(tmp_path):
    model, callback, native = linear(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25))), Rates(), []

    def halved(_epoch, rate):
        native.append(rate)
        return rate / 2

    run = attach(model, callback, dir=tmp_path)
    found = rates_by_weights(model, run, callbacks=[keras.callbacks.LearningRateScheduler(halved)])
    assert found == pytest.approx([0.125, 0.5, 0.0125, 0.00625, 0.00625, 0.00625], rel=1e-3)
    assert native == [0.25, 0.125]
    assert float(model.optimizer.learning_rate.numpy()) == 0.0625
    assert run.step == 6


def test_a_stop_waits_for_the_step_of_its_group_and_a_native_stop_is_written_down(tmp_path):
    model = linear(keras.optimizers.SGD(0.25, gradient_accumulation_steps=2))
    run = attach(model, dir=tmp_path)
    handle = run.add_callback("on_train_batch_end", lambda run: run.stop("enough"), once=True)
    model.fit(X, X, epochs=3, validation_data=(X, X), **FIT)
    assert (run.batch, run.step, run.end_reason, len(run.history)) == (1, 1, "stopped", 1)
    assert "val/loss" in run.history[0]
    handle.remove()
    patience = keras.callbacks.EarlyStopping("loss", patience=1, mode="max")  # w falls, so this never improves
    model.fit(X, X, epochs=9, callbacks=[patience], **FIT)
    assert run.stop_reason == "Keras: a native callback set model.stop_training"
    assert run.epoch < 8


def test_several_batches_in_one_call_and_data_of_unknown_length(tmp_path):
    import tensorflow as tf

    model, events = linear(rate=0.0, steps_per_execution=2), RecordEvents()
    run = attach(model, events, dir=tmp_path)
    batches = []
    run.add_callback("on_train_batch_end", lambda run: batches.append((run.batch, run.step)))
    model.fit(X, X, epochs=2, **FIT)
    assert batches == [(0, 2), (2, 3), (0, 5), (2, 6)]
    batches.clear()
    events.events.clear()
    data = tf.data.Dataset.from_generator(
        lambda: iter([(X[:4], X[:4])] * 3), output_signature=(tf.TensorSpec((4, 1)),) * 2
    )
    model.fit(data, epochs=2, verbose=0)
    assert batches == [(0, 2), (2, 3), (0, 5), (2, 6)]
    check_events(events.events)


def test_the_best_weights_come_back_and_a_checkpoint_goes_into_a_model(tmp_path):
    model = linear(rate=0.25)  # w falls from 1, so the first epoch is the best by a loss to be high
    run = attach(model, EarlyStopping("val/loss", mode="max", patience=2, restore_best=True), dir=tmp_path)
    weights = []
    run.add_callback("on_fit_epoch_end", lambda _: weights.append(weight(model)))
    model.fit(X, X, epochs=9, validation_data=(X, X), **FIT)
    assert len(weights) == 3
    assert weight(model) == weights[0]
    fresh = linear()
    checkpoint(run, "best").load_into(fresh)
    assert weight(fresh) == weights[0]
    other = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(CheckpointError, match="another model"):
        checkpoint(run, "best").load_into(other)


def test_what_a_graph_hides_is_refused_at_attach_and_nothing_is_attached():
    class Needs(Callback):
        requires = frozenset({"optimizer_step"})

    model = linear()
    with pytest.raises(CapabilityError, match="KERAS_BACKEND=torch"):
        attach(model, Needs())
    assert "fit" not in vars(model)
    with pytest.raises(AttachError, match="layer"):
        attach(keras.layers.Dense(1))


def test_a_finished_run_is_not_trained_again_and_another_model_is_refused(tmp_path):
    def trained(epochs, **options):
        keras.utils.set_random_seed(1)
        model = linear(rate=0.25)
        run = attach(model, Checkpoint(), dir=tmp_path, name="kept", **options)
        model.fit(X, X, epochs=epochs, **FIT)
        return run, weight(model)

    _, once = trained(2)
    run, again = trained(2, resume=True)
    assert (again, len(run.history), run.step) == (once, 2, 6)
    run, further = trained(3, resume=True)
    assert (len(run.history), run.step) == (3, 9)
    assert further < once
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    attach(model, Checkpoint(), dir=tmp_path, name="kept", resume=True)
    with pytest.raises(CheckpointError, match="another"):
        model.fit(X, X, epochs=4, **FIT)
