"""Somebody else's integration: what docs/integrations.md says is all that it needs."""

import pytest

from epochal import Checkpoint, EarlyStopping, attach
from epochal.core.errors import AttachError, CapabilityError
from epochal.testing import RecordEvents, check_events
from tests.contract import outside
from tests.trainers.fitter import Fitter
from tools.house import ROOT

PAGE = ROOT / "docs/integrations.md"


@pytest.fixture
def fitter():
    return Fitter(points=[(1.0, 2.0), (0.5, 1.2)], held_out=[(1.5, 3.0)])


@pytest.fixture(params=["", ":bind"])
def installed(request, tmp_path, monkeypatch):
    """A package that says which trainers it brings an integration for."""
    about = tmp_path / "fitters-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fitters\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[epochal.integrations]\ntests.trainers.fitter = tests.contract.outside{request.param}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def blocks():
    """Return the code of the page, block by block."""
    return [part.partition("```")[0] for part in PAGE.read_text().split("```python\n")[1:]]


def test_the_page_shows_the_code_that_is_tested_here():
    trainer, integration = blocks()[:2]
    assert trainer.strip() in (ROOT / "tests/trainers/fitter.py").read_text()
    tested = (ROOT / "tests/contract/outside.py").read_text().replace("  # noqa: A002", "")
    assert integration.strip() in tested


def test_an_integration_takes_less_than_a_hundred_lines_of_code():
    lines = (ROOT / "tests/contract/outside.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 100


def test_attach_finds_an_installed_integration(fitter, installed, tmp_path):
    record = RecordEvents()
    run = attach(
        fitter, EarlyStopping("val/loss", patience=2), Checkpoint(keep_last=2), record, dir=tmp_path, name="mine"
    )
    fitter.fit(2)
    check_events(record.events)
    assert (run.name, run.end_reason, len(run.checkpoints)) == ("mine", "completed", 2)
    assert attach(type("Own", (Fitter,), {})([(1.0, 2.0)], [])).host == "Fitter"


def test_without_it_attach_refuses(fitter):
    with pytest.raises(AttachError, match="Fitter cannot be attached"):
        attach(fitter)


def test_what_it_does_not_provide_is_refused_and_detach_leaves_nothing(fitter):
    before = dict(vars(fitter))

    class Demanding(RecordEvents):
        requires = frozenset({"gradients"})

    with pytest.raises(CapabilityError, match="requires gradients, which Fitter cannot deliver"):
        outside.bind(fitter, [Demanding()])
    assert vars(fitter) == before
    run = outside.bind(fitter, [])
    fitter.fit(1)
    run.detach()
    assert set(vars(fitter)) == {*before, "epoch"}
