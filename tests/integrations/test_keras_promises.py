"""Keras 3 on TensorFlow: promises about what users bring, as metrics, steps, optimizers and data of their own."""

import gc
import weakref

import pytest

keras = pytest.importorskip("keras")

import numpy as np  # noqa: E402

from epochal import Checkpoint, EarlyStopping, NonFinite, Stop, attach  # noqa: E402
from epochal.core.errors import AttachError, CheckpointError  # noqa: E402
from epochal.core.events import check_events  # noqa: E402
from epochal.testing import RecordEvents  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend in this process", allow_module_level=True)

import tensorflow as tf  # noqa: E402

X = np.arange(1, 13, dtype="float32").reshape(12, 1)
ONES = np.ones((12, 1), "float32")
FIT = {"batch_size": 4, "shuffle": False, "verbose": 0}


def linear(optimizer=None, **options):
    """Return a model y = w x with w = 1; its loss is the mean of w x, so that a step takes rate * mean(x) off w."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.layers.Input((1,)), layer])
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss=lambda _, y: keras.ops.mean(y, axis=-1), **options)
    return model


def weight(model):
    return float(model.weights[0].numpy()[0, 0])


def killed(run):
    """Let a training fail in its third epoch."""
    run.add_callback("on_train_epoch_start", lambda run: 1 / 0 if run.epoch == 2 else None)


def test_a_rate_that_is_set_at_a_batchs_start_or_in_a_validation_holds_from_the_next_step_on(tmp_path):
    for event, wanted in (
        ("on_train_batch_start", [0.25, 0.5, 0.5] + [0.5] * 3),
        ("on_val_start", [0.25] * 3 + [0.5] * 3),
    ):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.25, 0.125])
        model, events = linear(keras.optimizers.SGD(schedule)), RecordEvents()
        run, weights = attach(model, events, dir=tmp_path), [weight(model)]

        def steer(run, event=event):
            if event != "on_train_batch_start" or run.batch == 1:
                run.set_lr(0.5)

        run.add_callback(event, steer)
        run.add_callback("on_train_batch_end", lambda _, model=model, weights=weights: weights.append(weight(model)))
        model.fit(ONES, ONES, epochs=2, validation_data=(ONES, ONES), **FIT)
        assert -np.diff(weights) == pytest.approx(wanted, rel=1e-4), event
        assert [events.events.count(f"on_{kind}_batch_end") for kind in ("train", "val")] == [6, 6]
        check_events(events.events)


def test_a_batchs_own_values_are_right_after_an_evaluation_between_two_batches(tmp_path):
    model, losses, roots = linear(metrics=[keras.metrics.RootMeanSquaredError()]), [], []
    run = attach(model, dir=tmp_path)

    def look(run):
        losses.append(run.metrics["train/loss"])
        roots.append(run.metrics["train/root_mean_squared_error"])
        if run.batch == 1:
            model.evaluate(100 * X, X, verbose=0)

    run.add_callback("on_train_batch_end", look)
    model.fit(X, 0 * X, epochs=2, **FIT)
    assert losses == pytest.approx([2.5, 6.5, 10.5] * 2, rel=1e-3)
    means = [float(np.sqrt((X[:until] ** 2).mean())) for until in (4, 8)]  # a root of a mean is shown as Keras has it
    assert [*roots[:2], *roots[3:5]] == pytest.approx(means * 2, rel=1e-6)


class Adds(keras.callbacks.Callback):
    """Adds a matrix to an epoch's logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["confusion"] = np.eye(3)


def test_what_is_no_number_is_said_and_left_out(tmp_path, caplog):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()], run_eagerly=True)
    run = attach(model, dir=tmp_path)
    classes = np.eye(3, dtype="float32")[np.arange(12) % 3]
    model.fit(X, classes, epochs=2, validation_data=(X, classes), callbacks=[Adds()], verbose=0)
    assert set(run.history[1]) == {"train/loss", "val/loss", "lr/pg0"}
    said = [one.message for one in caplog.records if one.name == "epochal"]
    assert len(said) == 1
    assert said[0].startswith("Keras' f1_score is not one number")


class Twins(keras.Model):
    """Two networks, each with its optimizer, as a GAN has them; it has no `call`."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)]) for _ in range(2))
        self.tracker = keras.metrics.Mean(name="loss_of_one")
        self.seed = keras.random.SeedGenerator(3)

    @property
    def metrics(self):
        return [self.tracker]

    def compile(self, first, second):
        super().compile()
        self.first, self.second = first, second

    def train_step(self, data):
        noise, losses = keras.random.normal(keras.ops.shape(data), seed=self.seed), []
        for net, optimizer in ((self.one, self.first), (self.other, self.second)):
            with tf.GradientTape() as tape:
                losses.append(keras.ops.mean((net(data + noise) - data) ** 2))
            optimizer.apply(tape.gradient(losses[-1], net.trainable_weights), net.trainable_weights)
        self.tracker.update_state(losses[0])
        return {"loss_of_one": self.tracker.result(), "loss_of_other": losses[1]}


def twins(folder, *, crash=False, resume=False):
    """Train twins, and return the run and the state of everything."""
    keras.utils.set_random_seed(1)
    model = Twins()
    model.compile(keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1))
    run = attach(model, Checkpoint(), dir=folder, name="twins", resume=resume)
    if crash:
        killed(run)
    try:
        model.fit(X / 12, epochs=3, batch_size=4, verbose=0)
    except ZeroDivisionError:
        assert crash
    return run, [one.numpy() for one in (*model.variables, *model.first.variables, *model.second.variables)]


@pytest.mark.slow
def test_a_model_with_several_optimizers_is_counted_and_goes_on_exactly(tmp_path, caplog):
    whole, wanted = twins(tmp_path / "whole")
    assert whole.step == 9
    twins(tmp_path / "killed", crash=True)
    run, found = twins(tmp_path / "killed", resume=True)
    assert (run.step, len(run.history)) == (9, 3)
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert run.history == whole.history
    assert not [one for one in caplog.records if "Not certain" in one.message]


def test_the_rates_of_several_optimizers_are_steered(tmp_path):
    model = Twins()
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)))
    run = attach(model, dir=tmp_path)
    before = [one.numpy() for one in model.weights]
    run.add_callback("on_train_start", lambda run: run.set_lr(0.0))
    run.add_callback("on_train_batch_start", lambda run: run.set_lr(0.5, group="second") if run.batch == 2 else None)
    model.fit(X / 12, epochs=1, batch_size=4, verbose=0)
    changed = [not np.array_equal(one, other.numpy()) for one, other in zip(before, model.weights, strict=True)]
    assert changed == [False, False, True, True]
    assert dict(run.lr) == {"pg0": 0.0, "first": 0.0, "second": 0.5}

    optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.25))
    model = linear(keras.optimizers.MultiOptimizer(optimizers))
    run = attach(model, dir=tmp_path)
    run.add_callback("on_train_epoch_start", lambda run: run.scale_lr(0.5), once=True)
    model.fit(ONES, ONES, epochs=1, **FIT)
    assert (run.step, dict(run.lr), weight(model)) == (3, {"pg0": 0.125}, 1 - 3 * 0.125)


class Noisy(keras.Sequential):
    """Adds noise to its data, from Keras' own generator."""

    def train_step(self, data):
        x, y = data
        return super().train_step((x + keras.random.normal(keras.ops.shape(x)), y))


@pytest.mark.slow
def test_random_numbers_of_keras_own_generator_go_on_exactly(tmp_path):
    def trained(folder, *, crash=False, resume=False):
        keras.utils.set_random_seed(1)
        model = Noisy([keras.layers.Input((1,)), keras.layers.Dense(1)])
        model.compile("adam", "mse", run_eagerly=True)
        run = attach(model, Checkpoint(), dir=folder, name="noisy", resume=resume)
        if crash:
            killed(run)
        try:
            model.fit(X, X, epochs=3, **FIT)
        except ZeroDivisionError:
            assert crash
        return [one.numpy() for one in model.weights]

    wanted = trained(tmp_path / "whole")
    trained(tmp_path / "killed", crash=True)
    for one, other in zip(wanted, trained(tmp_path / "killed", resume=True), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_epoch_of_unknown_length_that_a_stop_cuts_short_is_no_point_to_go_on_from(tmp_path):
    data = tf.data.Dataset.from_generator(
        lambda: iter([(X[:4], X[:4])] * 4), output_signature=(tf.TensorSpec((4, 1)),) * 2
    )
    model = linear()
    run = attach(model, Checkpoint(keep_last=9), dir=tmp_path)
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough") if (run.epoch, run.batch) == (2, 1) else None)
    model.fit(data, epochs=5, verbose=0)
    assert (run.end_reason, run.batch) == ("stopped", 1)
    points = [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints]
    assert points == [(0, True), (1, True), (2, False)]


def test_a_condition_hears_keras_own_name_of_a_metric_that_is_known_late(tmp_path):
    def odd(_y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1) * float("nan")

    for name, batch in (("odd", 0), ("val_odd", 2)):
        model = linear(metrics=[odd], run_eagerly=True)
        run = attach(model, Stop(when=NonFinite(name)), dir=tmp_path)
        model.fit(X, X, epochs=3, validation_data=(X, X), **FIT)
        assert (run.end_reason, len(run.history), run.batch) == ("stopped", 1, batch), name


def test_a_fit_that_is_over_lets_go_of_its_data(tmp_path):
    data, model = 1 * X, linear(run_eagerly=True)
    seen, run = weakref.ref(data), attach(model, dir=tmp_path)
    model.fit(data, data, epochs=1, validation_data=(data, data), **FIT)
    del data
    gc.collect()
    assert seen() is None
    assert run.step == 3


class Raw(keras.Sequential):
    """Its step returns the loss of its batch, which no metric of Keras averages."""

    def train_step(self, data):
        loss = keras.ops.mean(self(data[0]))
        self.optimizer.iterations.assign_add(1)
        return {"loss": loss}


def test_what_a_step_of_ones_own_returns_as_it_is_is_averaged_over_the_epoch(tmp_path):
    model = Raw([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    run, losses = attach(model, dir=tmp_path), []
    run.add_callback("on_train_batch_end", lambda run: losses.append(run.metrics["train/loss"]))
    model.fit(X, X, epochs=1, **FIT)
    assert losses == pytest.approx([2.5, 6.5, 10.5])
    assert run.history[0]["train/loss"] == pytest.approx(6.5)


class OwnFit(keras.Sequential):
    """Takes its data in one."""

    def fit(self, data, epochs=1, **options):
        return super().fit(*data, epochs=epochs, **options)


def test_a_fit_of_ones_own_is_given_its_own_arguments(tmp_path):
    model = OwnFit([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    run = attach(model, dir=tmp_path)
    model.fit((X, X), 2, verbose=0)
    assert len(run.history) == 2


def test_weights_that_keras_averages_at_the_end_are_no_point_to_go_on_from(tmp_path):
    model = linear(keras.optimizers.SGD(0.1, use_ema=True), run_eagerly=True)
    run = attach(model, Checkpoint(), dir=tmp_path)
    run.add_callback("on_train_end", lambda run: run.save("averaged"))
    model.fit(ONES, ONES, epochs=1, **FIT)
    assert [one.manifest.resume_point for one in run.checkpoints] == [True, False]


def test_layers_that_draw_inside_a_dataset_are_said_not_to_go_on_exactly(tmp_path, caplog):
    def trained(resume):
        keras.utils.set_random_seed(1)
        noise, model = keras.layers.GaussianNoise(1.0, seed=4), linear(run_eagerly=True)
        data = tf.data.Dataset.from_tensor_slices((X, X)).batch(4).map(lambda x, y: (noise(x, training=True), y))
        attach(model, Checkpoint(), dir=tmp_path, name="noise", resume=resume)
        model.fit(data.prefetch(1), epochs=1 + resume, shuffle=False, verbose=0)

    trained(resume=False)
    trained(resume=True)
    assert "random numbers that Keras' layers draw inside it" in caplog.text


def test_a_callback_in_the_wrong_place_is_told_the_right_one(tmp_path):
    model = linear()
    with pytest.raises(AttachError, match=r"ReduceLROnPlateau is Keras' own: give it to fit"):
        attach(model, keras.callbacks.ReduceLROnPlateau())
    run = attach(model, dir=tmp_path)
    with pytest.raises(AttachError, match=r"give it to attach\(model"):
        model.fit(X, X, callbacks=[EarlyStopping("val/loss", patience=2)], **FIT)
    assert run.end_reason == "exception"


@pytest.mark.slow
def test_two_fits_of_one_script_go_on_each_under_its_own_name(tmp_path):
    def tuned(names, *, crash=False, resume=False):
        keras.utils.set_random_seed(1)
        body = keras.layers.Dense(3)
        model = keras.Sequential([keras.layers.Input((1,)), body, keras.layers.Dense(1)])
        for name, trains in zip(names, (False, True), strict=True):
            body.trainable = trains
            model.compile("adam", "mse", run_eagerly=True)
            run = attach(model, Checkpoint(), dir=tmp_path, name=name, resume=resume)
            if crash and trains:
                killed(run)
            try:
                model.fit(X / 12, X / 12, epochs=3, **FIT)
            except ZeroDivisionError:
                assert crash
            run.detach()
        return [one.numpy() for one in model.weights]

    wanted = tuned(("whole", "whole"))
    tuned(("body", "all"), crash=True)
    for one, other in zip(wanted, tuned(("body", "all"), resume=True), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(
        CheckpointError, match="10 variables were saved, 6 are here; the first that differs is variable 2"
    ):
        tuned(("whole", "whole"), resume=True)


def test_a_policy_waits_for_a_validation_that_comes_after_the_first_epoch(tmp_path):
    model = linear()
    run = attach(model, EarlyStopping("val/loss", patience=3), dir=tmp_path)
    model.fit(ONES, ONES, epochs=2, validation_data=(ONES, ONES), validation_freq=2, **FIT)
    assert ["val/loss" in row for row in run.history] == [False, True]
