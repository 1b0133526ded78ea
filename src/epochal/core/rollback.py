"""Back to an earlier point inside a training: weights, data and callbacks as they were, a bad stretch left out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.requests import RollbackRequest

Stretch = tuple[int, int]  # the first and the last batch of it


class Rollbacks:
    """How often a run went back, for whom, and what it has left out since; going back does not undo it.

    >>> rollbacks = Rollbacks()
    >>> rollbacks.skip(epoch=2, stretch=(4, 5))
    >>> [batch for batch in range(8) if rollbacks.skips(2, batch)]
    [4, 5]
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}  # by who asked
        self.skipped: dict[int, list[Stretch]] = {}  # epoch -> batches that are not trained on
        self.factor = 1.0  # what all of them have made of the learning rates

    def __bool__(self) -> bool:
        return bool(self.counts)

    def count(self, by: str) -> None:
        """Note that the run went back once more."""
        self.counts[by] = self.counts.get(by, 0) + 1

    def skip(self, epoch: int, stretch: Stretch) -> None:
        """Leave out a stretch of an epoch's batches from now on."""
        stretches = self.skipped.setdefault(epoch, [])
        if stretch not in stretches:
            stretches.append(stretch)

    def skips(self, epoch: int, batch: int) -> bool:
        """Say whether a batch is left out: fetched, so that all others stay in their places, and not trained on."""
        return any(first <= batch <= last for first, last in self.skipped.get(epoch, ()))

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        skipped = {epoch: [list(stretch) for stretch in stretches] for epoch, stretches in self.skipped.items()}
        return {"counts": dict(self.counts), "skipped": skipped, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.counts, self.factor = dict(state["counts"]), state["factor"]
        self.skipped = {epoch: [(first, last) for first, last in pairs] for epoch, pairs in state["skipped"].items()}


def roll_back(engine: "Engine") -> bool:
    """Serve the rollbacks that were asked for; True: the integration begins the epoch again where the state stands.

    An integration calls it behind the safe point of a batch, of a validation and of an epoch. The run goes back to a
    point inside the current epoch or at its start: ``on_train_epoch_abort``, then ``engine.rewind`` loads what is the
    integration's, the run and its callbacks get their saved states, ``on_resume``. Nothing fits: it is said, and the
    training goes on.
    """
    asked = engine.requests.take_rollbacks()
    if not asked:
        return False
    saved = find_point(engine, asked)
    if saved is None:
        return False
    epoch = engine.epoch
    engine.abort_epoch()
    engine.groups.give_up()
    go_back(engine, saved)
    for request in asked:
        if request.skip is not None:
            engine.rollbacks.skip(epoch, request.skip)
        engine.rollbacks.count(request.by)
        engine.rollbacks.factor *= request.lr_factor
        scale(engine, request.lr_factor)
    tell(engine, saved, asked)
    engine.fire("on_resume")
    return True


def find_point(engine: "Engine", asked: "list[RollbackRequest]") -> Any:
    """Return the checkpoint to go back to; where none can be had say why and return None."""
    saver, why = engine.saver, ""
    stretches = [request.skip for request in asked if request.skip is not None]
    saved = None
    if saver is None or engine.rewind is None:
        why = f"{engine.run.host} cannot go back"
    elif engine.world_size > 1:
        why = f"{engine.world_size} processes train together, and only one process can go back"
    else:
        saver.flush()
        saved = saver.clean_point(min((first for first, _ in stretches), default=None))
        why = f"no sound point to resume from lies in epoch {engine.epoch} before it"
    if saved is None:
        for request in asked:
            log().warning("%s: a rollback (%s) is not possible: %s.", request.by, request.reason, why)
    return saved


def go_back(engine: "Engine", saved: Any) -> None:
    """Give everything the state that a checkpoint holds; what was skipped and counted since stays."""
    if engine.rewind is None:
        raise RuntimeError("an engine without rewind cannot go back")
    engine.requests.take_saves()  # they were to keep what is given up
    known = engine.rollbacks.state_dict()
    engine.rewind(saved)
    engine.load_state_dict(saved.load("run"))
    since = known["factor"] / engine.rollbacks.factor
    engine.rollbacks.load_state_dict(known)
    scale(engine, since)
    engine.run.roster.go_back(saved.load("callbacks"))


def scale(engine: "Engine", factor: float) -> None:
    """Multiply the learning rates, for good."""
    if factor != 1.0:
        engine.rates.scale(factor)
        engine.take_over_rates()


def tell(engine: "Engine", saved: Any, asked: "list[RollbackRequest]") -> None:
    """Say that the run went back, why, and what it leaves out."""
    for request in asked:
        left_out = "" if request.skip is None else f", without batches {request.skip[0]} to {request.skip[1]}"
        rate = "" if request.lr_factor == 1.0 else f", learning rate times {request.lr_factor:g}"
        log().warning("%s: back to %s%s%s: %s", request.by, saved.manifest.name, left_out, rate, request.reason)
