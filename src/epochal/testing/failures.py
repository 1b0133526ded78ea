"""The scenarios of integrations in which something fails: an error, Ctrl-C, what is to be raised afterwards."""

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from epochal.core.callback import Callback
from epochal.core.run import Run
from epochal.testing.witness import EPOCHS, At, Planted, Train, Witness, check, expect


def error_in_a_step(train: Train) -> Witness:
    """An error of the second batch's step propagates unchanged; all that is open ends, in order."""
    error = Planted("planted in a step")
    witness = failing(lambda callbacks: train(callbacks, EPOCHS, error=error), error, "exception")
    if "on_train_batch_start" in witness.events:
        expect(len(witness.at("on_train_batch_start")), 2, "batches begun")
        expect(len(witness.at("on_train_batch_end")), 2, "batches ended")
    return witness


def error_in_a_callback(train: Train) -> Witness:
    """The error propagates unchanged, with a note; on_exception and teardown still come."""
    return failing_at(train, Planted("planted"), "on_train_batch_end", "exception")


def error_in_a_validation(train: Train) -> Witness:
    """A validation that fails is ended like a batch that fails."""
    witness = failing_at(train, Planted("planted"), "on_val_start", "exception", occurrence=1)
    expect(witness.events.count("on_val_start"), witness.events.count("on_val_end"), "validations ended")
    return witness


def ctrl_c(train: Train) -> Witness:
    """KeyboardInterrupt ends a training as an error does."""
    return failing_at(train, KeyboardInterrupt(), "on_train_batch_start", "interrupted")


def ctrl_c_as_a_signal(train: Train) -> Witness:
    """A pressed Ctrl-C lets the batch end; then the training is interrupted."""
    witness = Witness()

    def press(_run: Run) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise KeyboardInterrupt  # signals reach the main thread only
        signal.raise_signal(signal.SIGINT)

    came_out = raised_by(lambda: train([At("on_train_batch_start", press, 2), witness], EPOCHS))
    check(any(isinstance(one, KeyboardInterrupt) for one in chain(came_out)), f"{came_out!r} came out, no Ctrl-C")
    expect(len(witness.at("on_train_batch_end")), 2, "batches ended")
    expect(ended(witness), "interrupted", "end_reason")
    return witness


def failing_at(train: Train, error: BaseException, event: str, reason: str, *, occurrence: int = 2) -> Witness:
    """Raise in a callback and look at how the training ends."""

    def fail(_run: Run) -> None:
        raise error

    witness = failing(lambda callbacks: train([At(event, fail, occurrence), *callbacks], EPOCHS), error, reason)
    check(bool(getattr(error, "__notes__", ())), "the error has no note that names the callback")
    return witness


def failing(train: Callable[[Sequence[Callback]], Run], error: BaseException, reason: str) -> Witness:
    """Train what raises an error, and look at how it ends; a trainer may make an exit of a KeyboardInterrupt."""
    witness = Witness()
    came_out = raised_by(lambda: train([witness]))
    unchanged = came_out is error or (isinstance(came_out, SystemExit) and error in chain(came_out))
    check(unchanged, f"{came_out!r} came out of the training, expected {error!r}")
    expect(ended(witness), reason, "end_reason")
    return witness


def ended(witness: Witness) -> str | None:
    """Return the end reason of a training that failed, once its last events are as they must be."""
    expect(witness.events[-1], "teardown", "last event")
    expect(witness.events.count("teardown"), 1, "number of teardowns")
    expect(witness.events.count("on_exception"), 1, "number of on_exception")
    assert witness.run is not None
    expect(witness.run.engine.active, False, "still training")
    return witness.run.end_reason


def raised_by(call: Callable[[], Any]) -> BaseException | None:
    """Return what a call raises."""
    try:
        call()
    except BaseException as caught:
        return caught
    return None


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and those it was raised from.

    >>> chain(None)
    []
    """
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def error_after_the_training(train: Train) -> Witness:
    """What a callback wants raised after the training is raised when the trainer has ended as always."""
    witness, error = Witness(), Planted("planted")

    def ask(run: Run) -> None:
        run.raise_after(error)
        run.stop("planted")

    came_out = raised_by(lambda: train([At("on_fit_epoch_end", ask), witness], EPOCHS))
    check(came_out is error, f"{came_out!r} came out of the training, expected {error!r}")
    assert witness.run is not None
    expect(witness.run.end_reason, "stopped", "end_reason")
    expect(witness.events[-1], "teardown", "last event")
    expect(witness.events.count("on_exception"), 0, "number of on_exception")
    expect(witness.run.engine.active, False, "still training")
    return witness
