"""What holds for every test, doctest and example of the documentation: its own folder, no network, two threads."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from epochal.demo.offline import ultralytics_offline
from tests.triton_first import install

install()

# A verdict on a change must not hang on luck; on a developer's machine the search goes on with new examples.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("EPOCHAL_RESUME", None)
_STATE = tempfile.mkdtemp(prefix="epochal-state-")  # where the live page keeps its key
os.environ["XDG_STATE_HOME"] = _STATE
atexit.register(shutil.rmtree, _STATE, ignore_errors=True)

# Ultralytics reads its settings when it is imported, which any test module may do first.
_ULTRALYTICS = Path(tempfile.mkdtemp(prefix="epochal-ultralytics-"))
ultralytics_offline(_ULTRALYTICS, datasets_dir=str(_ULTRALYTICS / "datasets"))
atexit.register(shutil.rmtree, _ULTRALYTICS, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test work in an empty folder of its own; a document has one for all of its examples."""
    if not isinstance(request.node, SybilItem):
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))


def _enter(namespace: dict[str, Any]) -> None:
    namespace["_folder"] = tempfile.TemporaryDirectory(prefix="epochal-docs-")
    namespace["_before"] = Path.cwd()
    os.chdir(namespace["_folder"].name)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/callbacks/*.md", "docs/migrate/*.md"],
    setup=_enter,
    teardown=_leave,
).pytest()
