"""Ultralytics offline: its own configuration folder, no integrations, a font, and nothing of the user's touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from epochal.core.errors import AttachError
from epochal.demo.offline import ultralytics_offline

pytest.importorskip("ultralytics")

SCRIPT = """
import socket
def refuse(*a, **k): raise AssertionError("asked the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from epochal.demo.offline import ultralytics_offline
ultralytics_offline("config", datasets_dir="here")
from ultralytics.utils import ONLINE, SETTINGS, USER_CONFIG_DIR
from ultralytics.utils.checks import check_font
import json
print(json.dumps([ONLINE, dict(SETTINGS), str(USER_CONFIG_DIR), str(check_font("Arial.ttf"))]))
"""


def test_a_fresh_process_asks_nobody_and_writes_only_into_its_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, "Ultralytics has more to say about its settings"
    online, settings, config, font = json.loads(done.stdout)
    assert online is False
    assert settings["datasets_dir"] == "here"
    assert not any(settings[name] for name in ("sync", "mlflow", "tensorboard", "wandb"))
    assert Path(config) == tmp_path / "config" / "Ultralytics"
    assert Path(font).is_relative_to(tmp_path)
    assert not (home / ".config" / "Ultralytics").exists()


def test_too_late_is_an_error_that_says_so(offline_ultralytics, tmp_path):
    with pytest.raises(AttachError, match=r"already imported.* before that"):
        ultralytics_offline(tmp_path / "another")
