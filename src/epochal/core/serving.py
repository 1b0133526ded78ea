"""What was asked of a training is taken: at a safe point, on its thread, in one order."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from epochal.core.preemption import leave
from epochal.core.saving import save, tell_failures

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Ended, Moment


def serve(engine: "Engine", now: "Moment | None", ended: "Ended", settled: Mapping[str, float] | None) -> None:
    """Take the requests that wait; ``now`` is this moment, where somebody was asked about it already."""
    requests = engine.requests
    requests.waiting = False
    if requests.rates:
        engine.apply_rates()
    tell_failures(engine)
    if requests.signals:
        leave(engine, now or engine.moment(ended, settled))
    if requests.rollbacks:
        requests.take_saves()  # what is about to be given up is not kept
    elif requests.saves:
        # Ranks agree at epoch ends only; and after the last batch that end is near, and a point to resume from.
        if ended != "epoch" and (engine.world_size > 1 or engine.batches_done or engine.saves_wait):
            requests.waiting = True
        else:
            save(engine, now or engine.moment(ended, settled))
