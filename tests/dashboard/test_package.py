"""What is published holds the page: a wheel made of the sdist, on a machine that reaches no npm."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.dashboard.browser import STATIC
from tools.house import ROOT

PAGE = {"index.html", "app.js", "app.css", "uplot.css", "favicon.svg", "LICENSES.txt"}


def build(target: str, source: Path, into: Path) -> Path:
    """Build a distribution, and return its file."""
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "EPOCHAL_PAGE": "required"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)], cwd=source, check=True, timeout=120,
        env={**os.environ, **nowhere}, capture_output=True,
    )  # fmt: skip
    [made] = into.iterdir()
    return made


@pytest.mark.slow
def test_a_wheel_of_the_sdist_has_the_page_and_not_its_sources(tmp_path):
    pytest.importorskip("hatchling")
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built (python hatch_build.py)")
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert (source / "src" / "epochal" / "dashboard" / "page" / "src" / "main.ts").is_file()
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as wheel:
        names = wheel.namelist()
        script = wheel.read("epochal/dashboard/static/app.js")
    found = {name.rpartition("/")[2] for name in names if name.startswith("epochal/dashboard/static/")}
    assert found - {".built"} == PAGE
    assert script == (STATIC / "app.js").read_bytes()
    assert not [name for name in names if "/page/" in name or name.endswith(".ts")]
