"""Preemption: signals end a training between two batches, everything that is worth it kept, within a grace budget."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from epochal import Callback, Checkpoint, Every, Preempted, SaveOnException
from epochal.core import preemption
from epochal.core.errors import ArgumentError
from epochal.loggers.base import Logger
from epochal.testing import RecordEvents, check_events, simulate

EPOCHS = [{"val/loss": 1.0}] * 3


class Send(Callback):
    """Sends signals to this process at an event of an epoch, one after the other."""

    def __init__(self, *numbers, event="on_train_batch_end", at=(1, 1)):
        self.numbers, self.at = numbers, at
        self.then = []
        setattr(self, event, self.send)

    def send(self, run):
        if (run.epoch, run.batch) == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)
                self.then.append("went on")


@pytest.fixture(autouse=True)
def nobody_trains():
    for engine in list(preemption._trainings):  # a test of another file that left a training in the middle
        preemption.unwatch(engine)


def each_epoch():
    return Checkpoint(Every(epochs=1), keep_last=-1, keep_best=0)


def run_of(raised, *callbacks, batches=4, **options):
    """Run a simulation that a signal ends, and return its run and the trace."""
    record, got = RecordEvents(), []

    class Note(Callback):
        def on_train_start(self, run):
            got.append(run)

    with pytest.raises(raised) as info:
        simulate([Note(), record, *callbacks], EPOCHS, batches=batches, **options)
    check_events(record.events)
    return got[0], record.events, info.value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_training_at_the_end_of_the_batch(number, capfd):
    send = Send(number, event="on_train_batch_start")
    run, events, error = run_of(Preempted, send)
    assert send.then == ["went on"]
    assert (run.epoch, run.batch, run.step) == (1, 1, 6)
    assert run.end_reason == "preempted"
    assert (error.code, error.signal) == (128 + number, number)
    assert run.error is error
    assert events.count("on_train_batch_end") == 6
    assert f"{signal.Signals(number).name}: the training ends after this batch" in capfd.readouterr().err


def test_ctrl_c_ends_it_the_same_way_with_the_usual_exception(capfd):
    run, events, _ = run_of(KeyboardInterrupt, Send(signal.SIGINT, event="on_train_batch_start"))
    assert run.end_reason == "interrupted"
    assert events.count("on_train_batch_end") == 6
    assert "Ctrl-C again leaves at once" in capfd.readouterr().err


@pytest.mark.parametrize("event", ["on_val_start", "on_val_end", "on_fit_epoch_end"])
def test_it_is_served_in_and_after_a_validation_too(event):
    run, events, _ = run_of(Preempted, Send(signal.SIGTERM, event=event, at=(1, 3)))
    assert run.epoch == 1
    assert events.count("on_train_epoch_start") == 2


def test_a_second_ctrl_c_leaves_at_once():
    send = Send(signal.SIGINT, signal.SIGINT, event="on_train_batch_start")
    run, events, _ = run_of(KeyboardInterrupt, send)
    assert send.then == ["went on"]
    assert events.count("optimizer_step") == 5
    assert preemption.within(run.engine, 10.0) == 0.0


def test_what_a_second_ctrl_c_leaves_unsaved_is_said_and_no_callback_is_blamed(caplog):
    class Asks(Callback):
        def on_train_batch_start(self, run):
            run.save("x")

    run_of(KeyboardInterrupt, Asks(), Send(signal.SIGINT, signal.SIGINT, event="on_train_batch_start"))
    assert "asked for a checkpoint (x), and the training was left at once." in caplog.text


def test_what_is_saved_is_a_point_to_resume_from_or_nothing_if_there_is_one():
    run, _, _ = run_of(Preempted, each_epoch(), Send(signal.SIGTERM, event="on_train_batch_start"))
    assert [one.manifest.epoch for one in run.checkpoints] == [0]
    run, _, _ = run_of(Preempted, each_epoch(), Send(signal.SIGTERM, event="on_fit_epoch_end", at=(1, 3)))
    assert [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints] == [(0, True), (1, True)]
    assert "SIGTERM" in run.checkpoints.last.manifest.reason


def test_without_a_point_to_resume_from_the_state_is_rescued():
    run, events, _ = run_of(Preempted, each_epoch(), Send(signal.SIGTERM, event="on_train_batch_start", at=(0, 1)))
    assert [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints] == [(0, False)]
    assert events.count("on_model_save") == 1


def test_in_a_validation_the_end_of_the_epoch_is_waited_for_while_there_is_time(monkeypatch):
    send = Send(signal.SIGTERM, event="on_val_start", at=(1, 3))
    run, events, _ = run_of(Preempted, each_epoch(), send)
    assert [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints] == [(0, True), (1, True)]
    assert events.count("on_train_epoch_start") == 2
    monkeypatch.setenv("EPOCHAL_GRACE", "0")
    run, events, _ = run_of(Preempted, each_epoch(), send)
    assert [(one.manifest.epoch, one.manifest.resume_point) for one in run.checkpoints] == [(0, True)]
    assert events.count("on_fit_epoch_end") == 1


LONG = """
import time
from epochal import Callback
from epochal.testing import simulate

class Long(Callback):
    def on_train_batch_start(self, run):
        print("in a batch", flush=True)
        while True:
            time.sleep(0.05)

simulate([Long()], [{}])
"""


def test_a_second_ctrl_c_leaves_a_batch_that_never_ends():
    process = subprocess.Popen([sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in a batch\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("epochal: Ctrl-C")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "\nKeyboardInterrupt\n" in told


def test_a_run_that_keeps_no_checkpoints_saves_none():
    run, _, _ = run_of(Preempted, Send(signal.SIGTERM))
    assert len(run.checkpoints) == 0


def test_save_on_exception_saves_nothing_twice():
    run, events, _ = run_of(KeyboardInterrupt, SaveOnException(), Send(signal.SIGINT))
    assert [one.manifest.reason for one in run.checkpoints] == ["SIGINT"]
    assert events.count("on_model_save") == 1


def test_the_end_of_the_training_is_too_late_for_a_safe_point_and_not_lost():
    run, events, _ = run_of(Preempted, Send(signal.SIGTERM, event="on_train_end", at=(2, 3)))
    assert run.end_reason == "completed"
    assert "on_exception" not in events


def test_an_error_while_a_signal_waits_does_not_hide_it():
    class Fails(Callback):
        def on_train_batch_end(self, run):
            if run.step == 6:
                raise RuntimeError("a worker was killed by the same signal")

    _, _, error = run_of(Preempted, Send(signal.SIGTERM, event="on_train_batch_start"), Fails())
    assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_handler_of_the_users_is_called_and_stands_again_afterwards(number):
    got = []
    before = signal.signal(number, own := lambda number, frame: got.append(number))
    try:
        run_of(BaseException, Send(number))
        assert got == [number]
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_handlers_are_there_only_during_a_training():
    def now():
        return [signal.getsignal(number) for number in preemption.SIGNALS]

    before, during = now(), []

    class Look(Callback):
        def on_train_start(self, run):
            during.extend(now())

    simulate([Look()], EPOCHS)
    assert during == [preemption.handle] * len(before)
    assert now() == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert simulate([Send(signal.SIGUSR1)], EPOCHS, batches=4).end_reason == "completed"
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_set_during_the_training_is_left_alone():
    before = signal.getsignal(signal.SIGUSR1)

    def own(number, frame): ...

    class Sets(Callback):
        def on_train_batch_end(self, run):
            signal.signal(signal.SIGUSR1, own)

    try:
        simulate([Sets()], EPOCHS)
        assert signal.getsignal(signal.SIGUSR1) is own
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_training_inside_a_training_passes_it_on():
    ended = []

    class Inner(Callback):
        def on_fit_epoch_end(self, run):
            try:
                simulate([Send(signal.SIGTERM, at=(0, 0))], EPOCHS)
            finally:
                ended.append(signal.getsignal(signal.SIGTERM))

    run, _, _ = run_of(Preempted, Inner())
    assert ended == [preemption.handle]
    assert (run.epoch, run.end_reason) == (0, "preempted")


def test_a_training_on_another_thread_touches_no_handlers():
    found = []

    class Look(Callback):
        def on_train_start(self, run):
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=simulate, args=([Look()], EPOCHS))
    thread.start()
    thread.join()
    assert found == [before]


class Hangs(Logger):
    """Writes nowhere, and never comes back."""

    def __init__(self):
        super().__init__(flush_limit=600.0)
        self.over = threading.Event()

    def __getstate__(self):
        return {**super().__getstate__(), "over": None}

    def open(self, about):
        return self

    def write(self, records):
        self.over.wait()

    def finish(self, end_reason): ...


class Writes(Logger):
    """Remembers how it ended."""

    ended = None

    def open(self, about):
        return self

    def write(self, records): ...

    def finish(self, end_reason):
        self.ended = end_reason


def test_a_destination_that_hangs_leaves_time_for_the_others_within_the_budget(monkeypatch, caplog):
    monkeypatch.setenv("EPOCHAL_GRACE", "1.5")
    hangs, writes = Hangs(), Writes()
    start = time.monotonic()
    run_of(Preempted, hangs, writes, Send(signal.SIGTERM))
    hangs.over.set()
    assert time.monotonic() - start < 30  # not 600
    assert writes.ended == "preempted"


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_wrong_grace_is_said_when_the_training_starts(value, monkeypatch):
    monkeypatch.setenv("EPOCHAL_GRACE", value)
    with pytest.raises(ArgumentError, match="EPOCHAL_GRACE"):
        simulate([], EPOCHS)
    assert signal.getsignal(signal.SIGTERM) is not preemption.handle


def test_ranks_agree_at_the_end_of_an_epoch():
    asked = []

    class OtherRank(Callback):
        """The rank beside this one gets SIGTERM in epoch 1."""

        def on_train_start(self, run):
            run.engine.agree = lambda number: asked.append(number) or (15 if run.epoch == 1 else number)

    run, events, _ = run_of(Preempted, OtherRank())
    assert asked == [0, 0]
    assert (run.epoch, events.count("on_fit_epoch_end")) == (1, 2)
    asked.clear()
    run, events, _ = run_of(Preempted, OtherRank(), Send(signal.SIGTERM, at=(0, 1)))
    assert asked == [15]
    assert events.count("on_train_batch_end") == 4


SCRIPT = """
import os, signal, sys
from epochal import Callback
from epochal.testing import simulate

class Send(Callback):
    def on_train_batch_end(self, run):
        if run.epoch == 1:
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))

try:
    simulate([Send()], [{}, {}, {}])
except Exception:
    print("swallowed")
print("the script went on")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", -2)])
def test_the_process_ends_with_the_signals_status_and_nothing_swallows_it(name, status):
    done = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("\nepochal: ")


CHILD = """
import os, signal, time
from epochal import Callback
from epochal.testing import simulate

class Fork(Callback):
    def on_train_start(self, run):
        ready, tell = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(tell, b".")
            while True:
                time.sleep(0.05)
        os.read(ready, 1)
        os.kill(pid, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

print(simulate([Fork()], [{}]).end_reason)
"""


def test_a_forked_child_dies_of_a_signal_as_it_would_have():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["-15", "completed"]


def test_the_exception_travels():
    error = Preempted(signal.SIGTERM)
    assert pickle.loads(pickle.dumps(error)).code == 143
    assert (str(error), repr(error)) == ("SIGTERM", "Preempted(SIGTERM)")
    assert isinstance(error, SystemExit)
    assert not isinstance(error, Exception)


def test_it_is_in_the_log_where_the_training_ended(caplog):
    with caplog.at_level(logging.WARNING, "epochal"):
        run_of(Preempted, Send(signal.SIGTERM))
    assert "SIGTERM: the training ends here, in its epoch 2, after 6 steps" in caplog.text
