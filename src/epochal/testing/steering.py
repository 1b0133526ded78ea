"""The scenarios of integrations in which somebody steers from outside: a pause, a validation between two batches."""

import threading
from typing import Any

from epochal.core.control import why_not_capable
from epochal.core.run import Run
from epochal.testing.witness import EPOCHS, At, LeftOut, Train, Witness, check, expect, trained_weights


def pause(train: Train) -> Witness:
    """A training that waits goes on as if nothing was, when another thread lets it."""
    usual, witness = Witness(), Witness()
    weights: list[list[bytes] | None] = []
    waited: list[tuple[int, int]] = []
    keep = At("on_train_end", lambda run: weights.append(trained_weights(run.model)), None)

    def proceed(run: Run) -> None:
        waited.append((run.epoch, run.batch))
        threading.Thread(target=run.proceed).start()

    train([keep, usual], EPOCHS)
    run = train(
        [At("on_train_batch_end", lambda run: run.pause(), 2), At("on_pause", proceed, None), keep, witness], EPOCHS
    )
    expect(waited, [(0, 1)], "where it waited")
    expect(run.end_reason, "completed", "end_reason")
    expect(witness.seen, usual.seen, "events, beside a training without a pause")
    check(weights[0] == weights[1], "the weights are others than those of a training without a pause")
    return witness


def validate(train: Train) -> Witness:
    """A validation that was asked for comes between two batches; neither weights nor what is measured notice."""
    usual, witness = Witness(), Witness()
    reasons: list[str | None] = []
    weights: list[list[bytes] | None] = []
    measured: list[tuple[str, Any]] = []
    keep = At("on_train_end", lambda run: weights.append(trained_weights(run.model)), None)
    ask = At("on_train_batch_end", lambda run: run.validate("planted", counts=False), 2)
    look = At("on_val_end", lambda run: measured.append(("val/loss", run.metrics.measured("val/loss").epoch)))
    first = At("on_train_start", lambda run: reasons.append(why_not_capable(run, "validate")))
    before = train([first, keep, usual], EPOCHS)
    if reasons[0] is not None:
        raise LeftOut(reasons[0])
    run = train([ask, look, keep, witness], EPOCHS)
    batches = [place for place, event in enumerate(witness.events) if event == "on_train_batch_end"]
    between = witness.events[batches[1] : batches[2]]
    expect(between.count("on_val_start"), 1, "validations between the second and the third batch")
    expect(witness.events.count("on_val_start"), usual.events.count("on_val_start") + 1, "validations")
    expect(measured, [("val/loss", 0)], "what it measured, and in which epoch")
    check(weights[0] == weights[1], "the weights are others than those of a training without it")
    for name in ("train/loss", "val/loss"):
        expect(row(name, run), row(name, before), f"{name} of every epoch, beside a training without it")
    return witness


def row(name: str, run: Run) -> list[float | None]:
    """Return what every epoch of a run measured of a metric."""
    return [one.get(name) for one in run.history]
