"""A save that was asked for: the state is captured, said, and written, mostly while the training goes on."""

from typing import TYPE_CHECKING

from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Moment
    from epochal.core.requests import SaveRequest


def save(engine: "Engine", now: "Moment") -> None:
    """Capture the state, say so, have it written; a failed write is an event and the training goes on.

    While the save before is still being written, one that can wait stays among the requests.
    """
    tell_failures(engine)
    saver, requests = engine.saver, engine.requests
    if saver is None or not requests.saves:
        return
    if not saver.ready(tuple(requests.saves), now):
        requests.waiting = True
        return
    error: Exception | None
    asked = requests.take_saves()
    try:
        captured = saver.capture(asked, now)
    except Exception as failed:  # somebody's state_dict
        error = failed
        engine.orders.saved(asked, error)
    else:
        error = saver.write(captured)  # before anybody can change what is captured
        engine.orders.saved(asked, error)
        note(engine, asked)
        engine.fire("on_model_save")
    if error is not None:
        tell_failure(engine, error)


def note(engine: "Engine", asked: "list[SaveRequest]") -> None:
    """Have a save written down in the run's store; one that a command asked for is, as its answer."""
    wanted = [request for request in asked if not request.command]
    if engine.note is not None and wanted:
        engine.note("save", "; ".join(one.reason for one in wanted), "; ".join({one.by: 0 for one in wanted}), {})


def settle(engine: "Engine") -> None:
    """Let a state that is being copied in the background be whole before anybody changes the model."""
    if engine.copying is not None:
        engine.copying()


def flush(engine: "Engine", limit: float | None = None) -> None:
    """Wait until all that was asked for is durable, or so many seconds; tell what could not be written."""
    settle(engine)
    if engine.saver is not None:
        engine.saver.flush(limit)
        tell_failures(engine)


def close(engine: "Engine", limit: float | None = None) -> list[BaseException | None]:
    """Let everything be durable and the saver be done with, at the end of a training; return what failed in that."""
    raised: list[BaseException | None] = []
    for step in (lambda: flush(engine, limit), engine.saver.close if engine.saver is not None else None):
        try:
            if step is not None:
                step()
        except BaseException as failed:
            raised.append(failed)
    return raised


def tell_failures(engine: "Engine") -> None:
    """Tell what could not be written in the background since the last time."""
    failures = engine.requests.failures
    while failures:
        tell_failure(engine, failures.popleft())


def tell_failure(engine: "Engine", error: Exception) -> None:
    """Count a failed checkpoint, log it and make it an event."""
    engine.checkpoint_error = error
    engine.checkpoint_errors += 1
    log().error("a checkpoint could not be written; the training goes on: %s", error, exc_info=error)
    engine.fire("on_checkpoint_error")
