"""The contract suite of loggers: what every one of them promises, checked for yours."""

import copy
import math
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.callback import Callback
from epochal.core.run import Run
from epochal.loggers.base import Logger, is_worker_thread
from epochal.testing.simulate import Simulation, simulate

EPOCHS: list[dict[str, float]] = [
    {"val/loss": 3.0, "val/map": 0.25},
    {"val/loss": 2.0, "val/map": math.nan},
    {"val/loss": 1.0, "val/map": math.inf},
]
BATCHES = 4
Curve = Sequence[float]


class Logs(Callback):
    """Logs what loggers have to bear: batch values, late names, NaN, hyper-parameters, a tiny image."""

    def __init__(self, fail_in_epoch: int | None = None) -> None:
        self.fail_in_epoch = fail_in_epoch
        self.batches = 0

    def on_train_start(self, run: Run) -> None:
        """Log hyper-parameters of several types."""
        run.log_params(
            {"lr": 0.1, "layers": 3, "optimizer": "SGD", "nesterov": True, "betas": (0.9, 0.999), "none": None}
        )

    def on_train_batch_end(self, run: Run) -> None:
        """Log the loss of the batch, 1/1, 1/2, 1/3 ..."""
        self.batches += 1
        run.log({"train/loss": 1 / run.step})
        if run.epoch == self.fail_in_epoch:
            raise ValueError("the training fails on purpose")

    def on_fit_epoch_end(self, run: Run) -> None:
        """Log names that were not there before, one of them with characters that not every destination allows."""
        if run.epoch > 0:
            run.log({"late (%)": float(run.epoch)})


def check_logger(
    make: Callable[[Path], Logger],
    *,
    read: Callable[[Path], Mapping[str, Curve]] | None = None,
    folder: str | Path | None = None,
) -> None:
    """Raise AssertionError unless the loggers that ``make(folder)`` returns keep the contract of all loggers.

    ``make`` is given a folder of its own for each training, which may not exist yet; ``read``, if given, reads back
    from that folder the curves "val/loss" and "train/loss" that were logged, as lists of floats. ``folder`` is where
    the trainings write; by default a temporary one. Checked: the training does every step, whatever becomes of the
    logger; no thread stays; an idle logger can be pickled and copied; it serves a second training, goes on with its
    saved state, and survives a training that fails and a folder that cannot be written.

    >>> from epochal import CSVLogger
    >>> check_logger(lambda folder: CSVLogger(folder / "metrics.csv"))
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="epochal-", ignore_cleanup_errors=True) as made:
            check_logger(make, read=read, folder=made)
        return
    folder = Path(folder)
    logger = make(folder / "first")
    check_idle(logger)
    trained(logger, folder / "first")
    if read is not None:
        check_values(read(folder / "first"))
    check_idle(logger)
    trained(logger, folder / "first")
    trained(copy.deepcopy(logger), folder / "first")
    check_failed_training(make(folder / "failed"), folder / "failed")
    check_resumed(make(folder / "resumed"), folder / "resumed")
    blocked = folder / "blocked"
    blocked.write_text("a file where the folder should be")
    broken = make(blocked / "inside")
    broken.flush_limit = min(broken.flush_limit, 20.0)
    trained(broken, folder / "beside", may_fail=True)


def check_idle(logger: Logger) -> None:
    """An idle logger is guarded, holds nothing that cannot be pickled, and knows what it replaces."""
    assert isinstance(logger, Logger), f"{logger!r} is not derived from epochal's Logger"
    assert logger.guarded, f"{logger.name} is not guarded: its failure would end the training"
    assert isinstance(logger.replaces, frozenset), f"{logger.name}.replaces must be a frozenset of names"
    assert logger.session is None, f"{logger.name} is idle but holds a training"
    pickle.dumps(logger.__getstate__())
    assert copy.deepcopy(logger).state_dict() == logger.state_dict(), f"{logger.name} loses its state when it is copied"


def trained(logger: Logger, folder: Path, *, may_fail: bool = False) -> Simulation:
    """Train with the logger; every step is done, every epoch ends, no thread stays, nothing is lost."""
    logs = Logs()
    result = simulate([logger, logs], EPOCHS, batches=BATCHES, dir=folder.parent / f"{folder.name}-run")
    assert result.end_reason == "completed", f"{logger.name} changed how the training ended: {result.end_reason}"
    assert result.epochs_run == len(EPOCHS)
    assert logs.batches == len(EPOCHS) * BATCHES
    notes = [*result.run.past[-1].notes, *map(str, result.run.past[-1].failures)]
    if may_fail:
        assert notes, f"{logger.name} could not write and did not say so"
    else:
        assert notes == [], f"{logger.name} lost something: {notes}"
        assert not left_over(), f"{logger.name} left threads: {left_over()}"
    return result


def check_failed_training(logger: Logger, folder: Path) -> None:
    """The training's own error comes through unchanged, and the logger ends."""
    try:
        simulate([logger, Logs(fail_in_epoch=1)], EPOCHS, batches=BATCHES, dir=folder.parent / f"{folder.name}-run")
    except ValueError as error:
        assert "on purpose" in str(error)  # noqa: PT017
    else:
        raise AssertionError(f"{logger.name} swallowed the training's error")
    assert logger.session is None
    assert not left_over(), f"{logger.name} left threads: {left_over()}"


def check_resumed(logger: Logger, folder: Path) -> None:
    """A second object, given the state of the first, goes on; nothing is lost."""
    where = folder.parent / f"{folder.name}-run"
    first = simulate([logger, Logs()], EPOCHS[:2], batches=BATCHES, dir=where)
    state: dict[str, Any] = {"run": first.run.engine.state_dict(), "callbacks": first.run.roster.states()}
    again = copy.deepcopy(logger)
    second = simulate([again, Logs()], EPOCHS, batches=BATCHES, dir=where, state=state)
    assert second.epochs_run == 1
    assert second.run.past[-1].notes == (), f"{logger.name} lost something after resuming: {second.run.past[-1].notes}"


def check_values(curves: Mapping[str, Curve]) -> None:
    """What was read back is what was logged."""
    steps = len(EPOCHS) * BATCHES
    for name, expected in {
        "val/loss": [row["val/loss"] for row in EPOCHS],
        "train/loss": [1 / step for step in range(1, steps + 1)],
    }.items():
        if name in curves:
            found = list(curves[name])
            close = len(found) == len(expected) and all(
                map(lambda a, b: math.isclose(a, b, rel_tol=1e-6), found, expected)
            )
            assert close, f"{name}: read {found}, logged {expected}"


def left_over(patience: float = 5.0) -> list[str]:
    """Return the names of loggers' threads that are still there."""
    end = time.monotonic() + patience
    while time.monotonic() < end and any(is_worker_thread(one) for one in threading.enumerate()):
        time.sleep(0.01)
    return [one.name for one in threading.enumerate() if is_worker_thread(one)]
