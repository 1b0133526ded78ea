"""Commands in each trainer: taken at the safe point, applied, answered; what its own side decides by does not notice."""

import threading
import time
from contextlib import closing
from importlib import import_module, util

import pytest

from epochal import Callback
from epochal.core.control import VERBS
from epochal.core.requests import Command
from epochal.runs import asking
from epochal.runs.commands import outcome, queue
from epochal.runs.schema import StoreError, open_to_tell
from epochal.runs.stored import StoredRun
from epochal.testing import check_events
from epochal.testing.witness import Witness
from tests import triton_first

PACKAGES = {
    "loop": ("torch",), "transformers": ("transformers", "accelerate"), "lightning": ("lightning",),
    "keras": ("keras", "tensorflow"), "yolo": ("ultralytics", "sklearn"),
}  # fmt: skip


class Desk(Callback):
    """Queues commands in the run's file, as the page and the terminal do: at the start of a batch, in the validation that
    ends an epoch, and while the training waits; keeps where each was answered."""

    def __init__(self, sent, when_validating=(), when_paused=()):
        self.sent, self.when_validating, self.when_paused = dict(sent), list(when_validating), list(when_paused)
        self.places, self.steps, self.rates, self.waited, self.noted = {}, {}, {}, [], []

    def on_train_start(self, run):
        told = run.engine.answer

        def answer(one, state, text):
            self.places[one] = (state, (run.epoch, run.batch), run.step)
            told(one, state, text)

        run.engine.answer = answer

        @run.command("note")
        def note(run, text: str):
            self.noted.append(text)

        run.log_params({"desk": 1})
        self.file = run.dir / "run.db"
        until(lambda: begun(run.dir))

    def queue(self, one, name, given, lifetime=60.0):
        with closing(open_to_tell(self.file)) as connection:
            return queue(connection, Command(one, name, given, "ann"), lifetime=lifetime)

    def send(self, run, commands):
        """Queue commands, and let the thread that looks for them hand them over."""
        for one, (name, given, *lifetime) in commands.items():
            assert self.queue(one, name, given, *lifetime)
            assert not self.queue(one, name, given), "an id is one command"
        with closing(open_to_tell(self.file)) as connection:
            handed = run.engine.requests.commands
            for one in commands:
                until(lambda one=one: outcome(connection, one)["state"] == "expired" or one in [c.id for c in handed])

    def on_train_batch_start(self, run):
        self.rates[run.epoch, run.batch] = next(iter(run.lr.values()))
        self.send(run, self.sent.get((run.epoch, run.batch), {}))

    def on_train_batch_end(self, run):
        self.steps[run.epoch, run.batch] = run.step

    def on_val_start(self, run):
        if not run.engine.asked and run.engine.in_epoch:
            found, self.when_validating = self.when_validating, ()
            self.send(run, dict(found))

    def on_pause(self, run):
        self.waited.append((run.epoch, run.batch))

        def later():
            for name in self.when_paused:
                self.queue(f"{name} then", name, {})

        threading.Thread(target=later).start()


def begun(folder):
    try:
        return bool(StoredRun(folder).sessions)
    except StoreError:  # not yet
        return False


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def made(tmp_path_factory, offline_ultralytics):
    """Return a function that gives what trains a tiny model in a trainer."""
    triton_first.install()

    def make(name):
        absent = [one for one in PACKAGES[name] if util.find_spec(one) is None]
        if absent:
            pytest.skip(f"{name}: {', '.join(absent)} is not here")
        return import_module(f"tests.trainers.{name}").make(tmp_path_factory.mktemp(name))

    return make


@pytest.mark.parametrize("name", PACKAGES)
def test_each_command_is_applied_at_its_safe_point_and_answered(made, name):
    sent = {
        (0, 0): {
            "set_lr": ("set_lr", {"value": 0.001}), "bounds": ("scale_lr", {"factor": 0}),
            "group": ("set_lr", {"value": 1.0, "group": "nobody's"}), "unknown": ("stopp", {}),
            "late": ("stop", {}, -1.0),
        },
        (0, 1): {"scale_lr": ("scale_lr", {"factor": 0.5}), "save": ("save", {})},
        (0, 2): {"validate": ("validate", {})},
        (1, 0): {"pause": ("pause", {}), "note": ("note", {"text": "before"})},
        (1, 2): {"stop": ("stop", {})},
    }  # fmt: skip
    validating = {"in validation": ("note", {"text": "in validation"}), "stop in it": ("stop", {"when": "batches"})}
    desk, witness = Desk(sent, validating.items(), ["validate", "save", "continue"]), Witness()
    run = made(name)([desk, witness], 3)
    check_events(witness.events)
    last = (0, 3)
    expected = {
        "set_lr": ("applied", (0, 0)), "bounds": ("refused", (0, 0)), "group": ("refused", (0, 0)),
        "unknown": ("refused", (0, 0)), "scale_lr": ("applied", (0, 1)), "save": ("applied", (0, 1)),
        "validate": ("applied", (0, 2)), "in validation": ("applied", last), "stop in it": ("refused", last),
        "pause": ("applied", (1, 0)), "note": ("applied", (1, 0)), "validate then": ("applied", (1, 0)),
        "save then": ("applied", (1, 0)), "continue then": ("applied", (1, 0)), "stop": ("applied", (1, 2)),
    }  # fmt: skip
    assert {one: (state, at) for one, (state, at, _) in desk.places.items()} == expected
    assert desk.rates[0, 1] == pytest.approx(0.001)
    assert desk.rates[0, 2] == pytest.approx(0.0005)
    assert desk.noted == ["in validation", "before"]
    assert set(desk.waited) == {(1, 0)}
    batches = [(one.epoch, one.batch) for one in witness.at("on_train_batch_end")]
    assert batches == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert len(witness.at("on_fit_epoch_end")) == 2
    assert run.end_reason == "stopped"
    assert run.stop_reason == "ann: asked for by a command"
    assert sum(one.manifest.pinned for one in run.checkpoints) == 2
    stored = StoredRun(run.dir)
    assert stored.state == "stopped"
    offered = {one["name"]: one["why_not"] for one in stored.sessions[-1]["commands"]}
    assert offered == dict.fromkeys([*VERBS, "note"])
    told = [row["kind"] for row in stored.events() if "command" in row["about"]]
    assert sorted(told) == sorted(
        ["rate", "rate", "save", "validation", "command", "validation", "save", "command", "stop", "command", "command"]
    )
    check_audit(stored, desk, expected)


def check_audit(stored, desk, expected):
    """Compare what the file says of each command with where it was answered."""
    rows = {row["id"]: row for row in stored.commands()}
    late = rows.pop("late")
    assert (late["state"], late["answer"], late["step"]) == ("expired", "the training did not look in time", None)
    for one, (state, at) in expected.items():
        row = rows.pop(one)
        assert (row["state"], row["epoch"], row["step"], row["by"]) == (state, at[0], desk.steps[at], "ann"), one
        assert row["asked"] <= row["answered"]
        told = {
            "bounds": "factor must be a number above 0, at most 1000, not 0", "group": "there is no parameter group",
            "unknown": "there is no command 'stopp'; did you mean stop?", "stop in it": "when must be one of batch, epoch",
            "validate": "val/", "validate then": "val/", "set_lr": "0.001", "scale_lr": "0.0005",
        }.get(one, "")  # fmt: skip
        assert told in row["answer"], one
    assert rows == {}
    with pytest.raises(asking.Refused, match="is not training now: it is stopped"):
        asking.ask(stored, "save", {}, by="ann")


class AtTheEnd(Desk):
    """Pauses in the validation that ends an epoch, or behind its last batch; lets it continue once a save is answered."""

    def on_pause(self, run):
        self.waited.append((run.epoch, run.batch))

        def later():
            self.queue("save then", "save", {})
            end = time.monotonic() + 5
            with closing(open_to_tell(self.file)) as connection:
                while outcome(connection, "save then")["state"] != "applied" and time.monotonic() < end:
                    time.sleep(0.01)
                self.found = outcome(connection, "save then")
            self.queue("continue then", "continue", {})

        threading.Thread(target=later).start()


@pytest.mark.parametrize("place", ["behind the last batch", "in the validation"])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_training_that_waits_at_the_end_of_an_epoch_can_be_saved(made, name, place):
    pause = {"pause": ("pause", {})}
    desk = AtTheEnd({(0, 3): pause}) if place == "behind the last batch" else AtTheEnd({}, pause.items())
    run = made(name)([desk], 1)
    assert desk.found["state"] == "applied"
    assert desk.waited == [(0, 3)]
    assert run.end_reason == "completed"
    assert [one.manifest.pinned for one in run.checkpoints] == [True]


# -- what a trainer's own side decides by -------------------------------------------------------------------------------


class Ask(Callback):
    def __init__(self, batches):
        self.batches, self.values = batches, []

    def on_train_batch_end(self, run):
        if run.epoch == 0 and run.batch in self.batches:
            run.validate(counts=False)

    def on_val_end(self, run):
        self.values.append(run.metrics["val/loss"])


def test_lightnings_early_stopping_and_checkpoints_do_not_notice_a_validation_to_look_at(tmp_path):
    pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from epochal import attach
    from tests.trainers.lightning import loaders, net, quiet, trainer

    quiet()
    found = []
    for ask in (Ask(()), Ask((0, 1, 2))):
        stopping = EarlyStopping("val_loss", patience=1, min_delta=10.0)
        saving = ModelCheckpoint(tmp_path / f"{len(found)}", monitor="val_loss", save_top_k=-1)
        host = trainer(tmp_path, 4, callbacks=[stopping, saving], enable_checkpointing=True)
        attach(host, ask, dir=tmp_path, name=f"run{len(found)}")
        host.fit(net(), *loaders())
        found.append(
            (host.current_epoch, stopping.wait_count, len(saving.best_k_models), host.callback_metrics["val_loss"])
        )
        assert stopping in host.callbacks
    assert found[0] == found[1]
    assert len(ask.values) == 3 + found[0][0]


def test_transformers_early_stopping_and_best_metric_do_not_notice_it(tmp_path):
    pytest.importorskip("transformers")
    from transformers import EarlyStoppingCallback

    from epochal import attach
    from tests.trainers.transformers import quiet, trainer

    quiet()
    found = []
    for ask in (Ask(()), Ask((0, 1, 2))):
        stopping = EarlyStoppingCallback(1, 10.0)
        host = trainer(
            tmp_path, callbacks=[stopping], num_train_epochs=4, metric_for_best_model="eval_loss",
            greater_is_better=False, save_strategy="epoch", load_best_model_at_end=True,
        )  # fmt: skip
        attach(host, ask, dir=tmp_path, name=f"run{len(found)}")
        host.train()
        state = host.state
        found.append(
            (state.global_step, state.best_metric, state.best_global_step, stopping.early_stopping_patience_counter)
        )
        assert stopping in host.callback_handler.callbacks
        assert {"_evaluate", "_determine_best_metric"}.isdisjoint(vars(host))
    assert found[0] == found[1]
    assert len(ask.values) == 3 + found[0][0] // 4


def test_a_validation_that_counts_is_transformers_own_too(tmp_path):
    pytest.importorskip("transformers")
    from epochal import attach
    from tests.trainers.transformers import quiet, trainer

    class Counts(Callback):
        def on_train_batch_end(self, run):
            if (run.epoch, run.batch) == (0, 0):
                run.validate()

    quiet()
    host = trainer(tmp_path, num_train_epochs=1, metric_for_best_model="eval_loss", greater_is_better=False)
    run = attach(host, Counts(), dir=tmp_path, name="run")
    host.train()
    assert [one["step"] for one in host.state.log_history if "eval_loss" in one] == [1, 4]
    assert host.state.best_metric is not None
    assert len(run.history) == 1


@pytest.mark.parametrize("name", ["transformers", "lightning", "keras"])
def test_without_data_to_validate_on_it_is_refused_with_the_reason(made, name, tmp_path):
    made(name)
    from epochal import attach

    reasons = []

    class Try(Callback):
        def on_train_batch_end(self, run):
            if run.batch == 0:
                run.engine.requests.add_command(Command("1", "validate", {}, "ann"))

        def on_train_start(self, run):
            run.engine.answer = lambda *row: reasons.append(row)

    if name == "transformers":
        from tests.trainers.transformers import trainer

        host = trainer(tmp_path, num_train_epochs=1, eval_strategy="no")
        host.eval_dataset = None
        attach(host, Try(), dir=tmp_path)
        host.train()
    elif name == "lightning":
        from tests.trainers.lightning import loaders, net, trainer

        host = trainer(tmp_path, 1)
        attach(host, Try(), dir=tmp_path)
        host.fit(net(), loaders()[0])
    else:
        import keras
        import numpy as np

        host = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        host.compile("sgd", "mse")
        attach(host, Try(), dir=tmp_path)
        host.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0)
    assert [state for _, state, _ in reasons] == ["refused"]
    assert "no " in reasons[0][2]


def test_keras_validates_on_its_split_and_its_epochs_means_stay(tmp_path):
    keras = pytest.importorskip("keras")
    import numpy as np

    from epochal import attach

    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    found = []
    for ask in (Ask(()), Ask((0, 1))):
        keras.utils.set_random_seed(0)
        host = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        host.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
        run = attach(host, ask, dir=tmp_path, name=f"run{len(found)}")
        history = host.fit(x, x.sum(1), validation_split=0.4, batch_size=4, epochs=2, verbose=0).history
        found.append((history, [dict(row) for row in run.history], host.get_weights()))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert all((a == b).all() for a, b in zip(found[0][2], found[1][2], strict=True))
    assert len(ask.values) == 4


def test_an_error_in_the_validator_of_a_loop_is_the_answer_and_modes_are_put_back(tmp_path):
    torch = pytest.importorskip("torch")
    from epochal import Loop

    answers, net = [], torch.nn.Dropout()
    with Loop(model=net, dir=tmp_path, name="run") as run:

        @run.validator
        def evaluate(run):
            net.eval()
            raise ZeroDivisionError("planted")

        for _ in run.epochs(1):
            run.engine.answer = lambda *row: answers.append(row)
            for _ in run.batches([0] * 3):
                assert net.training
                if run.batch == 0:
                    run.engine.requests.add_command(Command("1", "validate", {}, "ann"))
    assert answers[-1] == ("1", "refused", "the validation failed: ZeroDivisionError: planted; the training goes on")
    assert run.end_reason == "completed"


def test_ultralytics_best_weights_are_those_of_epochs(made, tmp_path):
    train = made("yolo")
    found = []
    for ask in (Ask(()), Ask((0, 2))):
        run = train([ask], 2)
        native = run.trainer
        found.append((native.best_fitness, native.fitness, dict(native.metrics)))
    assert found[0] == found[1]
