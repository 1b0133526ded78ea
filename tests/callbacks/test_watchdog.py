"""A hang is seen, told once with the place where the training stands, and the training goes on when it can."""

import copy
import logging
import pickle
import threading

import pytest

from epochal import Callback, Loop, Watchdog, attach
from epochal.callbacks.watchdog import Silence, is_library
from epochal.core.errors import ArgumentError
from epochal.testing import RecordEvents, simulate

torch = pytest.importorskip("torch")


def threads():
    return [one for one in threading.enumerate() if one.name == "epochal Watchdog"]


@pytest.fixture
def eager(monkeypatch):
    """The watchdog's thread looks often; what time it is says the test."""
    monkeypatch.setattr("epochal.callbacks.watchdog.LONGEST", 0.002)


class Told:
    """What the watchdog says, and its clock, which only runs while a data loader waits for it."""

    def __init__(self):
        self.reports, self.threads = [], []
        self.there = threading.Event()
        self.now = 0.0

    def watchdog(self):
        return Watchdog(minutes=1, tell=self, clock=lambda: self.now)

    def wait(self):
        self.there.clear()
        for _ in range(5000):
            if self.there.wait(0.01):
                return
            self.now += 61
        pytest.fail("no report came")

    def __call__(self, report):
        self.reports.append(report)
        self.threads.append(threading.current_thread().name)
        self.there.set()


def blocking_loader(told, batches=4, blocked=(2,)):
    for batch in range(batches):
        if batch in blocked:
            told.wait()
        yield batch


def train(*callbacks, loader, validation=(), **options):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, **options) as run:
        for _ in run.epochs(1):
            for _ in run.batches(loader):
                pass
            with run.validation():
                for _ in run.batches(validation):
                    pass
    return run


def test_a_blocked_loader_is_told_with_the_line_where_it_stands(run_dir, caplog, eager):
    told, events = Told(), []

    class Listens(Callback):
        def on_hang(self, run):
            events.append((run.batch, threading.current_thread() is threading.main_thread()))

    run = train(told.watchdog(), Listens(), loader=blocking_loader(told), dir=run_dir)
    assert events == [(2, True)]
    assert told.threads == ["epochal Watchdog"]
    (report,) = told.reports
    assert report.startswith("no batch for 1 min, after epoch 0, batch 1, step 2; the training thread stands at ")
    assert f"{__file__}:" in report
    assert "in wait: if self.there.wait(0.01):, inside Condition.wait" in report
    text = (run.dir / "hang-1.txt").read_text()
    assert report in text
    assert "thread MainThread (the training):" in text
    assert f'File "{__file__}", line' in text
    assert "epochal Watchdog" not in text
    assert f"all threads are in {run.dir / 'hang-1.txt'}" in caplog.text
    assert "Watchdog: the training goes on." in caplog.text
    assert run.past[-1].failures == {}
    assert threads() == []


def test_each_hang_is_told_once_also_in_a_validation(run_dir, eager):
    told = Told()
    run = train(
        told.watchdog(),
        loader=blocking_loader(told, blocked=(1, 3)),
        validation=blocking_loader(told, batches=2, blocked=(1,)),
        dir=run_dir,
    )
    assert len(told.reports) == 3
    assert sorted(path.name for path in run.dir.glob("hang-*.txt")) == ["hang-1.txt", "hang-2.txt", "hang-3.txt"]


def test_a_silence_becomes_a_hang_after_the_limit_and_once():
    silence, heard = Silence(limit=10.0), []
    signs = [(0, 0), (0, 9.9), (0, 10.0), (0, 50.0), (1, 51.0), (1, 60.9), (2, 61.0), (2, 70.9), (2, 71.0), (2, 99.0)]
    for beats, now in signs:
        if silence.too_long(beats, now):
            heard.append(now)
    assert heard == [10.0, 71.0]


def test_a_training_that_goes_on_is_left_alone(caplog):
    caplog.set_level(logging.INFO)
    record = RecordEvents()
    simulate([Watchdog(minutes=10), record], [{"val/loss": 1.0}] * 3, batches=3)
    assert "Watchdog" not in caplog.text
    assert threads() == []


def test_the_thread_ends_when_the_training_fails():
    def broken():
        yield 0
        raise ZeroDivisionError

    watchdog = Watchdog(minutes=10)
    with pytest.raises(ZeroDivisionError):
        train(watchdog, loader=broken())
    assert threads() == []
    assert watchdog.watch is None


def test_a_tell_that_fails_ends_nothing(caplog, eager):
    told = Told()

    def tell(report):
        told(report)
        raise ValueError("no network")

    run = train(Watchdog(minutes=1, tell=tell, clock=lambda: told.now), loader=blocking_loader(told))
    assert run.end_reason == "completed"
    assert "a hang could not be reported" in caplog.text


def test_it_can_be_copied_while_it_watches_and_used_again():
    copies = []

    class Copies(Callback):
        def on_train_batch_end(self, run):
            copies.extend((copy.deepcopy(watchdog), pickle.loads(pickle.dumps(watchdog))))

    watchdog = Watchdog(minutes=10)
    for _ in range(2):
        simulate([watchdog, Copies()], [{}])
    assert all(one.watch is None and one.minutes == 10 for one in copies)
    simulate([copies[0]], [{}])
    assert threads() == []


def test_the_users_files_are_told_from_libraries():
    assert is_library(torch.__file__)
    assert is_library(threading.__file__)
    assert is_library("<frozen importlib._bootstrap>")
    assert not is_library(__file__)


@pytest.mark.parametrize("options", [{"minutes": 0}, {"minutes": "5"}, {"tell": "me"}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError, match="Watchdog"):
        Watchdog(**options)


def test_a_yolo_training_that_hangs_is_told_and_goes_on(yolo, quick, eager):
    model, told, hangs = yolo(), Told(), []
    run = attach(model, told.watchdog())
    run.add_callback("on_hang", lambda run: hangs.append(run.batch))

    run.add_callback("on_train_batch_start", lambda run: told.wait(), once=True)
    model.train(**quick(epochs=1))
    assert run.end_reason == "completed"
    assert hangs == [0]
    assert (run.dir / "hang-1.txt").exists()
    assert threads() == []
