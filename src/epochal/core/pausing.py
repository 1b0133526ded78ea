"""A training that waits: on its own thread, at a safe point, with an ear for commands and signals."""

import time
from typing import TYPE_CHECKING

from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Ended

LOOK = 0.02  # seconds between two looks: a signal's handler may not wake somebody up who holds a lock


def waits(engine: "Engine", ended: "Ended") -> bool:
    """Say whether the training is to wait now: not where it is about to end, or to go back, or to validate first."""
    requests = engine.requests
    if not requests.paused or requests.stops or requests.signals or requests.rollbacks or not engine.in_training:
        return False
    if ended != "epoch" and epoch_ends(engine):  # no step is left in it, and nothing could be saved before its end
        return False
    return not (requests.validations and validates_next(engine, ended))


def epoch_ends(engine: "Engine") -> bool:
    """Say whether the end of the epoch is what comes next, a validation at most before it."""
    last = engine.num_batches is not None and engine.batch + 1 >= engine.num_batches
    return engine.batches_done or (engine.saves_wait and last)


def validates_next(engine: "Engine", ended: "Ended") -> bool:
    """Say whether a validation that was asked for can begin right behind this safe point."""
    return engine.asked or (ended == "batch" and not engine.batches_done)


def begin_pause(engine: "Engine") -> float:
    """Tell that the training waits, and return when that began."""
    log().warning(
        "%s is paused after step %d, in epoch %d; run.proceed() or `epochal continue` lets it go on.",
        engine.run.name, engine.step, engine.epoch + 1,
    )  # fmt: skip
    began = time.monotonic()
    engine.fire("on_pause")
    return began


def end_pause(engine: "Engine", began: float) -> None:
    """Let all clocks of the training go on from where they stood."""
    waited = time.monotonic() - began
    engine.started += waited
    if engine.waited is not None:
        engine.waited(waited)


def rest() -> None:
    """Wait for a moment."""
    time.sleep(LOOK)
