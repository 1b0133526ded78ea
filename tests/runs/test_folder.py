"""The folder of a run: its name, when it is made, what marks it; and from where a run goes on."""

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading

import pytest

from epochal import Checkpoint, Loop
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import ArgumentError, CheckpointError
from epochal.runs.folder import MARK, RunFolder, default_name, runs_named
from epochal.runs.resume import find_resume_point


def test_a_name_that_is_taken_gets_a_number_and_an_empty_folder_is_not_taken(tmp_path):
    assert RunFolder(tmp_path, "a").make() == tmp_path / "a"
    assert RunFolder(tmp_path, "a").make() == tmp_path / "a-2"
    assert RunFolder(tmp_path, "a").make() == tmp_path / "a-3"
    (tmp_path / "b").mkdir()
    assert RunFolder(tmp_path, "b").path == tmp_path / "b"
    (tmp_path / "c").write_text("a file")
    assert RunFolder(tmp_path, "c").path == tmp_path / "c-2"


def test_nothing_is_made_before_the_first_file(tmp_path):
    folder = RunFolder(tmp_path / "runs", "a")
    assert list(tmp_path.iterdir()) == []
    folder.make()
    folder.make()
    mark = json.loads((tmp_path / "runs" / "a" / MARK).read_text())
    assert (mark["name"], mark["base"], mark["pid"]) == ("a", "a", os.getpid())
    assert (mark["command"], mark["directory"]) == (sys.orig_argv[1:], os.getcwd())
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == [MARK]


def test_a_folder_that_somebody_cleared_away_is_made_and_marked_again(tmp_path):
    folder = RunFolder(tmp_path, "a")
    shutil.rmtree(folder.make())
    assert (folder.make() / MARK).exists()


def test_the_folder_stays_where_it_was_when_the_script_changes_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(name="a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder.make() == tmp_path / "runs" / "a"
    assert json.loads((folder.path / MARK).read_text())["directory"] == str(tmp_path)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["train.py"], "train"), (["/a/b/my.train.py", "--x"], "my.train"), (["/a/tool/__main__.py"], "tool"),
        ([""], "python"), (["-c"], "python"), (["-m"], "python"), ([], "python"),
    ],
)  # fmt: skip
def test_a_run_nobody_named_has_the_scripts_stem(monkeypatch, argv, name):
    monkeypatch.setattr(sys, "argv", argv)
    assert default_name() == name


def test_in_a_notebook_it_is_called_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert default_name() == "notebook"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/"])
def test_a_name_is_one_folders_name(tmp_path, name):
    with pytest.raises(ArgumentError, match="must be one folder's name, without a path; the path goes into dir="):
        RunFolder(tmp_path, name)


def test_a_folder_that_cannot_be_made_says_which_why_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"run's folder .*file/a cannot be written: .*; choose another with dir="):
        RunFolder(tmp_path / "file", "a").make()


def test_runs_of_a_name_are_those_that_were_given_it_oldest_first_and_damaged_marks_are_passed_over(tmp_path):
    made = [RunFolder(tmp_path, name).make() for name in ("a", "b", "a", "a")]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / MARK).write_text("{")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / MARK).write_text("[]")
    assert runs_named(tmp_path, "a") == [made[0], made[2], made[3]]
    assert runs_named(tmp_path, "a-2") == [made[2]]
    assert runs_named(tmp_path / "none", "a") == []


class Model:
    """A model that is one number."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def train(path, epochs, name="a", resume=False, value=0):
    loop = Loop(model=Model(value), callbacks=[Checkpoint()], dir=path, name=name, resume=resume)
    with loop as run:
        for _ in run.epochs(epochs):
            run.model.value += 1
    return run


def test_true_goes_on_from_the_newest_run_of_the_name(tmp_path):
    train(tmp_path, 1)
    train(tmp_path, 2, value=100)
    train(tmp_path, 5, name="other")
    run = train(tmp_path, 3, resume=True)
    assert run.dir == tmp_path / "a-2"
    assert run.model.value == 103
    assert len(run.history) == 3


def test_a_path_may_be_a_run_a_checkpoint_or_relative(tmp_path, monkeypatch):
    first = train(tmp_path / "runs", 2)
    monkeypatch.chdir(tmp_path)
    for path in (first.dir, "runs/a", first.checkpoints.last.path):
        assert find_resume_point(tmp_path, None, path).folder.path == first.dir
    assert train(tmp_path / "runs", 3, resume=first.dir).model.value == 3


def test_a_run_that_is_complete_has_no_epoch_left(tmp_path):
    train(tmp_path, 2)
    run = train(tmp_path, 2, resume=True)
    assert run.model.value == 2
    assert run.end_reason == "completed"


def test_the_environment_resumes_a_script_that_does_not_say_and_only_that(tmp_path, monkeypatch):
    first = train(tmp_path, 1)
    monkeypatch.setenv("EPOCHAL_RESUME", str(first.dir))
    assert train(tmp_path, 2).model.value == 2
    assert train(tmp_path, 2, name="b", resume=True).dir == tmp_path / "b"
    monkeypatch.setenv("EPOCHAL_RESUME", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="there is no run or checkpoint at"):
        train(tmp_path, 2)
    monkeypatch.setenv("EPOCHAL_RESUME", "")
    assert train(tmp_path, 2).dir == tmp_path / "a-2"


def test_a_run_that_died_before_its_first_checkpoint_begins_afresh_and_says_so(tmp_path, caplog):
    RunFolder(tmp_path, "a").make()
    with caplog.at_level(logging.WARNING, "epochal"):
        run = train(tmp_path, 1, resume=True)
    assert run.dir == tmp_path / "a-2"
    assert f"{tmp_path / 'a'} holds no checkpoint to go on from; the training starts afresh" in caplog.text


def test_a_script_is_found_again_by_its_stem(tmp_path):
    script = tmp_path / "my_train.py"
    script.write_text(
        "import sys\n"
        "from epochal import Checkpoint, Loop\n"
        "class Model:\n"
        "    def state_dict(self): return {}\n"
        "    def load_state_dict(self, state): pass\n"
        "with Loop(model=Model(), callbacks=[Checkpoint()], resume=True) as run:\n"
        "    for _ in run.epochs(int(sys.argv[1])): pass\n"
        "print(run.dir.name, len(run.history))\n"
    )
    for epochs in ("1", "3"):
        done = subprocess.run(
            [sys.executable, str(script), epochs], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.split() == ["my_train", epochs]


def claim_folder(parent, barrier, names):
    folder = RunFolder(parent, "sweep")
    barrier.wait()
    names.put(folder.make().name)


def test_processes_that_start_together_have_a_folder_each(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, names = context.Barrier(4), context.Queue()
    processes = [context.Process(target=claim_folder, args=(tmp_path, barrier, names)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {names.get() for _ in processes} == {"sweep", "sweep-2", "sweep-3", "sweep-4"}


def test_checkpoints_follow_a_run_whose_name_was_taken_at_the_last_moment(tmp_path):
    run = RunFolder(tmp_path, "sweep")
    store = CheckpointStore(run.path / "checkpoints")
    RunFolder(tmp_path, "sweep").make()
    store.place(run.make() / "checkpoints")
    saved = store.save({"run": {}}, epoch=0, step=1)
    assert saved.path.parent == tmp_path / "sweep-2" / "checkpoints"
    assert store.checkpoints.last.path == saved.path


def test_two_threads_make_one_folder(tmp_path):
    for number in range(20):
        folder, made = RunFolder(tmp_path, f"run{number}"), []
        gate = threading.Barrier(4)

        def make(folder=folder, made=made, gate=gate):
            gate.wait()
            made.append(folder.make())

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [tmp_path / f"run{number}"] * 4
    assert len(list(tmp_path.iterdir())) == 20
