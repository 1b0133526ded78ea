"""The digits data set: what it promises to YOLO and to whoever runs the demo twice."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.core.errors import ArgumentError
from epochal.demo.digits import Square, write_digits

cv2 = pytest.importorskip("cv2")


def fingerprint(folder: Path) -> str:
    """A hash over names and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def small(folder: Path, **changes: int) -> Path:
    return write_digits(folder, **{"train": 6, "val": 3, "size": 96, **changes})


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path):
    one, same, other = (small(tmp_path / name, seed=seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    assert fingerprint(one.parent) == fingerprint(same.parent)
    assert fingerprint(one.parent / "images") != fingerprint(other.parent / "images")


def test_a_complete_folder_is_used_as_it_is(tmp_path):
    yaml = small(tmp_path / "d")
    yaml.parent.joinpath("labels.cache").write_text("of Ultralytics")
    small(tmp_path / "d")
    assert yaml.parent.joinpath("labels.cache").exists()


def test_other_arguments_rebuild_the_folder(tmp_path):
    yaml = small(tmp_path / "d")
    assert len(list((yaml.parent / "images/train").iterdir())) == 6
    small(tmp_path / "d", train=4)
    assert len(list((yaml.parent / "images/train").iterdir())) == 4


def test_a_build_cut_off_in_the_middle_is_built_anew(tmp_path):
    def stop_at_third(done, of_all):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "d", train=6, val=3, size=96, on_image=stop_at_third)
    assert not (tmp_path / "d").exists()
    whole, fresh = small(tmp_path / "d"), small(tmp_path / "e")
    assert fingerprint(whole.parent) == fingerprint(fresh.parent)


def test_a_folder_with_other_files_is_never_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ArgumentError, match="name a new or empty folder"):
        small(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_labels_are_polygons_around_bright_ink(tmp_path):
    yaml = small(tmp_path / "d", train=12)
    seen = 0
    for label in (yaml.parent / "labels/train").iterdir():
        image = cv2.imread(str(yaml.parent / "images/train" / f"{label.stem}.png"), cv2.IMREAD_GRAYSCALE)
        for line in label.read_text().splitlines():
            digit, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2)
            assert digit in "0123456789"
            assert len(points) >= 3
            assert points.min() >= 0
            assert points.max() <= 1
            mask = cv2.fillPoly(np.zeros_like(image), [(points * 96).astype(np.int32)], 1).astype(bool)
            assert image[mask].mean() > np.median(image) + 30
            seen += 1
    assert 12 <= seen <= 60  # at most five in each of twelve; the first always finds room


def test_training_and_validation_share_no_scan():
    from epochal.demo.digits import _scans

    train, val = _scans("train", 10), _scans("val", 10)
    assert len(train.labels) + len(val.labels) == 1797
    assert len(val.labels) == 360


@pytest.mark.parametrize("changes", [{"train": 0}, {"val": 0}, {"classes": 11}, {"classes": 0}, {"size": 56}])
def test_sizes_that_cannot_work_are_refused_with_their_value(tmp_path, changes):
    name, value = next(iter(changes.items()))
    with pytest.raises(ArgumentError, match=f"{name}={value}"):
        small(tmp_path / "d", **changes)


squares = st.builds(Square, st.integers(0, 12), st.integers(0, 12), st.integers(1, 6))


@given(squares, squares)
def test_overlap_is_what_counting_pixels_says(one, other):
    def pixels(square):
        return {(square.x + i, square.y + j) for i in range(square.edge) for j in range(square.edge)}

    assert one.overlaps(other) == bool(pixels(one) & pixels(other))
