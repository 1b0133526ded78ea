"""What Lightning does on its own: how it stops a fit, its signal handler, its loggers."""

import signal
import threading
from collections.abc import Callable
from typing import Any

from epochal.core.engine import Engine
from epochal.core.log import log
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.integrations.entry import wrap

TITLES = {"mlflow": "MLFlowLogger", "tensorboard": "TensorBoardLogger", "wandb": "WandbLogger"}


def note_native_stop(engine: Engine, trainer: Any) -> None:
    """Write down a stop that is not ours: of a native callback, of ``max_steps`` or ``max_time``."""
    stops, planned = engine.requests.stops, engine.num_epochs
    if stops or (planned is not None and trainer.current_epoch >= planned):
        return
    if trainer.should_stop and trainer.fit_loop._can_stop_early:
        stops.append(StopRequest(reason_of(trainer), "Lightning"))
    elif planned is not None and 0 <= trainer.max_steps <= trainer.global_step:
        stops.append(StopRequest(f"max_steps={trainer.max_steps} reached", "Lightning"))


def reason_of(trainer: Any) -> str:
    """Return which native callback set ``trainer.should_stop``, as far as it can be seen."""
    for one in trainer.callbacks:
        patience = getattr(one, "patience", None)
        if patience is not None and getattr(one, "wait_count", 0) >= patience:
            return f"no better {one.monitor} for {patience} checks (EarlyStopping)"
        if type(one).__name__ == "Timer" and one.time_remaining() is not None and one.time_remaining() <= 0:
            return "max_time reached"
    return "a native callback set trainer.should_stop"


def switch_off_replaced(run: Run, trainer: Any) -> list[Callable[[], None]]:
    """Let Lightning's loggers for destinations that ours serve write nothing; what is returned lets them write again.

    They stay the trainer's loggers: Lightning's own checkpoints lie where they say.
    """
    undo: list[Callable[[], None]] = []
    for label, callback in run.roster.callbacks.items():
        served = () if getattr(callback, "keep_native", False) else sorted(getattr(callback, "replaces", ()))
        for logger in trainer.loggers:
            title = type(logger).__name__
            if title in (TITLES.get(destination) for destination in served):
                undo += [wrap(logger, name, silent) for name in ("log_metrics", "log_hyperparams")]
                run.engine.notes.append(
                    f"Lightning's {title} was off in this training: {label} writes there. keep_native=True keeps both."
                )
    return undo


def silent(_original: Any) -> Callable[..., None]:
    """Return what is called in place of a method that is to write nothing."""
    return lambda *_args, **_options: None


def let_go_of_sigterm(trainer: Any) -> None:
    """Take out Lightning's handler, which ends a fit with exit status 0 and nothing saved; SLURM's requeue stays."""
    connector = trainer._signal_connector
    environment = getattr(trainer._accelerator_connector, "cluster_environment", None)
    before = getattr(connector, "_original_handlers", {}).get(signal.SIGTERM)
    alone = not getattr(environment, "auto_requeue", False)
    if before is not None and alone and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def leave_out_searches(trainer: Any) -> list[Callable[[], None]]:
    """Let a fit that goes on search for no rate and no batch size: it would forget its checkpoint over that.

    Such callbacks are known by what only they have; what is returned lets them search again.
    """
    searches = [one for one in trainer.callbacks if hasattr(one, "_early_exit")]
    for one in searches:
        log().warning(
            "resume: %s does not search again: the rate it found is in the checkpoint; set the batch size it found"
            " yourself.", type(one).__name__,
        )  # fmt: skip
    return [wrap(one, "on_fit_start", silent) for one in searches]


def is_search(trainer: Any) -> bool:
    """Say whether a fit is only a search, of Lightning's ``Tuner``, and no training."""
    return any(getattr(one, "_early_exit", False) for one in trainer.callbacks)
