"""Checkpoints when a condition holds, and which of them stay."""

import sys
from collections.abc import Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from epochal.callbacks.policy import Policy
from epochal.callbacks.saving_as import KeepAs, saving_as
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.snapshot import Snapshot
from epochal.conditions.base import Condition
from epochal.conditions.best import Best
from epochal.conditions.better import Mode, infer_mode
from epochal.conditions.pace import Pace
from epochal.conditions.patience import NewBest
from epochal.conditions.presets import Saves, given, only_with_compat
from epochal.conditions.save_due import SaveDue
from epochal.conditions.schedule import Every
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.checkpointing.saver import RunSaver
    from epochal.core.dispatch import Handle
    from epochal.core.moment import Moment
    from epochal.core.run import Run

FITNESS = "fitness"
INSTEAD = {
    "every_n_epochs": "write when=Every(epochs=n)",
    "best_only": "write when=Best(metric)",
    "initial_best": "write when=Best(metric) & Target(metric, value)",
}


class Checkpoint(Policy):
    """Save everything that a training is when a condition holds; keep the newest and the best.

    >>> from epochal.testing import simulate
    >>> losses = [{"val/loss": loss} for loss in (3.0, 1.0, 2.0, 4.0)]
    >>> result = simulate([Checkpoint(Every(epochs=1), keep_last=1, keep_best=1)], losses)
    >>> result.saved, result.kept
    ([0, 1, 2, 3], [1, 3])

    Alone, ``Checkpoint()`` saves at each epoch's end. ``keep_last`` of what this callback asked for stay, and the
    ``keep_best`` best: by the metric of the one ``Best`` in ``when``, else by ``metric``, else by fitness; 0 keeps none
    so, -1 all. The newest point to resume from always stays. Several of them share the run's
    checkpoints: one write per moment. A write that fails never raises into the training: it is logged, the event
    ``on_checkpoint_error`` comes, and the next save tries again.

    snapshot
        How the state is taken. "eager": it is copied at once, and written while the training goes on. "lazy": what only
        an optimizer's step changes is copied meanwhile too, and the next step waits for that; for code that changes
        parameters in no other way (such a change is found, unless it is made through ``.data``: that checkpoint is
        taken anew). "off": the training waits until all is written, and no memory for a copy is needed. Of several,
        the safest is used: off, then eager. A copy that would need more than half of the memory left is not made.
    overhead
        In place of ``when``: save as often as standing still for it takes no more than this share of the training's
        time, 0.02 for 2 %, by what the last save took; at batches' ends where the trainer resumes from there, else at
        epochs'. Source: CheckFreq (Mohan et al., FAST'21).
    compat
        "keras", "lightning", "transformers" or "ultralytics", in place of ``when``: save and keep exactly what that
        library's own checkpoint callback would, by ``metric``. What the arguments mean there is on the page of this
        callback; those that follow are taken by presets only.
    every_n_epochs
        Lightning: save at each n-th epoch's end only. Ultralytics' save_period: keep the epochs 0, n, 2n ... as well.
    best_only
        Keras' save_best_only, Hugging Face's save_strategy="best"; in Ultralytics best.pt without last.pt.
    initial_best
        Keras' initial_value_threshold: a value to beat.

    While a checkpoint is being written, a further one inside an epoch that only ``Every`` or ``overhead`` asked for is
    taken at the first moment after that; for any other the training waits. All are on the disk before
    ``on_train_end``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"save"})

    def __init__(
        self,
        when: Condition | None = None,
        *,
        keep_last: int | EllipsisType | None = ...,
        keep_best: int | EllipsisType | None = ...,
        metric: str | None = None,
        mode: Mode | None = None,
        snapshot: Snapshot = "eager",
        overhead: float | None = None,
        every_n_epochs: int | None = None,
        best_only: bool = False,
        initial_best: float | None = None,
        compat: Saves | None = None,
        name: str | None = None,
    ) -> None:
        options = {"every_n_epochs": every_n_epochs, "best_only": best_only, "initial_best": initial_best}
        options = given(options, {"best_only": False})
        self.keeping: KeepAs | None = None
        if compat is None:
            only_with_compat(options, INSTEAD, owner="Checkpoint")
        else:
            if when is not None or overhead is not None:
                raise ArgumentError(f'Checkpoint: compat="{compat}" chooses when to save; leave when=, overhead= out')
            options |= {"metric": metric, "mode": mode, "keep_last": keep_last, "keep_best": keep_best}
            when, self.keeping = saving_as(compat, given(options, {"keep_last": ..., "keep_best": ...}))
        super().__init__(condition(when, overhead), name=name)
        if snapshot not in get_args(Snapshot):
            raise ArgumentError(f'Checkpoint: snapshot must be "eager", "lazy" or "off", not {snapshot!r}')
        self.snapshot: Snapshot = snapshot
        self.compat = compat
        self.pace = self.when if isinstance(self.when, Pace) else None
        self.patient = all(isinstance(leaf, (Every, Pace)) for leaf in self.when.leaves())
        self.first_step: Handle | None = None  # is waited for
        self.validated: Mapping[str, float] = {}  # what the epoch's last validation measured, to be decided upon
        if self.pace is not None:
            self.at_safe_point = self.keep_pace  # no other needs more than the condition asked
        elif isinstance(self.when, (SaveDue, NewBest)):
            self.at_safe_point = self.decide_late
        self.metric: str | None
        self.mode: Mode
        if self.keeping is not None:
            due = cast("SaveDue", self.when)
            self.keep_last, self.keep_best = self.keeping.last, self.keeping.best
            self.metric, self.mode = due.metric, due.rule.mode
        else:
            self.keep_last = check_count("keep_last", 1 if keep_last is ... else keep_last)
            self.keep_best = check_count("keep_best", 1 if keep_best is ... else keep_best)
            self.metric, self.mode = ranking(self.when, metric, mode)

    def __repr__(self) -> str:
        return (
            super().__repr__()
            if self.keeping is None
            else f"Checkpoint(metric={self.metric!r}, compat={self.compat!r})"
        )

    def on_train_start(self, run: "Run") -> None:
        """Tell the run's checkpoints what this callback keeps, if the metric that ranks them is known by its name.

        Some trainers' own names are known when they are measured: until this callback saves, all stays that it saved.
        """
        super().on_train_start(run)
        self.validated = {}
        self.prepare(run)
        if self.metric is None or self.metric in run.metrics:
            run.checkpoint_store.keep(run.label(self), self.rule(run))

    def rule(self, run: "Run") -> Keep:
        """Return what is kept of what this callback asked for."""
        metric = None if self.metric is None else run.metrics.canonical(self.metric)
        if self.keeping is not None:
            return self.keeping.rule(metric, cast("SaveDue", self.when), over=not run.engine.in_training)
        best = sys.maxsize if self.keep_best == -1 else self.keep_best
        return Keep(last=self.keep_last, best=best, metric=metric, mode=self.mode)

    def prepare(self, run: "Run") -> None:
        """Tell who saves how states are to be taken, and a pace from where the trainer resumes."""
        saver = cast("RunSaver", run.engine.saver)
        saver.snapshots[run.label(self)] = self.snapshot
        self.release()
        self.first_step = run.engine.dispatcher.listen(
            "on_train_batch_end", self.reserve, label=run.label(self), guarded=True
        )
        if self.pace is not None:
            self.pace.state.batches = saver.resumes == "batch"

    def reserve(self, run: "Run") -> None:
        """Have the memory for the first copy made; before the first step the optimizer has no state."""
        if run.step:
            self.release()
            cast("RunSaver", run.engine.saver).reserve()

    def release(self) -> None:
        """Wait for the first step no longer."""
        if self.first_step is not None:
            self.first_step.remove()
            self.first_step = None

    def keep_pace(self, run: "Run", now: "Moment") -> None:
        """At a safe point with a pace: tell it what the last save cost, whoever asked for it, then ask it."""
        saver = cast("RunSaver", run.engine.saver)
        assert self.pace is not None
        self.pace.state.pending = saver.busy
        if (cost := saver.cost) is not None:
            self.pace.told(stall=cost.stall, durable=cost.durable, over=cost.over)
        Policy.at_safe_point(self, run, now)

    def decide_late(self, run: "Run", now: "Moment") -> None:
        """At a safe point with a library's rule: what an epoch's last validation brings is saved at the epoch's end.

        There a training can go on; a validation in the middle of an epoch is decided upon at once.
        """
        if now.ended == "validation" and run.engine.batches_done:
            self.validated = now.settled
            self.when.ask(now._replace(settled={}))  # that there was one, not yet what it measured
            return
        if now.ended == "epoch":
            now = now._replace(settled={**self.validated, **now.settled})
            self.validated = {}
        Policy.at_safe_point(self, run, now)

    def on_train_epoch_abort(self, run: "Run") -> None:
        """Forget what the epoch that is given up has measured."""
        self.validated = {}

    def on_train_end(self, run: "Run") -> None:
        """Keep the end of the training, which no pace would meet; some libraries tidy up."""
        saver = cast("RunSaver", run.engine.saver)
        if self.pace is not None and saver.captured_at != run.engine.batches:
            run.request_save("the end of the training")
        if self.keeping is not None:
            if self.keeping.saves_the_end(cast("SaveDue", self.when)) and run.engine.batches:
                run.request_save("the end of the training")
            run.checkpoint_store.keep(run.label(self), self.rule(run))
            run.checkpoint_store.retain()

    def act(self, run: "Run", now: "Moment") -> None:
        """Ask for a checkpoint of this moment."""
        run.checkpoint_store.keep(run.label(self), self.rule(run))
        run.request_save(self.when.reason(now), patient=self.patient)


def condition(when: Condition | None, overhead: float | None) -> Condition:
    """Return the condition that one of the two stands for; neither is the end of each epoch.

    >>> condition(None, None), condition(None, 0.02)
    (Every(epochs=1), Pace(0.02))
    """
    if overhead is None:
        return Every(epochs=1) if when is None else when
    if when is not None:
        raise ArgumentError(
            f"Checkpoint: overhead={overhead!r} chooses when to save itself; leave when= out, or overhead="
        )
    return Pace(overhead)


def check_count(name: str, value: object) -> int:
    """Return a number of checkpoints to keep, or raise ArgumentError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= -1:
        return value
    raise ArgumentError(f"Checkpoint: {name} must be an int >= 0, or -1 for all, not {value!r}")


def ranking(when: Condition, metric: str | None, mode: Mode | None) -> tuple[str | None, Mode]:
    """Return the metric that ranks checkpoints, None for the fitness, and whether low or high is good.

    >>> ranking(Best("val/loss") | Every(epochs=1), None, None), ranking(Every(epochs=1), None, None)
    (('val/loss', 'min'), (None, 'max'))
    """
    found = [leaf for leaf in when.leaves() if isinstance(leaf, Best)]
    if len(found) == 1 and metric not in (None, found[0].metric):
        raise ArgumentError(
            f"Checkpoint: metric={metric!r}, but when= saves at the best {found[0].metric!r};"
            " leave metric= out, or rank by the same"
        )
    if len(found) == 1:
        metric, mode = found[0].metric, mode or found[0].rule.mode
    if metric is None or metric == FITNESS:
        if mode not in (None, "max"):
            raise ArgumentError(f"Checkpoint: mode={mode!r}, but the higher fitness is always the better")
        return None, "max"
    return metric, infer_mode(metric, mode, owner="Checkpoint")
