"""A YOLO training that was killed and goes on ends as if nothing had happened: bit for bit."""

import logging
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from epochal import Checkpoint, EarlyStopping, attach
from epochal.commands.find import run_folder
from epochal.core.errors import ArgumentError, CapabilityError, CheckpointError
from epochal.integrations.ultralytics_atomic import AtomicPath, stripping
from epochal.integrations.ultralytics_order import Order
from epochal.integrations.ultralytics_resume import run_at
from epochal.testing import RecordEvents, check_events


class Crash(Exception):
    """The end of a process, as far as a test can have it inside its own."""


def crash_at(run, epoch, batch):
    @run.on("on_train_batch_start")
    def crash(run):
        if (run.epoch, run.batch) == (epoch, batch):
            raise Crash


def watch_end(run, found):
    @run.on("on_train_end")
    def keep(run):
        copies = {
            "live": {k: v.clone() for k, v in run.trainer.model.state_dict().items()},
            "ema": {k: v.clone() for k, v in run.trainer.ema.ema.state_dict().items()},
        }
        found.update(copies, updates=run.trainer.ema.updates, optimizer=run.trainer.optimizer.state_dict())


def train(make, options, *, crash=None, resume=False, task="", callbacks=None):
    """Train, and return what there is at the end; ``crash``: the epoch and the batch that it does not outlive."""
    found, model = {}, make(task)
    policies = callbacks() if callbacks else [Checkpoint(), EarlyStopping("val/loss", patience=50)]
    run = attach(model, *policies, resume=resume)
    watch_end(run, found)
    if crash is not None:
        crash_at(run, *crash)
        with pytest.raises(Crash):
            model.train(**options)
        return run
    model.train(**options)
    found |= {
        "history": [dict(row) for row in run.history],
        "step": run.step,
        "best": run.best_fitness,
        "states": run.roster.states(),
        "best.pt": model.model.state_dict(),
        "results": [row.split(",")[2:] for row in (run.trainer.save_dir / "results.csv").read_text().splitlines()],
    }
    return found


def assert_same(one, other, path=""):
    import torch

    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{index}")
    else:
        assert one == other, f"{path}: {one} {other}"


def killed_and_whole(make, quick, crash, *, task="", spoil=None, **changes):
    """Train once without and once with a crash; return what both have at the end."""
    whole = train(make, quick(**changes, name="whole"), task=task)
    options = quick(**changes, name="killed")
    for number, moment in enumerate([crash] if isinstance(crash, tuple) else crash):
        run = train(make, options, crash=moment, task=task, resume=number > 0)
        if spoil is not None:
            spoil(run.trainer.save_dir)
    return train(make, options, resume=True, task=task), whole


def spoil(save_dir):
    """Leave Ultralytics' own files as a kill in the middle of writing leaves them."""
    (save_dir / "weights" / "last.pt").write_bytes(b"")
    with (save_dir / "results.csv").open("a") as results:
        results.write("9,1.5,0.")


LIVELY = {"epochs": 4, "mosaic": 1.0, "fliplr": 0.5, "warmup_epochs": 1}


@pytest.mark.slow  # tests/faults/test_kill_yolo.py does it with kill -9
def test_a_crash_leaves_no_trace(yolo, quick):
    """Accumulation over epochs' ends in the warm-up, a partial last batch, mosaics closed later; last.pt destroyed."""
    resumed, whole = killed_and_whole(
        yolo, quick, (1, 1), spoil=spoil, optimizer="AdamW", close_mosaic=1, batch=6, nbs=40, **{**LIVELY, "epochs": 3}
    )
    assert_same(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "task", "changes"),
    [
        ((1, 0), "", {"optimizer": "SGD", "lr0": 0.01}),
        ((2, 1), "", {"optimizer": "MuSGD", "nbs": 24, "close_mosaic": 2}),  # closed in the epoch that is resumed
        ((3, 1), "", {"optimizer": "AdamW", "close_mosaic": 3, "batch": 6, "cos_lr": True}),  # closed before
        ((2, 0), "", {"optimizer": "AdamW", "mixup": 0.5, "copy_paste": 0.3, "multi_scale": 0.5, "degrees": 20.0}),
        ([(1, 1), (2, 0), (3, 1)], "", {"optimizer": "MuSGD", "batch": 6, "nbs": 40, "close_mosaic": 1}),
        ((2, 1), "-seg", {"optimizer": "SGD", "close_mosaic": 1, "batch": 6}),
        ((2, 1), "-seg", {"optimizer": "AdamW", "close_mosaic": 2, "nbs": 24}),
        ((2, 0), "-seg", {"optimizer": "MuSGD", "nbs": 24, "rect": True}),
    ],
)
def test_a_crash_leaves_no_trace_however_it_trains(yolo, quick, crash, task, changes):
    resumed, whole = killed_and_whole(yolo, quick, crash, task=task, **{**LIVELY, **changes})
    assert_same(resumed, whole)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(yolo, quick):
    options = quick(**LIVELY, name="stopped")
    model = yolo()
    run = attach(model, Checkpoint(), EarlyStopping("val/loss", patience=50))
    run.add_callback("on_fit_epoch_end", lambda run: run.stop("lunch") if run.epoch == 1 else None)
    model.train(**options)
    assert run.end_reason == "stopped"
    assert_same(train(yolo, options, resume=True), train(yolo, quick(**LIVELY, name="whole")))


# -- a training that crashed in its second and last epoch: cheap to go on from ------------------------------------------


@pytest.fixture
def yolo(yolo):
    """What goes on is the whole YOLO26n, whose scale is a part of what is compared."""
    return partial(yolo, whole=True)


@pytest.fixture(scope="module")
def crashed(offline_ultralytics, tiny_digits, tmp_path_factory):
    """The arguments of a training that crashed; its folder is `project/t`."""
    from ultralytics import YOLO

    options = {
        "data": str(tiny_digits), "imgsz": 32, "batch": 8, "nbs": 8, "epochs": 2, "device": "cpu", "plots": False,
        "verbose": False, "optimizer": "SGD", "project": str(tmp_path_factory.mktemp("crashed")), "name": "t",
    }  # fmt: skip
    train(lambda task: YOLO("yolo26n.yaml"), options, crash=(1, 1))
    return options


@pytest.fixture
def options(crashed, tmp_path):
    """The same in a folder of the test's own: the run was moved there."""
    shutil.copytree(crashed["project"], tmp_path / "moved")
    return {**crashed, "project": str(tmp_path / "moved")}


def go_on(make, options, *, resume=True, task="", **attached):
    model = make(task)
    run = attach(model, Checkpoint(), EarlyStopping("val/loss", patience=50), resume=resume, **attached)
    record = RecordEvents()
    run.add(record)
    result = model.train(**options)
    return model, run, record, result


def test_it_goes_on_in_its_folder_and_ends_like_any_other(yolo, options, caplog):
    caplog.set_level(logging.INFO, logger="epochal")
    save_dir = Path(options["project"]) / "t"
    spoil(save_dir)
    model, run, record, _ = go_on(yolo, options)
    assert (run.trainer.save_dir, run.dir, run.name) == (save_dir, save_dir / "epochal", "t")
    assert (run.end_reason, len(run.history), [one.manifest.epoch for one in run.checkpoints]) == (
        "completed",
        2,
        [0, 1],
    )
    assert record.events[:4] == ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_resume", "on_train_start"]
    check_events(record.events)
    rows = (save_dir / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
    assert model.ckpt_path is None or Path(model.overrides["model"]) == save_dir / "weights" / "best.pt"
    assert type(run.trainer.last) is type(Path())
    assert model.train.seen == {run.dir}
    assert "not exact" not in caplog.text
    assert "resume: exact: weights" in caplog.text
    assert not list(save_dir.rglob(".tmp-epochal*"))
    model.predict(np.zeros((32, 32, 3), dtype=np.uint8), imgsz=32, verbose=False)

    again, second, record, result = go_on(yolo, options)  # and once more: nothing is left
    assert "nothing is left to train: all 2 epochs" in caplog.text
    assert (record.events, len(second.history)) == ([], 0)
    assert_same(again.model.state_dict(), model.model.state_dict())
    assert result["fitness"] is not None


@pytest.mark.parametrize("named", ["save_dir", "run", "checkpoint", "environment"])
def test_a_run_is_named_by_any_of_its_folders(yolo, options, named, monkeypatch, tmp_path):
    from epochal.integrations.ultralytics_resume import Resumption, plan

    save_dir = Path(options["project"]) / "t"
    paths = {"save_dir": save_dir, "run": save_dir / "epochal", "environment": save_dir}
    path = paths.get(named) or next((save_dir / "epochal" / "checkpoints").glob("epoch-0000*"))
    resume = path
    if named == "environment":
        monkeypatch.setenv("EPOCHAL_RESUME", str(path))
        resume = False
    found = plan(yolo(), resume, options, place=(None, None), seen=())
    assert isinstance(found, Resumption)
    assert (found.save_dir, found.point.saved.manifest.epoch) == (save_dir, 0)
    assert found.point.chosen is (named == "checkpoint")


def test_of_two_runs_in_one_folder_the_newer_goes_on(yolo, options):
    save_dir = Path(options["project"]) / "t"
    (save_dir / "epochal" / "ended.json").write_text('{"epochs": 2, "save_dir": "."}')
    train(yolo, {**options, "exist_ok": True}, crash=(1, 1))
    assert run_folder(save_dir) == run_at(save_dir, (None, None)) == save_dir / "epochal-2"
    _, run, record, _ = go_on(yolo, options)
    assert (run.dir, "on_resume" in record.events, len(run.history)) == (save_dir / "epochal-2", True, 2)


def test_the_newest_run_of_the_name_is_found(yolo, options, tmp_path, caplog):
    from epochal.integrations.ultralytics_resume import newest_run

    project = Path(options["project"])
    for name, created in (("t-2", "2031"), ("t-3", "2030"), ("t-old", "2040"), ("other", "2050")):
        (project / name / "epochal").mkdir(parents=True)
        (project / name / "epochal" / "run.json").write_text(f'{{"created": "{created}"}}')
    found = newest_run(yolo(), options, (None, None), ())
    assert found == project / "t-2" / "epochal"
    assert newest_run(yolo(), options, (None, None), {found}) == project / "t-3" / "epochal"
    assert newest_run(yolo(), {**options, "name": "none"}, (None, None), ()) is None
    assert "there is no run 'none'" in caplog.text


def test_arguments_that_changed_do_not_count_and_are_named(yolo, options, caplog):
    from epochal.integrations.ultralytics_resume import plan

    given = {**options, "lr0": 0.5, "epochs": 9, "batch": 2, "patience": 7, "workers": 3}
    del given["nbs"]
    kept = plan(yolo(), True, options, place=(None, None), seen=()).options(options)
    assert (kept["batch"], kept["imgsz"], "WARNING" in caplog.text) == (8, 32, False)
    found = plan(yolo(), True, given, place=(None, None), seen=()).options(given)
    assert (found["batch"], found["patience"], found["workers"]) == (8, 7, 3)
    assert "lr0" not in found
    assert "not these, which differ now: batch (it was 8), epochs (it was 2), lr0 (it was 0.01), nbs (it was 8)" in (
        caplog.text.replace("epochs (it was 2), batch (it was 8)", "batch (it was 8), epochs (it was 2)")
    )


def test_what_cannot_go_on_is_said_before_anything_is_changed(yolo, options, tmp_path):
    save_dir = Path(options["project"]) / "t"
    before = {path: path.stat().st_mtime_ns for path in save_dir.rglob("*")}
    with pytest.raises(CheckpointError, match=r"task: saved 'detect', this model 'segment'"):
        go_on(yolo, options, task="-seg")
    from ultralytics import YOLO

    with pytest.raises(CheckpointError, match=r"scale: saved 'n', this model 's'"):
        go_on(lambda _: YOLO("yolo26s.yaml"), options)
    with pytest.raises(CapabilityError, match="device='0,1'"):
        go_on(yolo, {**options, "device": "0,1"})
    with pytest.raises(ArgumentError, match="several data sets"):
        go_on(yolo, {**options, "data": [options["data"]] * 2})
    with pytest.raises(CheckpointError, match="there is no run or checkpoint"):
        attach(yolo(), resume=tmp_path / "no")
    assert before == {path: path.stat().st_mtime_ns for path in save_dir.rglob("*")}


@pytest.mark.slow
def test_without_a_run_of_the_name_it_starts_afresh_and_dir_and_name_of_attach_are_where_it_looks(
    yolo, quick, tmp_path, caplog
):
    options = quick(epochs=2)
    model = yolo()
    run = attach(model, Checkpoint(), resume=True, dir=tmp_path / "ours", name="mine")
    crash_at(run, 1, 1)
    with pytest.raises(Crash):
        model.train(**options)
    assert "there is no run 'mine'" in caplog.text
    _, run, _, _ = go_on(yolo, options, dir=tmp_path / "ours", name="mine")
    assert (run.dir, len(run.history)) == (tmp_path / "ours" / "mine", 2)
    assert run.trainer.save_dir == tmp_path / "native" / "t"


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_a_file_for_yolo(crashed, tmp_path):
    import torch
    from ultralytics import YOLO

    import epochal
    from epochal.integrations.ultralytics_file import write_ultralytics

    saved = epochal.checkpoint(Path(crashed["project"]) / "t" / "epochal", "last")
    before = torch.get_rng_state()
    write_ultralytics(saved, tmp_path / "mine.pt")
    assert torch.equal(torch.get_rng_state(), before)
    model = YOLO(tmp_path / "mine.pt")
    assert_same(dict(model.model.state_dict()), dict(saved.load("model")))
    assert (model.task, model.names[3], len(list(tmp_path.iterdir()))) == ("detect", "3", 1)


def test_a_checkpoint_of_another_trainer_becomes_no_file(tmp_path):
    import torch

    import epochal
    from epochal.integrations.ultralytics_file import write_ultralytics

    net = torch.nn.Linear(1, 1)
    with epochal.Loop(model=net, callbacks=[Checkpoint()], dir=tmp_path, name="run") as run:
        for _ in run.epochs(1):
            pass
    with pytest.raises(CheckpointError, match="no YOLO run's checkpoint"):
        write_ultralytics(epochal.checkpoint(run, "last"), tmp_path / "no.pt")
    assert not (tmp_path / "no.pt").exists()


def test_a_file_that_cannot_be_written_stays_as_it_was_and_training_goes_on(tmp_path, caplog):
    import resource

    path, limits = AtomicPath(tmp_path / "last.pt"), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert path.write_bytes(b"whole") == 5
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert path.write_bytes(b"x" * 100_000) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (b"whole", ["last.pt"])
    assert "It is as it was; the training goes on" in caplog.text


def strip_optimizer(f, s="", updates=None):
    """Stand where a trainer's module has Ultralytics' own, and die in the middle of writing."""
    Path(s or f).write_bytes(b"ha")
    raise KeyboardInterrupt


class Ending:
    """As much of a trainer as ends a training."""

    def __init__(self, last):
        self.last = last

    def final_eval(self):
        strip_optimizer(self.last)


def test_a_kill_while_last_pt_is_stripped_leaves_it_whole(tmp_path):
    path, own = tmp_path / "last.pt", strip_optimizer
    path.write_bytes(b"whole")
    with pytest.raises(KeyboardInterrupt):
        stripping(Ending(path).final_eval)()
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"whole", 1)
    assert strip_optimizer is own


def test_the_log_names_the_file_that_is_stripped_and_no_temporary_one(
    tmp_path, caplog, monkeypatch, offline_ultralytics
):
    import torch
    from ultralytics.utils import LOGGER
    from ultralytics.utils.torch_utils import strip_optimizer as strip

    path = tmp_path / "last.pt"
    torch.save({"model": torch.nn.Linear(1, 1), "train_args": {}}, path)
    monkeypatch.setattr(sys.modules[__name__], "strip_optimizer", strip)
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level("INFO", LOGGER.name):
        stripping(Ending(path).final_eval)()
    assert f"Optimizer stripped from {path}, 0.0MB" in caplog.text
    assert ".tmp-epochal" not in caplog.text
    assert LOGGER.filters == []


# -- the order of the data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "batch", "workers", "drawn"), [(8, 4, 0, 2), (7, 3, 0, 6), (6, 2, 2, 9), (7, 3, 2, 3)]
)
@pytest.mark.parametrize("skip", [(), (1,)])
def test_a_loader_goes_on_with_the_batches_that_would_have_come(images, batch, workers, drawn, skip):
    import torch
    from ultralytics.data.build import build_dataloader

    def fresh():
        torch.manual_seed(3)
        loader = build_dataloader(torch.arange(images), batch=batch, workers=workers, device="cpu")
        return loader, Order(loader)

    def epochs(loader, number):
        return [[one.tolist() for one in loader] for _ in range(number)]

    loader, order = fresh()
    assert loader.num_workers == workers
    before = epochs(loader, drawn)
    state = order.state()
    expected = epochs(loader, 3)
    loader.close()
    other, follower = fresh()
    torch.manual_seed(99)
    follower.set(state, afresh=False, left_out=skip)
    found = epochs(other, 3)
    other.close()
    if skip:
        assert (found[0][1], found[0][0]) == (found[0][0], expected[0][0])
        assert (found[0][2:], found[1:]) == (expected[0][2:], expected[1:])
    else:
        assert found == expected
    assert expected[0] not in before
    follower.remove()
    assert other.batch_sampler is not follower


@pytest.mark.slow
def test_with_workers_the_order_is_exact_and_what_is_not_is_said(yolo, quick, caplog):
    """On the CPU Ultralytics has no workers; a callback of its own gives it some."""
    seen, options = {}, quick(epochs=3, batch=4, mosaic=1.0)
    for name, crash, resume in (("whole", None, False), ("killed", (1, 2), False), ("killed", None, True)):
        model = yolo()
        model.add_callback("on_pretrain_routine_start", lambda trainer: setattr(trainer.args, "workers", 2))
        run = attach(model, Checkpoint(), resume=resume)
        files = seen.setdefault((name, resume), {})
        run.add_callback(
            "on_train_batch_start", lambda run, files=files: files.update({(run.epoch, run.batch): run.data["im_file"]})
        )
        if crash is None:
            model.train(**{**options, "name": name})
        else:
            crash_at(run, *crash)
            with pytest.raises(Crash):
                model.train(**{**options, "name": name})
    whole = seen["whole", False]
    assert len(whole) == 12
    assert seen["killed", True] == {at: files for at, files in whole.items() if at[0] > 0}
    assert "not exact: augmentation in 2 workers" in caplog.text


# -- going back inside a training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_going_back_leaves_no_trace_but_what_was_asked_for(yolo, quick):
    """Back from a batch, a validation and the epoch in which mosaics close: all is trained again as it was."""
    options = quick(optimizer="AdamW", close_mosaic=1, batch=6, nbs=15, **{**LIVELY, "epochs": 3})
    asked, record = [], RecordEvents()

    def policies():
        return [Checkpoint(), EarlyStopping("val/loss", patience=50), record]

    def back(run, *at):
        if at in ((1, 1), (1, None), (2, 0)) and at not in asked:
            asked.append(at)
            run.roll_back("a test")

    whole = train(yolo, {**options, "name": "whole"})
    found, model = {}, yolo()
    run = attach(model, *policies())
    run.add_callback("on_train_batch_end", lambda run: back(run, run.epoch, run.batch))
    run.add_callback("on_val_end", lambda run: back(run, run.epoch, None))
    watch_end(run, found)
    model.train(**options)
    assert len(asked) == 3
    assert record.events.count("on_train_epoch_abort") == 3
    check_events(record.events)
    results = [row.split(",")[2:] for row in (run.trainer.save_dir / "results.csv").read_text().splitlines()]
    assert_same([dict(row) for row in run.history], whole["history"])
    assert_same(results, whole["results"])
    assert_same(found, {name: whole[name] for name in found})


def test_going_back_without_a_bad_batch(yolo, quick):
    files, lr = {}, {}

    def note(run):
        files.setdefault((run.epoch, run.batch), []).append(run.data["im_file"])

    model = yolo()
    run = attach(model, Checkpoint())
    run.add_callback("on_train_batch_start", note)
    run.add_callback("optimizer_step", lambda run: lr.update({(run.epoch, run.batch): run.lr["pg0"]}))

    @run.on("on_train_batch_end")
    def back(run):
        if (run.epoch, run.batch) == (1, 1) and len(files[1, 1]) == 1:
            run.roll_back("a bad batch", lr_factor=0.5, skip=(1, 1))

    model.train(**quick(epochs=2, batch=4, nbs=4, lrf=1.0))
    first, second = files[1, 1]
    assert files[1, 0] == [second, second]
    assert {*first, *second, *files[1, 2][0], *files[1, 3][0]} == {name for at in range(4) for name in files[0, at][0]}
    assert lr[1, 3] == pytest.approx(lr[0, 3] / 2)
    assert (run.end_reason, len(run.history), run.step) == ("completed", 2, 8)
