"""The picture of a classification: the confusion matrix, and the images that were worst."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from epochal.callbacks.figure import INK, new_figure
from epochal.core.host import Prediction

WITH_COUNTS, WITH_NAMES = 24, 60  # classes up to which counts, and all names, can be read


class Confusion:
    """Counts of true and predicted classes, and the images whose true class was given the lowest score.

    >>> import numpy as np
    >>> confusion = Confusion(worst=0)
    >>> truth = Prediction(classes=[1], scores=None)
    >>> confusion.add([Prediction(classes=[0, 1], scores=[0.6, 0.4], truth=truth)], {0: "cat", 1: "dog"})
    >>> confusion.counts.tolist()
    [[0, 0], [1, 0]]
    """

    name = "confusion_matrix"

    def __init__(self, worst: int) -> None:
        import numpy as np

        self.counts: Any = np.zeros((0, 0), dtype=np.int64)  # rows: true, columns: predicted
        self.worst = worst
        self.heap: list[tuple[float, int, Prediction]] = []  # the lowest score of the truth is the greatest here
        self.seen = 0
        self.names: Mapping[int, str] = {}

    def add(self, images: Sequence[Prediction], names: Mapping[int, str]) -> None:
        """Count, and keep the worst."""
        import numpy as np

        self.names = names
        known = [one for one in images if one.truth is not None]
        pairs = [(int(one.truth.classes[0]), int(one.classes[0])) for one in known if one.truth is not None]
        self.grow(max([len(known[0].classes) if known else 0, *names, *(max(pair) + 1 for pair in pairs)], default=0))
        np.add.at(self.counts, tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T), 1)
        for one, (true, predicted) in zip(known, pairs, strict=True):
            self.seen += 1
            if self.worst and true != predicted and one.image is not None:
                given = dict(zip((int(number) for number in one.classes), one.scores, strict=True)).get(true, 0.0)
                push = heapq.heappush if len(self.heap) < self.worst else heapq.heappushpop
                push(self.heap, (-float(given), -self.seen, one))

    def grow(self, size: int) -> None:
        """Make room for so many classes."""
        import numpy as np

        more = size - len(self.counts)
        if more > 0:
            self.counts = np.pad(self.counts, ((0, more), (0, more)))

    def draw(self, title: str) -> Any:
        """Return the picture, (height, width, 3) of uint8; None without any count."""
        from epochal.callbacks.figure import drawn

        size = len(self.counts)
        if not self.counts.sum():
            return None
        side = min(max(3.2 + 0.36 * size, 4.6), 12.0)
        rows = -(-len(self.heap) // 4)
        below = 1.9 * rows * side / 6 if rows else 0.0
        figure = new_figure(side * 1.12, side + below)
        parts = figure.subfigures(2, 1, height_ratios=(side, below)) if rows else [figure]
        right = self.counts.trace() / self.counts.sum()
        self.draw_matrix(parts[0].add_subplot(), f"{title}: accuracy {right:.3f}, {self.counts.sum()} images")
        if rows:
            self.draw_worst(parts[1], rows)
        return drawn(figure)

    def draw_matrix(self, axes: Any, title: str) -> None:
        """Draw counts, coloured by their share of the true class."""
        import numpy as np

        size = len(self.counts)
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
        bar.set_label("share of the true class", color=INK)
        ticks = range(0, size, 1 if size <= WITH_NAMES else -(-size // 20))
        labels = [self.label(tick) for tick in ticks]
        long = max(map(len, labels), default=0) > 3
        axes.set_xticks(ticks, labels, rotation=90 if long and size > 4 else 0, fontsize=8)
        axes.set_yticks(ticks, labels, fontsize=8)
        axes.set_xlabel("predicted", color=INK)
        axes.set_ylabel("true", color=INK)
        axes.set_title(title, color=INK, fontsize=10)
        if size <= WITH_COUNTS:
            for row, column in zip(*np.nonzero(self.counts), strict=True):
                ink = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, self.counts[row, column], ha="center", va="center", color=ink, fontsize=8)

    def draw_worst(self, figure: Any, rows: int) -> None:
        """Draw the worst images, the worst first."""
        figure.suptitle("lowest score of the true class", color=INK, fontsize=10)
        for place, (given, _, one) in enumerate(sorted(self.heap, key=lambda item: item[:2], reverse=True)):
            axes = figure.add_subplot(rows, 4, place + 1)
            axes.imshow(one.image)
            axes.set_axis_off()
            true, predicted = self.label(one.truth.classes[0]), self.label(one.classes[0])  # pyright: ignore[reportOptionalMemberAccess]
            text = f"{true} ({-given:.2f}), taken for\n{predicted} ({float(one.scores[0]):.2f})"
            axes.set_title(text, color=INK, fontsize=8)

    def label(self, number: Any) -> str:
        """Return a class's name, or its number."""
        return self.names.get(int(number), str(int(number)))
