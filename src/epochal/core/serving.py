"""What was asked of a training is taken: at a safe point, on its thread, in one order."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from epochal.core.pausing import begin_pause, end_pause, rest, waits
from epochal.core.preemption import leave
from epochal.core.saving import save, tell_failures

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Ended, Moment


def serve(engine: "Engine", now: "Moment | None", ended: "Ended", settled: Mapping[str, float] | None) -> None:
    """Take the requests that wait; ``now`` is this moment, where somebody was asked about it already.

    A pause lasts in here: what is asked for meanwhile is taken as it comes.
    """
    requests = engine.requests
    take(engine, now, ended, settled)
    if not waits(engine, ended):
        requests.waiting = requests.waiting or requests.paused
        return
    now = now or engine.moment(ended, settled)
    began = begin_pause(engine)
    try:
        while waits(engine, ended):
            rest()
            if requests.waiting:
                take(engine, now, ended, settled)
    finally:
        end_pause(engine, began)
    if requests.signals:  # one that came between two looks
        take(engine, now, ended, settled)
    requests.waiting = requests.waiting or requests.paused
    engine.fire("on_continue")


def take(engine: "Engine", now: "Moment | None", ended: "Ended", settled: Mapping[str, float] | None) -> None:
    """Take what waits, once."""
    requests = engine.requests
    requests.waiting = False
    if requests.commands or engine.orders.waiting:
        engine.orders.serve(ended)
    if requests.rates:
        engine.apply_rates()
    tell_failures(engine)
    if requests.signals:
        requests.paused = False
        leave(engine, now or engine.moment(ended, settled))
    if requests.rollbacks:
        requests.take_saves()  # what is about to be given up is not kept
    elif requests.saves:
        # Ranks agree at epoch ends only; and after the last batch that end is near, and a point to resume from.
        if ended != "epoch" and (engine.world_size > 1 or engine.batches_done or engine.saves_wait):
            requests.waiting = True
        else:
            save(engine, now or engine.moment(ended, settled))
