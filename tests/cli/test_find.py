"""RUN on the command line means the run that its user thinks of, or is refused with what would do."""

import json
import os
from pathlib import Path

import pytest

from epochal.commands.find import run_folder
from epochal.core.errors import CheckpointError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(path, name=None, age=0):
    """Make a run's folder, begun so many seconds ago."""
    folder = Path("runs", path)
    folder.mkdir(parents=True)
    mark = folder / "run.json"
    mark.write_text(json.dumps({"name": name or folder.name}))
    os.utime(mark, (1e9 - age, 1e9 - age))
    return folder


def find(text):
    return run_folder(Path(text))


def test_a_name_that_several_runs_have_is_refused_with_their_folders():
    one, two = make("detect/train/epochal", "train", age=9), make("segment/train/epochal", "train")
    with pytest.raises(CheckpointError) as told:
        find("train")
    assert str(told.value) == f"there are 2 runs called train: {one}, {two}; tell its folder instead"
    assert find("runs/detect/train") == one
    assert find("latest") == two


def test_a_copy_of_a_run_is_not_mistaken_for_it():
    one = make("digits", age=9)
    make("digits-kept", "digits")
    assert find("digits") == one


def test_of_two_runs_in_one_yolo_folder_a_name_means_the_newer():
    make("detect/train/epochal", "train", age=9)
    newer = make("detect/train/epochal-2", "train")
    assert find("train") == newer


def test_a_folder_of_data_does_not_hide_a_run_of_its_name(tmp_path):
    one = make("digits")
    (tmp_path / "digits").mkdir()
    assert find("digits") == one


@pytest.mark.parametrize(("typed", "guess"), [("digit", "digits"), ("latst", "latest")])
def test_a_misspelt_run_is_told_the_nearest(typed, guess):
    make("digits")
    with pytest.raises(CheckpointError, match=f"there is no run {typed}: .*; did you mean {guess}?"):
        find(typed)
