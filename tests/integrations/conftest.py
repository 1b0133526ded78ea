"""What the tests of one trainer share."""

import pytest


@pytest.fixture(scope="module")
def transformers_preloaded(tmp_path_factory):
    """Transformers is imported, and its garbage is nobody's to look through."""
    from tests.trainers.transformers import preloaded

    with preloaded(tmp_path_factory.mktemp("first")):
        yield


@pytest.fixture
def traces_checked(monkeypatch):
    """Every trace is held against the grammar."""
    monkeypatch.setenv("EPOCHAL_DEBUG", "1")
