"""Loggers whose run has a store: what they deliver is read from there, and goes on exactly where it stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest

from epochal import Callback, TensorBoardLogger
from epochal.commands.sync import sync
from epochal.core.errors import EpochalError
from epochal.loggers.cursor import Cursor, all_cursors, load, save
from epochal.loggers.feed import Feed
from epochal.loggers.worker import Limits
from epochal.runs.schema import file_of, open_to_tell
from epochal.runs.stored import StoredRun
from tests.loggers.test_base import Keep

torch = pytest.importorskip("torch")
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
from epochal import Loop  # noqa: E402

ROOT = Path(__file__).parents[2]


class Stored(Keep):
    """Keeps what it is handed from the run's store; fails as long as it is told to."""

    destination = "kept"
    limits = Limits(pause=0.02, longest_pause=0.05)

    def __init__(self, **options):
        super().__init__(**options)
        self.down = False

    def write(self, records):
        if self.down:
            raise ConnectionRefusedError("nobody listens")
        super().write(records)


class Inside(Callback):
    def __init__(self, event, fn):
        setattr(self, event, fn)


def train(callbacks, epochs=2, batches=5, dir="runs", **options):  # noqa: A002
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, dir=dir, name="a", **options) as run:
        run.log_params({"lr": 0.1, "optimizer": "SGD"})
        for epoch in run.epochs(epochs):
            for batch in run.batches(range(batches)):
                run.log({"train/loss": 1 / (run.step + 1), "train/acc": float(batch)})
                run.log({"alone": float(run.step)})
            with run.validation():
                run.log({"val/loss": 1 / (epoch + 1)})
    return run


def plain(records):
    """Records as they can be compared: the index of a batch is not kept, and each reads the clock by itself."""
    return [
        (one.kind, {name: value for name, value in one.values.items() if name != "seconds"}, one.at.epoch, one.at.batch is None, one.at.step)
        for one in records if one.kind != "params"
    ]  # fmt: skip


def scalars(folder, tag):
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_the_store_hands_over_what_a_live_logger_is_handed():
    live, stored = Keep(), Stored()
    run = train([live, stored])
    assert plain(stored.records) == plain(live.records)
    assert [one.values for one in stored.records if one.kind == "params"] == [{"lr": 0.1, "optimizer": "SGD"}]
    assert stored.ends == live.ends == ["completed"]
    assert run.past[-1].notes == ()
    assert not [one for one in threading.enumerate() if one.name.startswith("epochal ")]


def test_without_a_store_it_works_live():
    live, stored = Keep(), Stored()
    train([live, stored], store=False)
    assert plain(stored.records) == plain(live.records)
    assert not stored.abouts[0].stored


def test_what_a_destination_lacks_at_the_end_waits_and_is_named():
    stored = Stored(flush_limit=30.0)
    stored.down = True
    begun = time.monotonic()
    run = train([stored])
    assert time.monotonic() - begun < 25, "a destination that fails is not waited for"
    note = run.past[-1].notes[0]
    assert "44 points wait in the run's store; `epochal sync runs/a` will bring them" in note, note
    assert "ConnectionRefusedError: nobody listens" in note
    assert stored.ends == []


def test_a_destination_that_comes_back_gets_everything_once_and_in_order():
    live, stored = Keep(), Stored()
    stored.down = True
    gone = threading.Event()
    stored.report = lambda error: gone.set()

    def come_back(run):
        if run.step == 7:
            while not stored.session.follower.failures:
                time.sleep(0.005)
            stored.down = False

    run = train([live, stored, Inside("on_train_batch_end", come_back)])
    assert plain(stored.records) == plain(live.records)
    assert "then all records were written" in run.past[-1].notes[0]


def test_a_batch_of_the_feed_never_tears_a_log_call_apart():
    stored = Stored()
    run = train([stored], epochs=3, batches=20)
    feed, cursor, records, reads = Feed(file_of(run.dir)), Cursor("kept again"), [], 0
    while (batch := feed.read(cursor, most=7)).points:
        records += batch.records
        cursor, reads = batch.cursor, reads + 1
    assert plain(records) == plain(stored.records)
    assert feed.waiting(cursor) == 0
    assert feed.waiting(Cursor("kept again")) == sum(len(one.values) for one in records if one.kind != "params")


def test_a_resumed_run_goes_on_and_what_was_not_delivered_of_repeated_steps_is_left_out():
    first, stored = Stored(), Stored()
    first.down = True

    def end(run):
        if run.step == 8:
            raise ValueError("here it ends")

    from epochal import Checkpoint, Every

    keep = Checkpoint(when=Every(epochs=1))
    with pytest.raises(ValueError, match="here it ends"):
        train([first, keep, Inside("on_train_batch_end", end)])
    train([stored, Checkpoint(when=Every(epochs=1))], resume=True)
    steps = [one.at.step for one in stored.records if one.kind == "metrics" and "alone" in one.values]
    assert steps == list(range(10))
    assert stored.ends == ["completed"]


def test_tensorboard_shows_each_step_of_a_resumed_run_once():
    from epochal import Checkpoint, Every

    def count(run):
        run.log({"counted": float(run.step)})

    def end(run):
        count(run)
        if run.step == 8:
            time.sleep(1.5)  # the steps that will be repeated are delivered
            raise ValueError("here it ends")

    with pytest.raises(ValueError, match="here it ends"):
        train([TensorBoardLogger(), Checkpoint(when=Every(epochs=1)), Inside("on_train_batch_end", end)])
    assert [step for step, _ in scalars("runs/a/tensorboard", "counted")] == list(range(1, 9))
    train([TensorBoardLogger(), Checkpoint(when=Every(epochs=1)), Inside("on_train_batch_end", count)], resume=True)
    assert [step for step, _ in scalars("runs/a/tensorboard", "counted")] == list(range(1, 11))
    assert scalars("runs/a/tensorboard", "val/loss") == [(5, 1.0), (10, 0.5)]
    assert len(list(Path("runs/a/tensorboard").iterdir())) == 1


def test_what_was_written_and_could_not_be_noted_is_taken_back():
    run = train([TensorBoardLogger()])
    file, (cursor,) = file_of(run.dir), all_cursors(file_of(run.dir))
    whole = Path(cursor.told["file"]).read_bytes()
    counts = {name: count // 2 for name, count in cursor.counts.items()}  # as if the process had died between the two
    half = half_of(file, cursor, counts)
    save(file, half)
    sync(run.dir)
    assert [step for step, _ in scalars(run.dir / "tensorboard", "alone")] == list(range(10))
    assert scalars(run.dir / "tensorboard", "epoch/train/acc") == [(5, 2.0), (10, 2.0)]
    assert len(whole) > half.told["size"]


def half_of(file, cursor, counts):
    """Deliver only a part, to learn what the writer remembers there."""
    from dataclasses import replace

    from epochal.commands.sync import follower_of, logger_of

    Path(cursor.told["file"]).unlink()
    run = StoredRun(file.parent)
    part = follower_of(run, cursor, logger_of(cursor, None))
    part.most = 5
    save(file, replace(cursor, told={}))
    while part.accepted < 20:
        assert part.turn()
    middle = part.cursor
    while not part.is_drained():
        assert part.turn()
    return middle


def test_a_deleted_folder_of_tensorboard_is_written_again_from_the_store():
    folder = Path("runs/a/tensorboard")

    def delete(run):
        if run.step == 6:
            end = time.monotonic() + 60
            while not (folder.exists() and list(folder.iterdir())) and time.monotonic() < end:
                time.sleep(0.01)
            shutil.rmtree(folder)

    train([TensorBoardLogger(), Inside("on_train_batch_end", delete)])
    assert [step for step, _ in scalars(folder, "alone")] == list(range(10))
    shutil.rmtree(folder)
    (done,) = sync(Path("runs/a"))
    assert done.points == 44
    assert [step for step, _ in scalars(folder, "alone")] == list(range(10))


def test_images_come_from_the_store():
    from io import BytesIO

    from PIL import Image

    gray = numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)
    train([TensorBoardLogger(), Inside("on_fit_epoch_end", lambda run: run.log_image("gray", gray))])
    events = accumulator.EventAccumulator("runs/a/tensorboard")
    events.Reload()
    assert [one.step for one in events.Images("gray")] == [5, 10]
    shown = events.Images("gray")[0]
    assert (shown.height, shown.width) == (3, 4)
    assert (numpy.asarray(Image.open(BytesIO(shown.encoded_image_string))) == gray).all()


def test_a_cursor_of_a_destination_that_serves_now_is_left_alone():
    run = train([TensorBoardLogger()])
    file = file_of(run.dir)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        from dataclasses import replace

        from epochal.runs.process import host_name, started

        by = {"pid": other.pid, "host": host_name(), "started": started(other.pid)}
        save(file, replace(all_cursors(file)[0], by=by))
        with pytest.raises(EpochalError, match="delivers by itself"):
            sync(run.dir)
    finally:
        other.communicate(b"\n")
    assert sync(run.dir)[0].points == 0


def test_a_run_without_such_a_logger_asks_where_to():
    run = train([])
    with pytest.raises(EpochalError, match="--to mlflow"):
        sync(run.dir)
    (done,) = sync(run.dir, "tensorboard")
    assert done.points == 44
    assert [step for step, _ in scalars(run.dir / "tensorboard", "alone")] == list(range(10))
    assert sync(run.dir)[0].points == 0, "it goes on there from now on"


def test_a_broken_cursor_is_one_at_the_beginning():
    run = train([])
    connection = open_to_tell(file_of(run.dir))
    connection.execute("INSERT INTO cursors VALUES ('tensorboard x', 'no JSON', 0)")
    connection.execute("INSERT INTO cursors VALUES ('tensorboard y', ?, 0)", (json.dumps({"later": 1, "media": 3}),))
    connection.close()
    assert load(file_of(run.dir), "tensorboard x") == Cursor("tensorboard x")
    assert load(file_of(run.dir), "tensorboard y").media == 3


KILLED = """
import sys, time, torch
from epochal import Loop, TensorBoardLogger
with Loop(model=torch.nn.Linear(1, 1), callbacks=[TensorBoardLogger()], dir="runs", name="a") as run:
    for epoch in run.epochs(10**6):
        for batch in run.batches(range(100)):
            run.log({"train/loss": float(run.step)})
            time.sleep(0.001)
        print(run.step, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_after_kill_9_sync_brings_every_stored_point_once():
    training = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    for _ in range(15):
        training.stdout.readline()
    training.send_signal(signal.SIGKILL)
    training.wait()
    training.stdout.close()
    run = StoredRun(Path("runs/a"))
    assert run.state == "crashed"
    (done,) = sync(run.path)
    assert done.ended == "crashed"
    expected = list(run.points("train/loss").steps)
    assert [step for step, _ in scalars("runs/a/tensorboard", "train/loss")] == expected
    assert len(expected) > 1000


def test_of_two_followers_of_one_destination_the_later_one_delivers_alone():
    from epochal.loggers.follower import Follower, Place

    run = train([])
    file, delivered = file_of(run.dir), {"first": [], "second": []}

    class Book:
        def __init__(self, name):
            self.name = name

        def write(self, records):
            delivered[self.name] += records

        def finish(self, end_reason):
            delivered[self.name].append(end_reason)

    def follower(name):
        return Follower("it", Place("kept it", {}), lambda: file, lambda *_: Book(name), most=10)

    first, second = follower("first"), follower("second")
    assert first.turn()
    before = len(delivered["first"])
    assert before
    assert second.turn()
    assert first.turn()
    first.end(first.writer)
    first.leave()
    assert first.abandoned
    assert len(delivered["first"]) == before, "it has left"
    while not second.is_drained():
        assert second.turn()
    assert plain(delivered["first"] + delivered["second"]) == plain(Feed(file).read(Cursor("kept all")).records)
    assert load(file, "kept it").by == second.claim
    second.leave()
    assert load(file, "kept it").by is None


def test_a_store_that_was_made_anew_in_the_same_place_is_delivered_from_its_beginning():
    import sqlite3

    from epochal.loggers.follower import Follower, Place

    run, records = train([]), []

    class Book:
        def write(self, found):
            records.extend(found)

    file = file_of(run.dir)
    follower = Follower("it", Place("kept it", {}), lambda: file, lambda *_: Book())
    assert follower.turn()
    once = len(records)
    with sqlite3.connect(file) as connection:  # as a new file that is given the old one's number on the disk
        connection.execute("DELETE FROM cursors")
    connection.close()
    assert follower.turn()
    assert len(records) == 2 * once
    assert load(file, "kept it").by == follower.claim


@pytest.mark.parametrize("torn", ['{"counts": 3}', '{"by": "me", "told": null}', "[]", '{"media": "x"}', "{" * 5000])
def test_what_is_torn_in_a_cursor_is_as_at_the_beginning(torn):
    run = train([])
    connection = open_to_tell(file_of(run.dir))
    connection.execute("INSERT INTO cursors VALUES ('kept x', ?, 0)", (torn,))
    connection.close()
    assert load(file_of(run.dir), "kept x") == Cursor("kept x")
