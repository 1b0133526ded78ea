"""Which checkpoint of the current epoch a training can go back to: readable, without NaN, older than the trouble."""

from collections.abc import Iterable, Mapping
from math import inf, isnan
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from epochal.core.errors import CheckpointError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.checkpointing.view import Saved, Store

LEARNT = ("model", "live", "ema", "optimizer")  # the parts in which a NaN is damage


class Point(NamedTuple):
    """A resume point in an epoch, and how many of its batches were done: all, infinitely many, after the last."""

    done: float
    saved: "Saved"


def sound_point(store: "Store", epoch: int, before: int | None) -> "Saved | None":
    """Return the newest sound point in an epoch that holds none of its batches from ``before`` on.

    Where there is none, the oldest of the epoch, if it is sound. What was saved after it is set aside, so that no
    resume takes it.
    """
    points = points_in(store, epoch)
    limit = inf if before is None else before
    older = [point for point in points if point.done <= limit]
    for point in [*reversed(older), *points[len(older) : len(older) + 1]]:
        if is_sound(point.saved):
            store.go_on_from(point.saved.manifest.name)
            return point.saved
    return None


def points_in(store: "Store", epoch: int) -> "list[Point]":
    """Return the resume points inside an epoch and at its start, by the batches that were done."""
    points: list[Point] = []
    for saved in store.checkpoints:
        manifest = saved.manifest
        if not manifest.resume_point or manifest.epoch not in (epoch - 1, epoch):
            continue
        try:
            goes_on = saved.load("run")["next_epoch"]
        except CheckpointError as error:
            log().error("checkpoint %s cannot be read: %s", manifest.name, error)
            continue
        if goes_on == epoch:
            at_start = manifest.epoch < epoch
            inside = inf if manifest.batch is None else manifest.batch + 1
            points.append(Point(0 if at_start else inside, saved))
    return sorted(points, key=lambda point: point.done)


def is_sound(saved: "Saved") -> bool:
    """Say whether a checkpoint can be read back and what was learnt has no NaN in it."""
    try:
        verdict = getattr(saved, "verify", lambda: None)()
        if verdict is not None and not verdict.ok:
            raise CheckpointError(str(verdict))
        ill = [part for part in LEARNT if part in saved.parts and has_nan(saved.load(part))]
    except CheckpointError as error:
        log().error("checkpoint %s cannot be read: %s", saved.manifest.name, error)
        return False
    if ill:
        log().warning("checkpoint %s has NaN in its %s; an older one is taken.", saved.manifest.name, ", ".join(ill))
    return not ill


def has_nan(tree: Any) -> bool:
    """Say whether a tensor, an array or a number somewhere in a state tree is NaN; infinities may be meant.

    >>> has_nan({"weight": [1.0, float("inf")]}), has_nan([{"weight": (0.0, float("nan"))}])
    (False, True)
    """
    if isinstance(tree, Mapping):
        return has_nan(list(cast("Mapping[Any, Any]", tree).values()))
    if isinstance(tree, (list, tuple)):
        return any(has_nan(one) for one in cast("Iterable[Any]", tree))
    if isinstance(tree, float):
        return isnan(tree)
    return hasattr(tree, "dtype") and bool((tree != tree).any())  # NaN alone differs from itself
