"""A save that was asked for: the state is captured, said, and written."""

from typing import TYPE_CHECKING

from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Moment


def save(engine: "Engine", now: "Moment") -> None:
    """Capture the state, say so, write it; a failed write is an event and the training goes on."""
    if engine.saver is None:
        return
    error: Exception | None
    try:
        captured = engine.saver.capture(engine.requests.take_saves(), now)
    except Exception as failed:  # somebody's state_dict
        error = failed
    else:
        error = engine.saver.write(captured)  # before anybody can change what is captured
        engine.fire("on_model_save")
    if error is not None:
        engine.checkpoint_error = error
        engine.checkpoint_errors += 1
        log().error("a checkpoint could not be written; the training goes on: %s", error, exc_info=error)
        engine.fire("on_checkpoint_error")
