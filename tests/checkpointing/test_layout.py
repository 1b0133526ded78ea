"""A manifest says the same after it was written and read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.checkpointing.layout import FileRecord, Manifest, NewerFormat
from epochal.core.errors import CheckpointError

manifests = st.builds(
    Manifest,
    name=st.text(),
    epoch=st.integers(0),
    step=st.integers(0),
    batch=st.none() | st.integers(0),
    serial=st.integers(0),
    reason=st.text(),
    asked_by=st.lists(st.text()).map(tuple),
    pinned=st.booleans(),
    resume_point=st.booleans(),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    fitness=st.none() | st.floats(allow_nan=False),
    created=st.text(),
    files=st.builds(lambda linked: {"state.json": FileRecord(3, "crc32:352441c2", linked)}, st.booleans()),
    versions=st.dictionaries(st.text(), st.text()),
    order=st.none() | st.text(),
)


@given(manifests)
def test_a_manifest_comes_back(one):
    assert Manifest.from_bytes(one.to_bytes()) == one


def test_numbers_that_json_lacks_survive_as_strings():
    one = Manifest(name="a", epoch=0, step=0, metrics={"x": float("nan"), "y": float("-inf")}, fitness=float("inf"))
    assert json.loads(one.to_bytes())["metrics"] == {"x": "nan", "y": "-inf"}
    back = Manifest.from_bytes(one.to_bytes())
    assert back.metrics["x"] != back.metrics["x"]
    assert (back.metrics["y"], back.fitness) == (float("-inf"), float("inf"))


def changed(**fields):
    return json.dumps({**json.loads(Manifest(name="a", epoch=0, step=0).to_bytes()), **fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"\xff\x00", b"[" * 100_000, changed(epoch="three"), changed(files={"../../x": {"size": 1, "checksum": ""}}),
        changed(files={"/etc/x": {"size": 1, "checksum": ""}}), changed(metrics=3), changed(files={"a": {}}),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_an_error_in_words(data):
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Manifest.from_bytes(data)


def test_a_newer_format_is_not_called_damaged():
    with pytest.raises(NewerFormat, match="format 3, this Epochal reads up to 2"):
        Manifest.from_bytes(changed(format=3))
