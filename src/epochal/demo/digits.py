"""Scikit-learn's handwritten digits on canvases, as a YOLO data set for detection and for segmentation."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from epochal.core.errors import ArgumentError, MissingExtra

MARKER = "digits.json"  # stands in a folder that this module made, and says with which parameters


@dataclass(frozen=True)
class DigitsSpec:
    """What the data set is made of; sizes are in pixels.

    >>> DigitsSpec(train=8).val
    48
    """

    train: int = 256
    val: int = 48
    size: int = 128
    classes: int = 10
    seed: int = 0
    digits_per_image: tuple[int, int] = (2, 5)
    digit_size: tuple[int, int] = (28, 56)
    noise: float = 12.0

    def __post_init__(self) -> None:
        if self.train < 1 or self.val < 1:
            raise ArgumentError(f"train={self.train} and val={self.val}: both need at least one image")
        if not 1 <= self.classes <= 10:
            raise ArgumentError(f"classes={self.classes}: there are the digits 0 to 9, so 1 to 10 classes")
        if self.size <= self.digit_size[1]:
            raise ArgumentError(
                f"size={self.size}: a canvas must be larger than the largest digit, {self.digit_size[1]}"
            )


class Square(NamedTuple):
    """Where a digit lies on its canvas: left, top and edge, in pixels."""

    x: int
    y: int
    edge: int

    def overlaps(self, other: "Square") -> bool:
        """Tell whether the two share a pixel.

        >>> Square(0, 0, 10).overlaps(Square(9, 9, 10)), Square(0, 0, 10).overlaps(Square(10, 0, 10))
        (True, False)
        """
        apart_in_x = self.x + self.edge <= other.x or other.x + other.edge <= self.x
        apart_in_y = self.y + self.edge <= other.y or other.y + other.edge <= self.y
        return not (apart_in_x or apart_in_y)


class Scans(NamedTuple):
    """Scanned digits: grey values (n, 8, 8) in [0, 1] and their labels (n,)."""

    images: Any
    labels: Any


def write_digits(
    folder: str | Path,
    *,
    train: int = 256,
    val: int = 48,
    size: int = 128,
    classes: int = 10,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set and return its YAML file; a folder that has it already is used as it is.

    Each image is a noisy canvas with two to five real handwritten digits (UCI, 1797 scans, part of scikit-learn).
    The labels are polygons, which YOLO takes for segmentation and turns into boxes for detection. Training and
    validation images use different scans. The same arguments give the same files, byte for byte.

    Args:
        folder: made if it is not there; rebuilt when it holds the data set of other arguments.
        train: number of training images.
        val: number of validation images.
        size: width and height of each image, in pixels.
        classes: how many digits, from 0 upwards, are in the data set.
        seed: another one gives other canvases.
        on_image: called after each image with the number of images done and the number of all.

    Raises:
        ArgumentError: for sizes that cannot work, and for a folder with files that are not ours.
        MissingExtra: when scikit-learn or OpenCV is not installed.
    """
    spec = DigitsSpec(train=train, val=val, size=size, classes=classes, seed=seed)
    folder = Path(folder).resolve()
    if not _is_complete(folder, spec):
        _make_room(folder)
        building = folder.with_name(f"{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        _build(building, spec, on_image)
        building.replace(folder)
    return folder / "digits.yaml"


def _is_complete(folder: Path, spec: DigitsSpec) -> bool:
    try:
        return json.loads((folder / MARKER).read_text()) == _as_json(spec)
    except (OSError, ValueError):
        return False


def _as_json(spec: DigitsSpec) -> dict[str, object]:
    return json.loads(json.dumps(asdict(spec)))


def _make_room(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise ArgumentError(f"{folder} holds files that are not a digits data set; name a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)


def _build(folder: Path, spec: DigitsSpec, on_image: Callable[[int, int], None] | None) -> None:
    done = 0
    for split, count in (("train", spec.train), ("val", spec.val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, (canvas, lines) in enumerate(_pages(split, count, spec)):
            _write_image(images / f"{number:04d}.png", canvas)
            (labels / f"{number:04d}.txt").write_text("".join(f"{line}\n" for line in lines))
            done += 1
            if on_image is not None:
                on_image(done, spec.train + spec.val)
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(spec.classes))
    # Without `path` Ultralytics looks beside the YAML file, so the folder can be moved.
    (folder / "digits.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    (folder / MARKER).write_text(json.dumps(_as_json(spec)))


def _pages(split: str, count: int, spec: DigitsSpec) -> Iterator[tuple[Any, list[str]]]:
    """Yield each image (size, size) as grey values 0 to 255, with its label lines."""
    import numpy as np

    scans = _scans(split, spec.classes)
    rng = np.random.default_rng([spec.seed, split == "val"])
    for _ in range(count):
        background = int(rng.integers(0, 90))
        canvas = background + rng.normal(0, spec.noise, (spec.size, spec.size)).astype(np.float32)
        lines = [_paste(canvas, place, scans, background, rng) for place in _places(spec, rng)]
        yield canvas.clip(0, 255).astype(np.uint8), lines


def _scans(split: str, classes: int) -> Scans:
    """Return the scans of one split: every fifth is kept for validation."""
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo", "the digits data set") from error
    digits: Any = load_digits()
    held_out = np.arange(len(digits.target)) % 5 == 0
    chosen = (held_out if split == "val" else ~held_out) & (digits.target < classes)
    return Scans(digits.images[chosen].astype(np.float32) / 16, digits.target[chosen])


def _places(spec: DigitsSpec, rng: Any) -> list[Square]:
    """Choose squares that do not overlap; one that finds no room in 30 tries is left out."""
    places: list[Square] = []
    for _ in range(int(rng.integers(spec.digits_per_image[0], spec.digits_per_image[1] + 1))):
        edge = int(rng.integers(spec.digit_size[0], spec.digit_size[1] + 1))
        for _ in range(30):
            x, y = (int(value) for value in rng.integers(0, spec.size - edge, 2))
            place = Square(x, y, edge)
            if not any(place.overlaps(other) for other in places):
                places.append(place)
                break
    return places


def _paste(canvas: Any, place: Square, scans: Scans, background: int, rng: Any) -> str:
    """Blend one random scan into its square and return its label line: class, then the polygon in [0, 1]."""
    cv2 = _cv2()
    index = int(rng.integers(len(scans.labels)))
    ink = cv2.resize(scans.images[index], (place.edge, place.edge), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    brightness = float(rng.integers(background + 110, 256))
    part = canvas[place.y : place.y + place.edge, place.x : place.x + place.edge]
    part[:] = part * (1 - ink) + brightness * ink
    polygon = (_outline(ink) + 0.5 + (place.x, place.y)) / canvas.shape[0]
    return f"{int(scans.labels[index])} " + " ".join(f"{value:.5f}" for value in polygon.reshape(-1))


def _outline(ink: Any) -> Any:
    """Return the largest outline of the inked pixels as points (n, 2) of x and y, in pixels."""
    import numpy as np

    cv2 = _cv2()
    outlines, _ = cv2.findContours((ink > 0.35).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.approxPolyDP(max(outlines, key=cv2.contourArea), 0.6, closed=True).reshape(-1, 2)


def _write_image(path: Path, canvas: Any) -> None:
    import numpy as np

    _cv2().imwrite(str(path), np.repeat(canvas[..., None], 3, axis=2))


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python", "demo", "the digits data set") from error
    return cv2
