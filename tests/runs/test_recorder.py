"""A training in its store: what was logged is read, also after a resume, a rollback, a fork and a copy."""

import copy
import math
import multiprocessing
import os
import pickle
import subprocess
import sys

import pytest

import epochal.runs
from epochal import Callback, Checkpoint, Every, LossSpike
from epochal.core.errors import ArgumentError
from epochal.runs.writer import StoreWriter
from epochal.testing import simulate

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
from epochal import Loop  # noqa: E402


def train(folder, *, epochs=2, batches=4, name="a", callbacks=(), resume=False, body=None, **options):
    net = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(
        model=net, optimizer=optimizer, callbacks=list(callbacks), dir=folder, name=name, resume=resume, **options
    ) as run:
        for epoch in run.epochs(epochs):
            for batch in run.batches(range(batches)):
                net(torch.ones(1, 1)).sum().backward()
                optimizer.step()
                run.log({"train/loss": float(run.step), "tensor": torch.tensor(run.step / 2)})
                if body is not None:
                    body(run, epoch, batch)
            with run.validation():
                run.log({"val/loss": 1.0 / (epoch + 1)})
    return run


def test_what_was_logged_is_read(tmp_path):
    run = train(tmp_path)
    run.log_params({"late": 1})
    stored = epochal.runs.open(tmp_path)["a"]
    assert stored.state == "finished"
    loss = stored.metric("train/loss")
    assert loss.step.tolist() == loss.value.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert loss.epoch.tolist() == [0] * 4 + [1] * 4
    assert stored.metric("tensor").value.tolist() == [step / 2 for step in range(1, 9)]
    assert stored.metric("epoch/train/loss").value.tolist() == [2.5, 6.5]
    assert stored.metric("val/loss").value.tolist() == [1.0, 0.5]
    assert [(row["epoch"], row["first_step"], row["last_step"]) for row in stored.table("epochs")] == [
        (0, 0, 4),
        (1, 4, 8),
    ]
    assert stored.sessions[0]["summary"]["steps"] == 8
    assert sorted(path.name for path in stored.path.iterdir()) == ["run.db", "run.json", "summary.json"]


def test_tensors_are_read_and_nothing_else_is_done_with_them(tmp_path):
    done = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            done.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    values = [0.5, torch.tensor(1.5).as_subclass(Watched), 2.5]
    done.clear()
    writer = StoreWriter(lambda: tmp_path / "run.db", dict, None)
    assert list(writer.read(values)) == [0.5, 1.5, 2.5]
    assert not {name for name in done if "add" in name}  # on a device each would be a kernel


def test_nothing_is_written_before_the_first_log_or_without_a_store(tmp_path):
    simulate([], [], dir=tmp_path / "a")
    net = torch.nn.Linear(1, 1)
    with Loop(model=net, dir=tmp_path, name="b") as run:
        for _ in run.epochs(1):
            print("a line is no reason for a file")
    train(tmp_path, name="c", store=False)
    assert not list(tmp_path.rglob("run.db")) or [path.parent.name for path in tmp_path.rglob("run.db")] == ["b"]


def test_a_resumed_training_overwrites_what_it_repeats_and_the_old_attempt_stays(tmp_path):
    class Boom(Exception):
        pass

    def fail(run, epoch, batch):
        if run.step == 7:
            run.log({"train/loss": -100.0})
            raise Boom

    saving = lambda: Checkpoint(Every(epochs=1), keep_last=1, keep_best=0)  # noqa: E731
    with pytest.raises(Boom):
        train(tmp_path, callbacks=[saving()], body=fail)
    stored = epochal.runs.open(tmp_path)["a"]
    assert (stored.state, stored.newest()["train/loss"]["low"]) == ("failed", -100.0)
    assert "Boom" in stored.sessions[0]["error"]
    train(tmp_path, callbacks=[saving()], resume=True, epochs=3)
    assert stored.state == "finished"
    assert stored.metric("train/loss").step.tolist() == list(range(1, 13))
    assert stored.metric("train/loss", attempt=1).value.tolist() == [1, 2, 3, 4, 5, 6, 7, -100]
    assert stored.metric("train/loss", attempt=2).step.tolist() == list(range(5, 13))
    newest = stored.newest()["train/loss"]
    assert (newest["low"], newest["low_step"], newest["high"], newest["count"]) == (1.0, 1, 12.0, 12)
    assert [attempt["from_step"] for attempt in stored.attempts] == [0, 4]
    assert [session["state"] for session in stored.sessions] == ["failed", "finished"]


class BackOnce(Callback):
    """Goes back once, in the middle of an epoch, to a point inside it."""

    def __init__(self, inside):
        self.inside, self.gone = inside, False

    def on_train_batch_end(self, run):
        if (run.epoch, run.batch) == (1, 3) and self.inside and not self.gone:
            run.request_save("a point inside the epoch")
        if (run.epoch, run.batch, self.gone) == (1, 5, False):
            self.gone = True
            run.roll_back("once")


def test_batches_that_share_the_step_of_a_save_are_neither_doubled_nor_lost(tmp_path):
    def accumulate(*, resume, dies):
        net = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with Loop(model=net, optimizer=optimizer, dir=tmp_path, name="a", resume=resume) as run:
            for epoch in run.epochs(2):
                for _ in run.batches(range(12)):
                    net(torch.ones(1, 1)).sum().backward()
                    if run.batch % 4 == 3:
                        optimizer.step()
                    run.log({"loss": float(12 * epoch + run.batch)})
                    if dies and (epoch, run.batch) == (1, 3):
                        run.save("to go on from here")
                    if dies and (epoch, run.batch) == (1, 6):
                        raise RuntimeError("here it dies")

    with pytest.raises(RuntimeError, match="here it dies"):
        accumulate(resume=False, dies=True)
    accumulate(resume=True, dies=False)
    stored = epochal.runs.open(tmp_path)["a"]
    assert stored.attempts[-1]["from_step"] == 4
    assert stored.metric("loss").value.tolist() == [float(value) for value in range(24)]
    assert (stored.newest()["loss"]["count"], len(stored.ranges("loss"))) == (24, 24)


@pytest.mark.parametrize("inside", [False, True])
def test_a_rollback_begins_another_attempt_also_inside_an_epoch(inside, tmp_path):
    saving = Checkpoint(Every(epochs=1), keep_last=4, keep_best=0)
    train(tmp_path, batches=8, callbacks=[saving, BackOnce(inside)])
    stored = epochal.runs.open(tmp_path)["a"]
    assert [attempt["from_step"] for attempt in stored.attempts] == [0, 12 if inside else 8]
    assert stored.metric("train/loss").step.tolist() == list(range(1, 17))
    assert stored.metric("train/loss", attempt=1).step.tolist() == list(range(1, 15))
    assert stored.newest()["train/loss"]["count"] == 16


FORKS = """
import os, sys, time
from tests.runs.light import light_run, train

def body(run):
    if run.step != 4:
        return
    while run.recorder.writer.file.connection is None:
        time.sleep(0.01)
    if os.fork() == 0:
        for _ in range(1000):
            run.log({"of the child": 1.0})
        return  # and ends its own copy of the training, with the interpreter
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0

train(light_run(sys.argv[1]), 8, body=body)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_nothing_of_a_forked_process_comes_into_the_file_and_it_ends(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], check=True, timeout=60, env=environment)
    stored = epochal.runs.open(tmp_path)["a"]
    assert "of the child" not in stored.metrics()
    assert (stored.state, len(stored.sessions)) == ("finished", 1)
    assert list(stored.points("loss").steps) == list(range(1, 9))


def in_child(run, place):
    run.log({"of the child": 1.0})


def test_loader_processes_and_copies_leave_the_file_alone(tmp_path):
    def body(run, epoch, batch):
        if run.step == 4:
            context = multiprocessing.get_context("fork")
            process = context.Process(target=in_child, args=(run, tmp_path))
            process.start()
            process.join(20)
            assert process.exitcode == 0
            copied = copy.copy(run.recorder)
            assert copied.writer is None

    train(tmp_path, body=body)
    assert "of the child" not in epochal.runs.open(tmp_path)["a"].metrics()


def test_an_attached_trainer_is_pickled_with_a_recorder_of_its_own():
    from epochal.core.run import Run
    from epochal.integrations.portable import pack, unpack
    from epochal.runs.recorder import LABEL, Recorder

    run = Run(host="A", provides=frozenset())
    Recorder(run, control=False)
    again = unpack(pickle.loads(pickle.dumps(pack(run))))
    assert again.recorder is not run.recorder
    assert (again.recorder.run, again.recorder.control) == (again, False)
    assert [one.label for one in again.engine.slot("on_train_start").wanted] == [LABEL]
    assert unpack(pack(Run(host="A", provides=frozenset()))).recorder is None


def test_images_texts_and_histograms_are_kept_as_they_were_when_logged(tmp_path):
    weights = torch.arange(8.0)
    weights[7] = math.inf
    image = np.zeros((2, 3, 3), dtype=np.uint8)

    def body(run, epoch, batch):
        if run.step == 1:
            mask = np.array([[True, False], [True, True]])
            boxes = [
                {"box": (0, 0, 2, 1), "label": "seven", "score": 0.5, "mask": mask},
                {"box": (1, 1, 2, 2), "true": True},
            ]
            run.log_image("digit", image, boxes=boxes)
            run.log_histogram("weights", weights, bins=7)
            run.log_text("sample", "once upon a time")
            image[:] = 255
            weights.zero_()

    train(tmp_path, body=body)
    stored = epochal.runs.open(tmp_path)["a"]
    (shown,) = stored.media("image")
    assert (shown["about"]["width"], shown["about"]["height"], shown["step"]) == (3, 2, 1)
    assert shown["about"]["boxes"][0]["mask"] == {"size": [2, 2], "counts": [0, 1, 1, 2]}
    assert shown["about"]["boxes"][1] == {"box": [1, 1, 2, 2], "label": "", "score": None, "true": True}
    import io

    from PIL import Image

    assert np.asarray(Image.open(io.BytesIO(stored.data(shown["id"])))).max() == 0
    (counted,) = stored.media("histogram")
    import json

    counts, edges = np.histogram(np.arange(7.0), bins=7)
    assert json.loads(stored.data(counted["id"])) == {"edges": edges.tolist(), "counts": counts.tolist()}
    assert (counted["about"]["infinite"], counted["about"]["count"]) == (1, 8)
    (text,) = stored.media("text")
    assert stored.data(text["id"]) == b"once upon a time"


def test_what_cannot_be_an_image_is_told_and_the_training_goes_on(tmp_path, caplog):
    train(tmp_path, body=lambda run, *_: run.log_image("odd", np.zeros(3)) if run.step == 1 else None)
    stored = epochal.runs.open(tmp_path)["a"]
    assert (stored.state, stored.media()) == ("finished", [])
    assert "could not take the image" in caplog.text
    assert stored.table("losses")[0]["what"] == "image"
    run = simulate([], [{}]).run
    with pytest.raises(ArgumentError, match="boxes are mappings such as"):
        run.log_image("a", np.zeros((2, 2)), boxes=[{"label": "no corners"}])
    with pytest.raises(ArgumentError, match="bins must be"):
        run.log_histogram("a", [1.0], bins=0)


class Breaks(Callback):
    guarded = True

    def on_fit_epoch_end(self, run):
        raise ValueError("no")


def test_what_happened_is_written_down_with_its_step(tmp_path):
    def body(run, epoch, batch):
        if run.step == 3:
            run.scale_lr(0.5)
        if run.step == 6:
            run.save("a person wants it")
            run.stop("enough")

    train(tmp_path, body=body, callbacks=[Breaks()])
    found = [(row["kind"], row["step"], row["by"]) for row in epochal.runs.open(tmp_path)["a"].events()]
    assert ("failure", 4, "Breaks") in found
    assert ("rate", 3, "user") in found
    assert ("save", 6, "user") in found
    assert ("stop", 6, "user") in found


def test_a_spike_is_written_down(tmp_path):
    def body(run, epoch, batch):
        run.log({"loss": 1000.0 if run.step == 90 else 1.0 + run.step % 3 / 10})

    train(tmp_path, body=body, epochs=1, batches=100, callbacks=[LossSpike("loss", window=50)])
    assert [(row["kind"], row["by"]) for row in epochal.runs.open(tmp_path)["a"].events()] == [
        ("spike", "LossSpike(loss)")
    ]


def test_what_is_printed_is_kept_and_the_streams_are_as_before(tmp_path, capsys):
    before = sys.stdout.write, sys.stderr.write, dict(vars(sys.stdout))

    def body(run, epoch, batch):
        print("10%\r\x1b[31mstep", run.step, end="\n" if batch else "")
        if not batch:
            print(" is the first", file=sys.stdout)
        print("to stderr", file=sys.stderr)

    train(tmp_path, body=body, epochs=1)
    assert (sys.stdout.write, sys.stderr.write, dict(vars(sys.stdout))) == before
    lines = [row["text"] for row in epochal.runs.open(tmp_path)["a"].table("console")]
    shown = ["step 1 is the first", "step 2", "step 3", "step 4"]
    assert [line for line in lines if "step" in line] == [f"\x1b[31m{line}" for line in shown]
    assert lines.count("to stderr") == 4
    assert "\x1b[31mstep 2\n" in capsys.readouterr().out


def test_an_epoch_that_is_repeated_before_its_first_step_is_another_attempt(tmp_path):
    """As where memory runs out in the first batches of a training that accumulates: no step was done, but logged."""
    from epochal.core import lifetime
    from tests.runs.light import light_run

    run = light_run(tmp_path)
    engine = run.engine
    lifetime.begin(run)
    engine.train_start(1)
    for attempt in range(2):
        engine.epoch_start(0)
        for batch in range(3):
            engine.batch_start(batch)
            run.log({"loss": float(10 * attempt + batch)})
            if attempt:
                engine.stepped()
            engine.batch_end()
        if not attempt:
            engine.abort_epoch()
    engine.train_epoch_end()
    engine.epoch_end()
    engine.train_end()
    lifetime.finish(run, None)
    stored = epochal.runs.open(tmp_path)["a"]
    assert stored.metric("loss").value.tolist() == [10.0, 11.0, 12.0]
    assert stored.metric("loss", attempt=1).value.tolist() == [0.0, 1.0, 2.0]
    assert (stored.newest()["loss"]["low"], stored.newest()["loss"]["count"]) == (10.0, 3)


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no words for it")

    __repr__ = __str__


class Mute(Callback):
    guarded = True

    def __repr__(self):
        raise RuntimeError("no words for it")


def test_nothing_that_a_user_hands_over_ends_a_training_or_its_record(tmp_path, monkeypatch):
    round_and_round = {}
    round_and_round["self"] = round_and_round
    monkeypatch.setattr(sys, "orig_argv", ["python", "train-\udcff.py"])  # a file's name that is no UTF-8

    def body(run, epoch, batch):
        if run.step == 1:
            run.log_params({"odd": Unspeakable(), "keys": {(1, 2): 3}, "round": round_and_round, "half": "\ud800"})
            run.log({"\x00\u202e": 1.0})
        if run.step == 6:
            run.stop("half a character: \ud800")

    train(tmp_path, body=body, callbacks=[Mute()])
    stored = epochal.runs.open(tmp_path)["a"]
    assert stored.state == "stopped"
    assert "\\ud800" in stored.sessions[0]["stop_reason"]
    assert "RuntimeError" in stored.params["odd"]
    assert "(1, 2)" in str(stored.params["keys"])
    assert {"\x00\u202e"} <= set(stored.metrics())
    stored.add_note("\ud800")
    stored.tag("\ud800")
    assert stored.tags == ["\\ud800"]


def test_parameters_that_are_logged_again_and_again_take_no_memory(tmp_path):
    kept = []

    def body(run, epoch, batch):
        run.log_params({"step": run.step})
        kept.append(len(run.recorder.writer.book.kept))

    train(tmp_path, body=body, batches=50)
    assert max(kept) <= 3
    assert epochal.runs.open(tmp_path)["a"].params == {"step": 100}


def test_of_two_launches_that_begin_at_a_time_each_rank_joins_its_own(tmp_path, monkeypatch):
    from epochal.runs.folder import RunFolder
    from epochal.runs.recorder import of_rank_0
    from epochal.runs.store_file import NotYet

    def launched(port):
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", port)

    made = {}
    for port in ("1001", "1002"):
        launched(port)
        made[port] = RunFolder(tmp_path, "sweep").make()
        (made[port] / "run.db").write_text("")
    assert made["1001"] != made["1002"]
    for port in ("1001", "1002", "1001"):
        launched(port)
        assert of_rank_0(RunFolder(tmp_path, "sweep"), 0.0) == made[port]
    launched("1003")
    with pytest.raises(NotYet):
        of_rank_0(RunFolder(tmp_path, "sweep"), 0.0)
    monkeypatch.delenv("MASTER_PORT")
    (made["1002"] / "run.json").write_text('{"name": "sweep-2", "base": "sweep"}')  # without a launcher
    assert of_rank_0(RunFolder(tmp_path, "sweep"), 0.0) == made["1002"]


def test_what_is_logged_while_no_training_runs_is_said_once_and_in_one_it_is_not(tmp_path, caplog):
    with Loop(model=torch.nn.Linear(1, 1), dir=tmp_path, name="heard") as run:
        for _ in run.epochs(1):
            for _ in run.batches(range(2)):
                run.log({"train/loss": 1.0})
        run.log({"test/loss": 0.5})
        assert not caplog.records
    run.log({"test/late": 0.5})
    run.log_text("late", "too late")
    assert [one.getMessage().partition(":")[0] for one in caplog.records] == ["heard"]
    assert "test/loss" in epochal.runs.open(tmp_path)["heard"].metrics()
    assert "test/late" not in epochal.runs.open(tmp_path)["heard"].metrics()
