"""The queue between a training and a destination: ordered, bounded, never in the way."""

import logging
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.core.host import Record
from epochal.core.metrics import At
from epochal.loggers.base import told
from epochal.loggers.worker import Limits, Worker

FAST = Limits(pause=0.005, longest_pause=0.02)
SOON = 30.0  # seconds; a bound, not a measure


class Destination:
    """Takes records; fails or hangs when told to."""

    def __init__(self):
        self.values, self.ends, self.threads = [], [], set()
        self.down = threading.Event()
        self.hang = threading.Event()
        self.release = threading.Event()
        self.failed = threading.Event()
        self.bad = ()

    def write(self, records):
        self.threads.add(threading.current_thread().name)
        if self.hang.is_set():
            self.release.wait()
        if self.down.is_set():
            self.failed.set()
            raise ConnectionRefusedError("nobody listens")
        if any(record.values.get("x") in self.bad for record in records):
            raise ValueError("a value it does not take")
        self.values += [dict(record.values) for record in records]

    def finish(self, end_reason):
        self.ends.append(end_reason)


def metric(number, batch=0):
    return Record("metrics", {"x": float(number)}, At(0, batch, number), 0.0)


def worker_of(destination, limits=FAST):
    worker = Worker("test", lambda: destination, limits=limits)
    worker.start()
    return worker


def numbers(destination):
    return [values["x"] for values in destination.values]


def test_records_arrive_in_order_on_another_thread_and_the_end_comes_last():
    destination = Destination()
    worker = worker_of(destination)
    for number in range(1000):
        worker.put(metric(number))
    outcome = worker.close("stopped", limit=SOON)
    assert numbers(destination) == list(range(1000))
    assert destination.ends == ["stopped"]
    assert destination.threads == {"epochal test"}
    assert (outcome.written, outcome.lost, outcome.thinned, outcome.finished) == (1000, 0, 0, True)
    assert told("test", outcome, SOON) is None


def test_nothing_is_lost_while_a_destination_is_down_and_comes_back(caplog):
    destination = Destination()
    destination.down.set()
    worker = worker_of(destination)
    with caplog.at_level(logging.ERROR, "epochal"):
        for number in range(100):
            worker.put(metric(number))
        assert destination.failed.wait(SOON)
        for number in range(100, 200):
            worker.put(metric(number))
        destination.down.clear()
        outcome = worker.close("completed", limit=SOON)
    assert numbers(destination) == list(range(200))
    assert outcome.lost == outcome.thinned == 0
    assert len(caplog.records) == 1
    assert "all records were written" in told("test", outcome, SOON)


def test_a_dead_destination_is_given_up_at_the_end_and_said(caplog):
    destination = Destination()
    destination.down.set()
    worker = worker_of(destination)
    with caplog.at_level(logging.ERROR, "epochal"):
        for number in range(10):
            worker.put(metric(number))
        outcome = worker.close("completed", limit=SOON)
    assert (outcome.written, outcome.lost, outcome.finished) == (0, 10, False)
    assert len(caplog.records) == 1, "a failure is reported once"
    assert told("test", outcome, SOON) == (
        "test: 10 of 10 records were not written; its end was not written; the last error was ConnectionRefusedError: nobody listens"
    ).replace("; its end was not written", "")


def test_a_hung_destination_takes_records_without_end_in_bounded_memory():
    destination = Destination()
    destination.hang.set()
    worker = worker_of(destination, FAST._replace(records=100))
    for number in range(10_000):
        worker.put(metric(number))
        assert len(worker.buffer) <= 100
    outcome = worker.close("completed", limit=0.1)
    assert outcome.written + outcome.lost + outcome.thinned == 10_000
    assert "did not answer within 0.1 s" in told("test", outcome, 0.1)
    assert worker.thread.daemon
    destination.release.set()
    worker.thread.join(SOON)
    assert not worker.thread.is_alive()
    assert destination.ends == [], "what was given up is not ended behind our back"


def test_a_bad_record_does_not_take_the_good_ones_with_it():
    destination = Destination()
    destination.bad = (3.0,)
    worker = Worker("test", lambda: destination, limits=FAST)
    for number in range(6):
        worker.put(metric(number))
    worker.start()
    outcome = worker.close("completed", limit=SOON)
    assert numbers(destination) == [0, 1, 2, 4, 5]
    assert (outcome.written, outcome.lost, outcome.finished) == (5, 1, True)


def test_a_destination_that_cannot_be_opened_yet_is_opened_later():
    destination, tries = Destination(), []

    def open_it():
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return destination

    worker = Worker("test", open_it, limits=FAST)
    worker.start()
    worker.put(metric(1))
    outcome = worker.close("completed", limit=SOON)
    assert numbers(destination) == [1]
    assert outcome.finished


def test_tensors_are_read_on_the_worker_in_one_go():
    torch = pytest.importorskip("torch")
    destination = Destination()
    worker = worker_of(destination)
    worker.put(Record("metrics", {"x": torch.tensor(0.5), "y": torch.tensor([2])}, At(0, 0, 1), 0.0))
    worker.close("completed", limit=SOON)
    assert destination.values == [{"x": 0.5, "y": 2.0}]


def test_images_have_a_bound_of_their_own():
    destination = Destination()
    worker = Worker("test", lambda: destination, limits=FAST._replace(images=2))
    for number in range(5):
        worker.put(Record("image", {"x": number}, At(0, None, number), 0.0))
    worker.start()
    outcome = worker.close("completed", limit=SOON)
    assert (outcome.written, outcome.thinned) == (2, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["batch", "val", "epoch", "params"]), max_size=200), st.integers(8, 40))
def test_thinning_keeps_order_counts_all_and_spares_what_is_rare(kinds, limit):
    worker = Worker("test", Destination, limits=Limits(records=limit))
    for number, kind in enumerate(kinds):
        batch = 0 if kind == "batch" else None
        worker.put(Record("metrics" if kind in ("batch", "val") else kind, {"x": number}, At(0, batch, number), 0.0))
        assert len(worker.buffer) <= limit
    kept = [record.values["x"] for record in worker.buffer]
    assert kept == sorted(kept)
    assert len(kept) + worker.thinned == len(kinds)
    rare = [number for number, kind in enumerate(kinds) if kind != "batch"]
    if len(rare) <= limit // 4:
        assert set(rare) <= set(kept)
