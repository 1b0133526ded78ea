"""What `make` says when it cannot work here."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.house import ROOT


def fake_python(folder: Path, version: str) -> Path:
    """A `python3` that says it is of another version and refuses the test for a supported one."""
    folder.mkdir()
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Python {version}"; exit 0; fi\nexit 1\n')
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0"])
def test_an_unsupported_python_is_refused_with_its_version_and_the_cure(tmp_path, version):
    python = fake_python(tmp_path / "bin", version)
    command = [ROOT / "tools" / "install", python, tmp_path / "venv", "dev"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert f"Python {version}" in done.stderr
    assert "make PYTHON=/path/to/python3.12" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_find_python_passes_over_an_old_python3(tmp_path):
    fake_python(tmp_path / "old", "3.9.6")
    path = f"{tmp_path / 'old'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "tools" / "find-python"], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout.strip() not in ("", "python3")


def test_find_python_prints_nothing_when_there_is_none(tmp_path):
    fake_python(tmp_path / "old", "3.9.6")
    for name in ("python", "python3.11", "python3.12", "python3.13"):
        (tmp_path / "old" / name).symlink_to("python3")
    done = subprocess.run(
        ["/bin/sh", ROOT / "tools" / "find-python"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(tmp_path / "old")},
    )
    assert done.stdout == ""
