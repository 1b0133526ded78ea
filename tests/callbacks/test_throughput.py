"""Speed, waiting and the time left, against sums by hand; the clock is the test's."""

import copy
import logging
import pickle

import pytest

from epochal import Callback, Checkpoint, CSVLogger, Every, Loop, Throughput, attach
from epochal.callbacks.throughput import count_samples
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

torch = pytest.importorskip("torch")
WAIT, WORK, VALIDATION = 1.0, 3.0, 10.0


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def slow(clock, batches):
    for batch in batches:
        clock.now += WAIT
        yield batch


def train(callbacks, clock, *, epochs=3, batches=4, size=8, sized=True, body=None, **options):
    model = torch.nn.Linear(2, 1)
    data = [(torch.zeros(size, 2), torch.zeros(size)) for _ in range(batches)]

    class Loader(list):
        def __iter__(self):
            return slow(clock, data)

    with Loop(model=model, callbacks=callbacks, **options) as run:
        for _ in run.epochs(epochs):
            for _ in run.batches(Loader(data) if sized else slow(clock, data)):
                clock.now += WORK
                if body is not None:
                    body(run)
            with run.validation():
                clock.now += VALIDATION
    return run


def values(run):
    return {name.removeprefix("throughput/"): run.metrics[name] for name in run.metrics if "throughput/" in name}


def test_an_epoch_is_told_as_by_hand_and_its_validation_is_not_training():
    clock = Clock()
    run = train([Throughput(clock=clock)], clock)
    assert values(run) == pytest.approx(
        {
            "samples_per_second": 8 / (WAIT + WORK),
            "batches_per_second": 1 / (WAIT + WORK),
            "data_wait": WAIT / (WAIT + WORK),
            "data_wait_seconds": 4 * WAIT,
            "eta_seconds": 0.0,
        }
    )
    epoch = 4 * (WAIT + WORK) + VALIDATION
    assert [row["throughput/eta_seconds"] for row in run.history] == pytest.approx([2 * epoch, epoch, 0])


def test_the_peer_measures_the_same():
    from lightning.fabric.utilities.throughput import Throughput as Peer

    clock, peer = Clock(), Peer(window_size=3)
    waits = iter((0.5, 2.0, 0.25))
    peer.update(time=clock.now, batches=0, samples=0)

    def body(run):
        clock.now += next(waits)
        if run.batch < 2:
            peer.update(time=clock.now, batches=run.batch + 1, samples=8 * (run.batch + 1))

    run = train([Throughput(clock=clock)], clock, epochs=1, batches=2, body=body)
    theirs = peer.compute()
    assert run.metrics["throughput/samples_per_second"] == pytest.approx(theirs["device/samples_per_sec"])
    assert run.metrics["throughput/batches_per_second"] == pytest.approx(theirs["device/batches_per_sec"])


def test_every_n_batches_tells_of_the_batches_since_and_an_epochs_value_is_the_epochs():
    clock, told = Clock(), []

    class Watch(Callback):
        def at_safe_point(self, run, now):
            if now.ended == "batch" and now.batch % 2:
                told.append((run.metrics["throughput/samples_per_second"], run.metrics["throughput/eta_seconds"]))

    def body(run):
        clock.now += 4.0 * (run.batch >= 2)  # the second half is slower

    run = train([Throughput(every=2, clock=clock), Watch()], clock, epochs=1, body=body)
    fast, slow = WAIT + WORK, WAIT + WORK + 4.0
    assert told == [(pytest.approx(8 / fast), pytest.approx(2 * fast)), (pytest.approx(8 / slow), 0.0)]
    assert run.history[0]["throughput/samples_per_second"] == pytest.approx(32 / (2 * fast + 2 * slow))
    assert run.history[0]["throughput/eta_seconds"] == 0.0


def test_checkpoints_and_validations_inside_an_epoch_are_not_waiting():
    clock = Clock()

    class SlowDisk(Callback):
        def state_dict(self):
            clock.now += 50.0
            return {}

    def body(run):
        if run.batch == 1:
            with run.validation():
                clock.now += VALIDATION

    before = Clock.__call__(clock)
    run = train([SlowDisk(), Checkpoint(Every(batches=3)), Throughput(clock=clock)], clock, epochs=1, body=body)
    assert clock.now - before > 100
    assert run.metrics["throughput/data_wait_seconds"] == 4 * WAIT


def test_without_a_length_the_epoch_before_tells_how_long_one_is():
    clock, told = Clock(), []
    throughput = Throughput(clock=clock, every=1)

    def body(run):
        told.append(throughput.eta_seconds)

    train([throughput], clock, epochs=2, sized=False, body=body)
    epoch = 4 * (WAIT + WORK) + VALIDATION
    assert told[:5] == [None, None, None, None, pytest.approx(epoch)]


def test_a_resumed_training_goes_by_this_processs_speed(run_dir):
    clock = Clock()
    with pytest.raises(ZeroDivisionError):
        train([Throughput(clock=clock), Checkpoint()], clock, epochs=10, dir=run_dir, name="r", body=fail_in(epoch=4))
    clock.now += 1e6
    throughput, slower = Throughput(clock=clock), 6.0

    def body(run):
        clock.now += slower
        run.stop("after one epoch")

    train([throughput, Checkpoint()], clock, epochs=10, dir=run_dir, name="r", resume=True, body=body)
    per_batch = WAIT + WORK + slower
    assert throughput.eta_seconds == pytest.approx(5 * (4 * per_batch + VALIDATION))


def fail_in(epoch):
    def body(run):
        if run.epoch == epoch:
            raise ZeroDivisionError

    return body


def test_each_epoch_is_told_in_words_and_in_the_csv_file(run_dir, caplog):
    caplog.set_level(logging.INFO, "epochal")
    clock = Clock()
    run = train([Throughput(clock=clock), CSVLogger()], clock, epochs=2, dir=run_dir)
    assert (
        "Throughput: epoch 1: 2 samples/s, 0.25 batches/s, 25 % of the time waiting for data, 26 s left" in caplog.text
    )
    header, first, _ = (run.dir / "metrics.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(row["throughput/eta_seconds"]) == 26


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(5, 2), torch.zeros(5)), 5),
        ([torch.zeros(5, 2), torch.zeros(5)], 5),
        ({"im_file": ["a", "b"], "img": torch.zeros(2, 3, 8, 8), "cls": torch.zeros(9, 1)}, 2),
        ({"input_ids": torch.zeros(4, 7), "labels": torch.zeros(4)}, 4),
        ([{"image": torch.zeros(3, 8, 8)}] * 6, 6),
        (([torch.zeros(3, 8, 8)] * 6, [{"boxes": torch.zeros(2, 4)}] * 6), 6),
        (["a sentence", "another"], 2),
        (torch.tensor(1.0), None),
        ([torch.tensor(1), torch.tensor(2)], 2),
        ([], 0),
        ({}, None),
        (None, None),
        (7, None),
    ],
)
def test_samples_are_found_in_batches_of_every_shape(batch, samples):
    assert count_samples(batch) == samples


@pytest.mark.parametrize(("given", "rate"), [(100, 25.0), (lambda batch: 3 * len(batch[0]), 6.0)])
def test_samples_can_be_given(given, rate):
    clock = Clock()
    run = train([Throughput(samples=given, clock=clock)], clock, epochs=1)
    assert run.metrics["throughput/samples_per_second"] == pytest.approx(rate)


def test_where_nobody_can_count_samples_batches_are_told():
    run = simulate([Throughput()], [{}, {}], batches=3).run
    assert "throughput/samples_per_second" not in run.metrics
    assert run.metrics["throughput/batches_per_second"] > 0


def test_a_second_training_is_measured_as_the_first_and_copies_measure_too():
    clock = Clock()
    throughput = Throughput(clock=clock, every=3)
    first = values(train([throughput], clock))
    assert values(train([throughput], clock)) == pytest.approx(first)
    for copied in (copy.deepcopy(Throughput(every=3)), pickle.loads(pickle.dumps(Throughput(every=3)))):
        assert "throughput/eta_seconds" in simulate([copied], [{}, {}], batches=4).run.metrics


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": "many"}, {"every": 0}, {"every": 1.5}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError, match="Throughput"):
        Throughput(**options)


def test_yolo_counts_its_images_and_leaves_its_validation_out(yolo, quick):
    model, throughput, told = yolo(), Throughput(), []
    run = attach(model, throughput)
    run.add_callback("on_fit_epoch_end", lambda run: told.append(throughput.eta_seconds))
    model.train(**quick())
    for row in run.history:
        rates = [row[f"throughput/{one}_per_second"] for one in ("samples", "batches")]
        assert rates[0] == pytest.approx(8 * rates[1])
        assert 0 < row["throughput/data_wait"] < 1
    assert told[0] > 0
    assert told[1] == 0.0
