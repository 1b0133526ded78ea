"""What each callback did in a training, in one line each, read from the run and from what was written."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from epochal.callbacks.checkpoint import Checkpoint
from epochal.callbacks.progress import Progress
from epochal.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from epochal.callbacks.stop import Stopping
from epochal.core.summary import Summary
from epochal.demo.outcome import rates, read_csv
from epochal.loggers.csv import CSVLogger
from epochal.loggers.mlflow import MLflowLogger
from epochal.loggers.tensorboard import TensorBoardLogger

if TYPE_CHECKING:
    from epochal.core.callback import Callback
    from epochal.core.run import Run


def deeds(run: "Run", summary: Summary) -> dict[str, str]:
    """Return what every callback of a run did in its last training, by its name in the run."""
    told: dict[str, str] = {}
    for label, callback in run.roster.callbacks.items():
        tell = next((tell for kind, tell in TELLERS.items() if isinstance(callback, kind)), None)
        did = tell(label, callback, run, summary) if tell is not None else ""
        failed = summary.failures.get(label, 0)
        told[label] = f"failed {failed} times, the log says how" if failed else did
    return told


def of_stopping(label: str, callback: "Callback", run: "Run", summary: Summary) -> str:
    """Tell whether it stopped the training."""
    stopped = f"{label}: " in (summary.stop_reason or "")
    did = f"stopped the training after epoch {summary.epochs}" if stopped else "watched, had no reason to stop"
    restored = getattr(callback, "restore_best", False) and summary.end_reason in ("completed", "stopped")
    return f"{did}; restored the best weights" if restored else did


def of_checkpoint(_label: str, callback: "Callback", run: "Run", _summary: Summary) -> str:
    """Tell which checkpoints are there."""
    metric = getattr(callback, "metric", None)
    best, last = run.checkpoints.best(metric), run.checkpoints.last
    if last is None:
        return "saved nothing"
    of_best = f"epoch {best.manifest.epoch + 1} as the best" if best is not None else "no best"
    if not getattr(callback, "keep_last", None):
        return f"kept {of_best}, to be restored"
    return f"kept {of_best} and epoch {last.manifest.epoch + 1} as the last"


def of_reduce_lr(_label: str, callback: "Callback", _run: "Run", summary: Summary) -> str:
    """Tell how the learning rate went."""
    seen = rates(read_csv(summary.dir / "metrics.csv")) if summary.dir is not None else []
    factor = getattr(callback, "factor", 1.0)
    # The trainer's own schedule lowers the rate too, a little in every epoch.
    cuts = sum(rate < before * (1 + factor) / 2 for before, rate in pairwise(seen))
    if not cuts:
        return "watched, had no reason to cut the learning rate"
    times = "once" if cuts == 1 else f"{cuts} times"
    return f"cut the learning rate {times}; it went from {max(seen):.2g} to {seen[-1]:.2g}"


def of_csv(_label: str, _callback: "Callback", _run: "Run", summary: Summary) -> str:
    """Tell how much the file holds."""
    rows = read_csv(summary.dir / "metrics.csv") if summary.dir is not None else []
    return f"wrote {len(rows)} epochs of {len(rows[0])} columns" if rows else "wrote nothing"


def of_tensorboard(_label: str, _callback: "Callback", _run: "Run", summary: Summary) -> str:
    """Tell how large the event files are."""
    folder = summary.dir / "tensorboard" if summary.dir is not None else None
    size = sum(one.stat().st_size for one in folder.rglob("events.*")) if folder is not None else 0
    return f"wrote {size / 1e3:,.0f} kB of events" if size else "wrote nothing"


def of_mlflow(_label: str, callback: "Callback", _run: "Run", summary: Summary) -> str:
    """Tell under which id the run is found."""
    run_id = getattr(callback, "run_id", None)
    return f"logged run {run_id[:8]} as {summary.name!r}" if run_id else "logged nothing"


def of_progress(_label: str, _callback: "Callback", _run: "Run", summary: Summary) -> str:
    """Tell that it was there."""
    return f"showed {summary.epochs} epochs as they went"


TELLERS: dict[type, Callable[..., str]] = {
    Stopping: of_stopping,
    Checkpoint: of_checkpoint,
    ReduceLROnPlateau: of_reduce_lr,
    CSVLogger: of_csv,
    TensorBoardLogger: of_tensorboard,
    MLflowLogger: of_mlflow,
    Progress: of_progress,
}
