"""The main job: train on handwritten digits with callbacks at work, then tell what came of it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from epochal.core.errors import ArgumentError, EpochalError
from epochal.demo.plan import Milestones, Plan

if TYPE_CHECKING:
    from rich.console import Console

    from epochal.core.callback import Callback
    from epochal.core.run import Run
    from epochal.demo.outcome import Outcome

Task = Literal["detect", "segment"]
Trainer = Literal["yolo", "pytorch"]
Train = Callable[[Plan, Path, "list[Callback]", "Callable[[Run], None]"], None]
QUIET = ("mlflow.store.db.utils", "alembic")  # tell on the terminal how they make a new database


class DemoFailed(EpochalError, RuntimeError):
    """The demo's training did not learn what it is there to learn; the message says what came instead."""


def run_demo(
    task: Task = "detect",
    trainer: Trainer = "yolo",
    *,
    epochs: int | None = None,
    images: tuple[int, int] | None = None,
    folder: str | Path = "runs",
    console: "Console | None" = None,
) -> "Outcome":
    """Train, print the report, and return what came of it; what is written goes into ``folder``.

    ``task`` is YOLO's. ``epochs`` and ``images`` (to train and to validate) make it smaller; only a demo of full size
    has to reach its goal.

    Raises:
        ArgumentError: for a task or trainer that is not there, and for less than one epoch.
        DemoFailed: when the training ended below its goal.
        MissingExtra: when a package of the extra ``demo`` is not installed.
        KeyboardInterrupt: after Ctrl-C, when the report of what was done is printed.
    """
    from rich.console import Console

    from epochal.demo.report import announcement, render

    console = console or Console()
    plan, train = choose(task, trainer, images)
    small = epochs is not None or images is not None
    if epochs is not None:
        if epochs < 1:
            raise ArgumentError(f"epochs={epochs}: the demo trains for at least one epoch")
        plan = replace(plan, epochs=epochs)
    console.print(announcement(plan, Path(folder)))
    for talker in QUIET:
        logging.getLogger(talker).setLevel(logging.WARNING)
    with console.status("loading PyTorch, preparing the data") as waiting:
        outcome, error = perform(plan, train, Path(folder), ready=waiting.stop)
    console.print(render(outcome, console.width))
    if error is not None:
        raise error
    if not (small or outcome.learnt):
        raise DemoFailed(what_went_wrong(outcome))
    return outcome


def choose(task: str, trainer: str, images: tuple[int, int] | None) -> tuple[Plan, Train]:
    """Return what to train and how."""
    from epochal.demo import pytorch, yolo

    if trainer == "pytorch":
        return pytorch.PLAN, pytorch.train
    plans = {"detect": yolo.DETECT, "segment": yolo.SEGMENT}
    if trainer != "yolo" or task not in plans:
        raise ArgumentError(f"task={task!r}, trainer={trainer!r}: there are detect and segment, yolo and pytorch")
    return plans[task], partial(yolo.train, images=images) if images is not None else yolo.train


def perform(
    plan: Plan, train: Train, parent: Path, ready: Callable[[], None]
) -> "tuple[Outcome, KeyboardInterrupt | None]":
    """Train in a folder of its own, then return what came of it, and the Ctrl-C that ended it, if one did.

    ``ready`` is called when the preparations are over.
    """
    from epochal.demo.plan import callbacks
    from epochal.runs.folder import RunFolder

    folder = RunFolder(parent, plan.name).path
    runs: list[Run] = []
    milestones = Milestones(plan.watched)

    def watch(run: "Run") -> None:
        run.add_callback("on_train_start", lambda _run: ready(), once=True)
        milestones.watch(run)
        runs.append(run)

    interrupted: KeyboardInterrupt | None = None
    try:
        train(plan, folder, callbacks(plan), watch)
    except KeyboardInterrupt as error:
        if not (runs and runs[0].past):
            raise
        interrupted = error
    outcome = finished(plan, folder, runs[0], milestones)
    draw(outcome)
    return outcome, interrupted


def finished(plan: Plan, folder: Path, run: "Run", milestones: Milestones) -> "Outcome":
    """Return what came of a training that is over."""
    from epochal.demo.deeds import deeds
    from epochal.demo.outcome import Outcome

    summary = run.past[-1]
    told = deeds(run, summary)
    if str(milestones):
        told["milestones()"] = f"{plan.quality} passed {milestones}"
    return Outcome(plan, summary, folder, told)


def draw(outcome: "Outcome") -> None:
    """Write the picture of the curves beside the run's other files, if there is anything to draw."""
    from epochal.demo.picture import write_picture
    from epochal.demo.report import PICTURE

    plan, summary = outcome.plan, outcome.summary
    if summary.dir is None or not summary.history:
        return
    best = None if outcome.best is None else (*outcome.best, plan.quality)
    try:
        write_picture(summary.dir / PICTURE, outcome.panels(), title=plan.title, best=best)
    except OSError as error:
        logging.getLogger("epochal").warning("the picture of the curves could not be written: %s", error)


def what_went_wrong(outcome: "Outcome") -> str:
    """Return why the demo failed, and what to do."""
    plan, summary = outcome.plan, outcome.summary
    reached = "was never measured" if outcome.best is None else f"reached {outcome.best[1]:.3f}"
    why = f"the training failed: {plan.quality} {reached} in {summary.epochs} epochs, the goal is {plan.goal:g}"
    return f"{why}. Epochal's issue tracker would like to see {summary.dir}"
