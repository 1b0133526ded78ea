"""Lifetimes: one object, one training at a time; states from one training to the next; a run can be copied."""

import copy
import logging
import pickle
import subprocess
import sys

import pytest

from epochal import Callback, Checkpoint, EarlyStopping, Every, Plateau, ReduceLROnPlateau, Stop, TerminateOnNaN
from epochal.core.errors import ArgumentError, AttachError, EventOrderError
from epochal.testing import RecordEvents, simulate

LOSSES = [{"val/loss": x, "train/loss": x} for x in (3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)]


class Do(Callback):
    def __init__(self, label="", **at):
        if label:
            self.name = label
        for event, fn in at.items():
            setattr(self, event, fn)


def policies():
    return [
        EarlyStopping("val/loss", patience=4),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=2),
        Stop(when=Plateau("train/loss", patience=9) & Every(epochs=2)),
        Checkpoint(when=Every(epochs=3), keep_last=-1),
        TerminateOnNaN(),
    ]


def decisions(result):
    return result.epochs_run, result.stop_reason, result.lrs, result.saved, result.kept


def test_a_list_of_callbacks_decides_in_a_second_training_as_in_the_first():
    callbacks = policies()
    first = decisions(simulate(callbacks, LOSSES))
    assert decisions(simulate(callbacks, LOSSES[:3]))[0] == 3
    assert decisions(simulate(callbacks, LOSSES)) == first == decisions(simulate(policies(), LOSSES))


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
def test_a_training_resumed_in_the_middle_decides_as_one_that_was_never_interrupted(cut):
    whole = simulate([*policies(), Checkpoint(keep_last=-1, name="all")], LOSSES)
    saved = whole.run.checkpoints[cut - 1]
    assert saved.manifest.epoch == cut - 1
    used = policies()
    simulate(used, LOSSES[:2])  # what they learnt in another training does not matter
    state = {part: saved.load(part) for part in ("run", "callbacks")}
    again = simulate([*used, Checkpoint(keep_last=-1, name="all")], LOSSES, state=state)
    assert again.events[0] == "on_resume"
    assert again.epochs_run == whole.epochs_run - cut
    assert (again.stop_reason, again.lrs) == (whole.stop_reason, whole.lrs[cut:])
    assert again.run.history == whole.run.history


def test_the_state_stands_before_the_first_event(drive):
    class Keeps(Callback):
        value = 0

        def on_resume(self, run):
            seen.append(("on_resume", self.value))

        def on_train_start(self, run):
            seen.append(("on_train_start", self.value))
            self.value += 1

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    seen, keeps = [], Keeps()
    simulate([keeps], LOSSES[:1])
    simulate([keeps], LOSSES[:1])
    assert seen == [("on_train_start", 0)] * 2
    state = {"run": drive().begin().engine.state_dict(), "callbacks": {"Keeps": {"value": 7}}}
    seen.clear()
    simulate([keeps], LOSSES[:1], state=state)
    assert seen == [("on_resume", 7), ("on_train_start", 7)]


def test_a_callback_that_joins_a_begun_run_before_its_first_epoch_has_its_state_too(drive):
    used = EarlyStopping("val/loss", patience=4)
    simulate([used], LOSSES)
    assert used.plateau.state.bad > 0
    driver = drive()
    from epochal.core import lifetime

    lifetime.begin(driver.run)
    driver.run.add(used)
    assert used.plateau.state.bad == 0
    lifetime.finish(driver.run)
    state = {"run": driver.engine.state_dict(), "callbacks": {"EarlyStopping(val/loss)": used.state_dict()}}
    state["callbacks"]["EarlyStopping(val/loss)"]["bad"] = 3
    other = drive()
    lifetime.begin(other.run, saved=state)
    other.run.add(used)
    assert used.plateau.state.bad == 3
    lifetime.finish(other.run)


@pytest.mark.parametrize(
    "make", [lambda one: one, lambda one: Stop(one.when), lambda one: Stop(one.when | Every(epochs=9))]
)
def test_one_object_in_two_trainings_that_overlap_is_an_error(drive, make):
    one = EarlyStopping("val/loss", patience=1)
    driver = drive(one).begin()
    other = drive(make(one))
    with pytest.raises(AttachError, match="serves another training that is still running; give each training its own"):
        other.begin()
    driver.end()
    other.begin().end()  # the failed attempt left nothing behind


def test_two_given_names_that_are_equal_are_an_error_and_equal_defaults_are_numbered(drive):
    with pytest.raises(ArgumentError, match="two callbacks are named 'a'; give each its own name"):
        drive(Do("a"), Do("a"))
    driver = drive(*(EarlyStopping("val/loss", patience=p) for p in (1, 2, 3)), Do(), RecordEvents(), RecordEvents())
    assert list(driver.run.roster.callbacks) == [
        "EarlyStopping(val/loss)", "EarlyStopping(val/loss)#2", "EarlyStopping(val/loss)#3", "Do", "RecordEvents",
        "RecordEvents#2",
    ]  # fmt: skip


def test_a_name_that_the_checkpoint_has_and_nobody_now_and_the_reverse_is_said(drive, caplog):
    saved = {"run": drive().begin().engine.state_dict(), "callbacks": {"old": {"x": 1}, "empty": {}, "both": {}}}
    with caplog.at_level(logging.WARNING, "epochal"):
        drive(Do("both"), Do("new")).begin(saved)
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "resume: new was not there when the checkpoint was written; it begins anew.",
        "resume: the checkpoint has a state for old, which is not there now; it is left out.",
        "resume: the checkpoint has a state for empty, which is not there now; it is left out.",
    ]


def test_a_callback_object_cannot_join_a_running_training_and_a_function_can(drive):
    driver = drive().begin()
    with pytest.raises(AttachError, match=r"cannot be added while a training runs.*use run.add_callback\(event, fn\)"):
        driver.run.add(RecordEvents())
    driver.run.add_callback("on_train_end", lambda run: None)


def test_a_run_trains_once_at_a_time_and_not_after_detach(drive):
    driver = drive().begin()
    with pytest.raises(AttachError, match="this run is training already"):
        driver.begin()
    with pytest.raises(AttachError, match="Driver is not attached; there is nothing to undo"):
        driver.run.detach()
    undone = []
    driver.run.on_detach = lambda: undone.append(1)
    with pytest.raises(AttachError, match="cannot be detached while it trains"):
        driver.run.detach()
    driver.end()
    driver.run.detach()
    driver.run.detach()
    assert undone == [1]
    for use in (
        lambda: driver.run.add_callback("teardown", print),
        lambda: driver.run.add(RecordEvents()),
        driver.begin,
    ):
        with pytest.raises(AttachError, match="detached"):
            use()


def test_summaries_of_earlier_trainings_are_kept(drive):
    driver = drive()
    for _ in range(2):
        driver.begin()
        driver.epoch(0, batches=[{}, {}], val={"val/loss": 2.0})
        driver.epoch(1, batches=[{}], val={"val/loss": 3.0})
        driver.end()
    one, two = driver.run.past
    assert one._replace(seconds=0) == two._replace(seconds=0)
    assert (one.epochs, one.steps, one.fitness, one.best_fitness, one.best_epoch) == (2, 3, -3.0, -2.0, 0)


def test_the_end_reason_says_how_it_ended(drive):
    class Preempted(BaseException):
        pass

    for error, reason in [(None, "completed"), (ValueError(), "exception"), (KeyboardInterrupt(), "interrupted"),
                          (Preempted(), "preempted")]:  # fmt: skip
        driver = drive().begin()
        assert driver.run.end_reason is None
        driver.end(error)
        assert driver.run.end_reason == reason


# -- debug mode, copies, imports ---------------------------------------------------------------------------------------


def test_debug_mode_raises_where_a_wrong_event_comes(drive, monkeypatch):
    monkeypatch.setenv("EPOCHAL_DEBUG", "1")
    driver = drive().begin()
    driver.run.declare("on_mine")
    driver.run.emit("on_mine")
    with pytest.raises(EventOrderError, match="event 2, 'on_val_end', cannot follow 'on_train_start'"):
        driver.engine.fire("on_val_end")
    driver.end()
    simulate(policies(), LOSSES, batches=2)
    monkeypatch.setenv("EPOCHAL_DEBUG", "0")
    driver.begin().engine.fire("on_val_end")


def fits(run):
    """Be a function that pickle finds by its name."""
    if run.epoch == 1:
        run.stop("enough")


@pytest.mark.parametrize("how", ["pickle", "cloudpickle", "deepcopy"])
@pytest.mark.parametrize("trained", [False, True])
def test_an_idle_run_can_be_copied_and_the_copy_decides_by_itself(drive, how, trained):
    cloudpickle = pytest.importorskip("cloudpickle") if how == "cloudpickle" else pickle
    driver = drive(*(one for one in policies() if not isinstance(one, Checkpoint)))
    handle = driver.run.add_callback("on_fit_epoch_end", fits, every=2)
    driver.run.declare("on_mine")
    driver.run.time_callbacks()

    def train(one):
        one.begin()
        for number, logged in enumerate(LOSSES):
            one.epoch(number, batches=[{}], val=logged)
            if one.run.stop_reason:
                break
        one.end()
        return one.run.past[-1]

    if trained:
        train(driver)
    copied = copy.deepcopy(driver) if how == "deepcopy" else pickle.loads(cloudpickle.dumps(driver))
    assert copied.run.engine.run is copied.run
    first, second = train(driver), train(copied)
    assert first.stop_reason == second.stop_reason == "fits(): enough"
    assert first.history == second.history
    handle.remove()
    assert train(copied).stop_reason == "fits(): enough"
    assert "fits" not in train(driver).stop_reason


def test_importing_registers_nothing_and_changes_no_environment():
    code = """
import atexit, logging, os, signal, sys, threading
before = dict(os.environ), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)], sys.excepthook
count = atexit._ncallbacks()
import epochal, epochal.testing, epochal.integrations.pytorch
from epochal import Callback, Loop, attach, EarlyStopping, Checkpoint
after = dict(os.environ), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)], sys.excepthook
print(before == after, threading.active_count(), logging.getLogger("epochal").handlers, logging.root.handlers,
      logging.getLogger("epochal").level, atexit._ncallbacks() - count, os.listdir("."))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    answer = done.stdout.split("\n")[0]
    assert answer.startswith("True 1 [] [] 0 ")
    assert answer.endswith(" []")
