"""A newer trainer than the tested one is told once, and the doctor tells every trainer."""

import logging
import subprocess
import sys

import pytest

from epochal import Loop
from epochal.core.errors import AttachError
from epochal.doctor import requirements, trainers
from epochal.integrations import untested
from epochal.integrations.attach import HOSTS, attach
from epochal.integrations.trainers import TRAINERS


@pytest.fixture
def told(monkeypatch, caplog):
    """What is said of torch, where the one tested was an old one."""
    monkeypatch.setattr(untested, "_looked", set())
    monkeypatch.setattr(untested, "TESTED", {"torch": "2.0.1"})
    caplog.set_level(logging.WARNING, "epochal")
    return caplog


def test_a_newer_version_is_told_once_with_both_versions(told):
    torch = pytest.importorskip("torch")
    for _ in range(2):
        with Loop(model=torch.nn.Linear(1, 1)):
            pass
    said = [one.getMessage() for one in told.records if "newer" in one.getMessage()]
    assert len(said) == 1
    assert torch.__version__.partition("+")[0] in said[0]
    assert "2.0.1" in said[0]
    assert "EPOCHAL_DEBUG=1" in said[0]


@pytest.mark.parametrize("version", ["99.0", None])
def test_an_older_version_or_one_never_tested_is_not_told(told, monkeypatch, version):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(untested, "TESTED", {"torch": version})
    with Loop(model=torch.nn.Linear(1, 1)):
        pass
    assert not [one for one in told.records if "newer" in one.getMessage()]


def test_a_trainer_that_cannot_be_attached_tells_nothing_of_versions(told):
    with pytest.raises(AttachError):
        attach(3)
    assert not told.records


def test_every_integration_that_attach_knows_has_its_trainer_in_the_table():
    assert {*HOSTS.values(), "pytorch"} <= set(TRAINERS)


def test_every_package_of_a_trainer_is_brought_by_its_extra():
    from importlib import metadata

    extras = requirements(metadata.requires("epochal") or [])
    for kind in TRAINERS.values():
        assert set(kind.packages) <= set(extras[kind.extra]), kind.title


def test_the_doctor_works_from_sources_that_are_not_installed(monkeypatch):
    from epochal import doctor

    monkeypatch.setattr(doctor, "installed_version", lambda package: None)
    monkeypatch.setattr(doctor.metadata, "requires", lambda package: 1 / 0)
    assert doctor.findings() == []
    assert doctor.machine()["Epochal"] == "not installed"


def test_the_doctor_tells_every_trainer_and_imports_none():
    script = (
        "import sys; sys.argv=['epochal', 'doctor']\nfrom epochal.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'keras', 'tensorflow', 'lightning', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, env={"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    for one in trainers():
        row = next(line for line in done.stdout.splitlines() if one.kind.title in line)
        assert (one.kind.use if one.usable else f"epochal[{one.kind.extra}]") in row
        assert (one.packages[0].installed or "-") in row
