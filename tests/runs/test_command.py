"""How a training was started is kept for resuming; where that is a secret, for its owner only."""

import json
import os
import sys

import pytest

from epochal.runs.command import holds_secret, read_recorded
from epochal.runs.folder import MARK, RunFolder

SECRET = ["python", "train.py", "--hf-token", "s3cr3t"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX file modes")
@pytest.mark.parametrize(("command", "mode"), [(SECRET, 0o600), (["python", "train.py", "--epochs", "3"], 0o644)])
def test_a_command_line_with_a_secret_is_its_owners_alone_and_stays_so(tmp_path, monkeypatch, command, mode):
    monkeypatch.setattr(sys, "orig_argv", command)
    monkeypatch.setattr(sys, "argv", command[1:])
    before = os.umask(0o022)
    try:
        folder = RunFolder(tmp_path, "a")
        mark = folder.make() / MARK
        assert mark.stat().st_mode & 0o777 == mode
        folder.leave()  # writes it anew
        assert mark.stat().st_mode & 0o777 == mode
        RunFolder(tmp_path, "a", fresh=False).make()
        assert mark.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    assert read_recorded(mark).command == tuple(command[1:]), "resuming needs all of it"
    assert json.loads(mark.read_text())["name"] == "a"


@pytest.mark.parametrize(
    "words",
    [
        ["--api_key=x"], ["--password", "x"], ["HF_TOKEN=x"], ["http://me:x@host"], ["https://host/?a=1&token=x"],
        ["--headers", '{"Authorization": "Bearer x"}'], ["--config", '{"wandb_api_key": "x"}'], ["--client-secret-value=x"],
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_names(words):
    assert holds_secret(["train.py", *words])


@pytest.mark.parametrize(
    "words",
    [["--tokenizer", "bert"], ["--num-tokens", "512"], ["--key-dim=64"], ["--keypoints", "17"], ["--author", "x"]],
)
def test_what_only_begins_like_a_secret_is_none(words):
    assert not holds_secret(["train.py", *words])


def test_no_command_holds_no_secret():
    assert not holds_secret(None)
