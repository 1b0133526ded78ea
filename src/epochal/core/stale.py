"""A value that is older than who reads it may think."""

from typing import TYPE_CHECKING

from epochal.core.log import log
from epochal.core.metrics import FINAL, Entry

if TYPE_CHECKING:
    from epochal.core.engine import Engine


def speak_of_stale(engine: "Engine", entry: Entry) -> None:
    """Warn, once, that a value read at ``on_train_epoch_end`` is an older epoch's."""
    stale = entry.validated and entry.at.epoch < engine.epoch and not entry.name.startswith(FINAL)
    if stale and not engine.warned_stale:
        engine.warned_stale = True
        log().warning(
            "%r was read at on_train_epoch_end of epoch %d, but it is from epoch %d: this epoch's validation has"
            " not measured it yet. Read it at on_fit_epoch_end, where it is fresh.",
            entry.name, engine.epoch, entry.at.epoch,
        )  # fmt: skip
