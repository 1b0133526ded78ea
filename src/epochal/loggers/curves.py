"""What a chart shows: from records to one value per name and step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from epochal.core.host import Record


class Points(NamedTuple):
    """Values at one step; ``time`` in seconds since 1970."""

    values: dict[str, float]
    step: int
    time: float


class Curves:
    """Turns records into points, all of them over ``run.step``, so that the charts line up.

    Batch values keep their name; their mean over an epoch is ``epoch/<name>``, at the epoch's last step. Everything
    else keeps its name and comes once. Each epoch's end also gives ``epoch``, its number from 0.

    >>> from epochal.core.metrics import At
    >>> batch = Record("metrics", {"train/loss": 4.0}, At(0, 0, 1), 0.0)
    >>> end = Record("epoch", {"train/loss": 3.0, "val/loss": 2.0, "seconds": 1.0}, At(0, None, 2), 0.0)
    >>> [points.values for points in Curves().points([batch, end])]
    [{'train/loss': 4.0}, {'epoch/train/loss': 3.0, 'val/loss': 2.0, 'epoch': 0.0}]
    """

    def __init__(self) -> None:
        self.in_batches: set[str] = set()
        self.shown: dict[str, int] = {}  # name -> step at which it was shown outside batches

    def state_dict(self) -> dict[str, Any]:
        """Return what another process needs to go on."""
        return {"in_batches": sorted(self.in_batches), "shown": dict(self.shown)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; nothing of it means from the beginning."""
        self.in_batches, self.shown = set(state.get("in_batches", ())), dict(state.get("shown", {}))

    def points(self, records: Sequence[Record]) -> Iterator[Points]:
        """Return the points of these records, in order; points of one step that follow each other are joined."""
        last: Points | None = None
        for record in records:
            values = self.values(record)
            if not values:
                continue
            step = record.at.step
            if last is not None and last.step == step and not last.values.keys() & values.keys():
                last.values.update(values)
                continue
            if last is not None:
                yield last
            last = Points(values, step, record.time)
        if last is not None:
            yield last

    def values(self, record: Record) -> dict[str, float]:
        """Return what one record shows."""
        if record.kind == "epoch":
            return self.epoch(record)
        if record.kind not in ("metrics", "final"):
            return {}
        if record.kind == "metrics" and record.at.batch is not None:
            self.in_batches.update(record.values)
        else:
            self.shown.update(dict.fromkeys(record.values, record.at.step))
        return dict(record.values)

    def epoch(self, record: Record) -> dict[str, float]:
        """Return what the end of an epoch adds to what is shown already."""
        values: dict[str, float] = {}
        for name, value in record.values.items():
            if name in self.in_batches:
                values[f"epoch/{name}"] = value
            elif name != "seconds" and self.shown.get(name) != record.at.step:
                values[name] = value
        values["epoch"] = float(record.at.epoch)
        return values
