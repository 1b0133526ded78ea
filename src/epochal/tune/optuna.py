"""Optuna: prune a trial by what its training has measured so far."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_amount, check_count, check_metric
from epochal.conditions.better import Mode, infer_mode
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, CapabilityError, MetricNotFound, MissingExtra
from epochal.core.log import log
from epochal.tune.bounded import Bounded

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from epochal.core.moment import Moment
    from epochal.core.run import Run


@final
class Prune(Callback):
    """Report a metric to an Optuna trial after each epoch, and stop the training when Optuna prunes the trial.

    >>> import optuna
    >>> from epochal.testing import simulate
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> def objective(trial):
    ...     rate = trial.suggest_float("rate", 0.01, 0.1)
    ...     accuracies = [rate * epoch for epoch in range(10)]  # stands for a training
    ...     simulate([Prune(trial, "val/accuracy")], [{"val/accuracy": x} for x in accuracies])
    ...     return accuracies[-1]
    >>> study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    >>> study.enqueue_trial({"rate": 0.1}), study.enqueue_trial({"rate": 0.05})
    (None, None)
    >>> study.optimize(objective, n_trials=2)
    >>> [(trial.state.name, len(trial.intermediate_values)) for trial in study.trials]
    [('COMPLETE', 10), ('PRUNED', 2)]

    The training ends as after any ``run.stop``. When the trainer has returned, at the end of ``with Loop(...)`` or of
    ``model.train(...)``, ``optuna.TrialPruned`` is raised there, so an objective cannot forget it.

    trial
        The trial that the objective was given. Which way is good is the study's direction; studies with several
        objectives cannot prune.
    metric
        What is reported: its settled value, the newest of the epoch; the step is ``run.epoch``, from 0.
    mode
        "min" or "max", only where the metric's name misleads: one that does not go with the study's direction is an
        ``ArgumentError``, because then the best trials would be pruned.
    after
        How many epochs may pass before the metric is measured: 4 if you validate in every fifth. Later it is
        ``MetricNotFound``.
    timeout
        Seconds that the training waits for the study's storage. None: as long as the storage takes.

    A storage that is locked, missing or slow does not stop a training: that is said once and in the summary, the
    training goes on unpruned, and the storage is asked again, more and more seldom; values wait for it. Steps that the
    trial has already, from before a resume, are not reported again. It is for one process per trial: with several,
    ``CapabilityError``. After Akiba et al., Optuna, KDD 2019.
    """

    def __init__(
        self,
        trial: "BaseTrial",
        metric: str,
        *,
        mode: Mode | None = None,
        after: int = 0,
        timeout: float | None = 10.0,
        name: str | None = None,
    ) -> None:
        pruned_error("")  # a missing package is said here, not when the first trial is pruned
        check_metric(metric, owner="Prune")
        check_trial(trial)
        check_direction(trial, metric, mode)
        if after:
            check_count(after, owner="Prune", argument="after")
        if timeout is not None:
            check_amount(timeout, owner="Prune", argument="timeout")
        self.trial, self.metric, self.after, self.timeout = trial, metric, after, timeout
        if name is not None:
            self.name = name
        object.__setattr__(self, "_first_argument", metric)  # what the default name shows: not the trial
        self.measured = False
        self.pruned: str | None = None  # why
        self.newest: float | None = None  # settled in this epoch
        self.reports: Reports | None = None  # during a training

    def __repr__(self) -> str:
        return f"Prune(trial {self.trial.number}, {self.metric!r})"

    def on_train_start(self, run: "Run") -> None:
        """Begin anew; a trial that was pruned before a resume stays so."""
        if run.world_size > 1:
            raise CapabilityError(f"{run.label(self)} needs one process per trial; this training has {run.world_size}")
        self.newest, self.reports = None, Reports(self.trial, self.timeout)
        if self.pruned is not None:
            self.prune(run, self.pruned)

    def on_train_epoch_start(self, run: "Run") -> None:
        """Forget what an epoch measured that was given up."""
        self.newest = None

    @property
    def at_batches(self) -> bool:
        """False: no value settles there."""
        return False

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Take the settled value; report it at the epoch's end and ask."""
        value = now.settled.get(self.metric)
        if value is not None:
            self.newest, self.measured = value, True
        if now.ended != "epoch":
            return
        self.check_measured(run)
        if self.newest is not None and self.pruned is None and self.ask(run, now.epoch, self.newest):
            self.prune(run, f"{self.metric} {self.newest:.6g} in epoch {now.epoch + 1}")

    def check_measured(self, run: "Run") -> None:
        """Raise MetricNotFound for a metric that was never measured."""
        waits = run.metrics.validation_comes or run.epoch < self.after
        if not self.measured and not waits and run.stop_reason is None:
            why = f"; {self!r} needs it: log it, or if it comes only from a later epoch on, give Prune after=n epochs"
            raise MetricNotFound(self.metric, run.metrics, why=why)

    def ask(self, run: "Run", step: int, value: float) -> bool:
        """Return whether Optuna prunes the trial; False when its storage does not answer."""
        reports = self.reports
        if reports is None:
            return False
        first = reports.calls.error is None
        answer = reports.prunes(step, value)
        if first and reports.calls.error is not None:
            log().error(
                "%s: Optuna's storage does not answer; the training goes on unpruned and asks again, ever more seldom."
                " Further failures are counted, not shown.",
                run.label(self),
                exc_info=reports.calls.error,
            )
        return answer

    def prune(self, run: "Run", why: str) -> None:
        """End the training, and raise TrialPruned when the trainer has returned."""
        self.pruned = why
        run.stop(f"trial pruned: {why}")
        run.raise_after(pruned_error(why))

    def teardown(self, run: "Run") -> None:
        """Tell what the storage did not answer."""
        if self.reports is not None and self.reports.calls.unanswered:
            run.engine.notes.append(f"{run.label(self)}: {self.reports.tell()}")
        self.reports = None

    def state_dict(self) -> dict[str, Any]:
        """Return whether the metric was measured, and why the trial was pruned, if it was."""
        return {"measured": self.measured, "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take both back."""
        self.measured, self.pruned = state["measured"], state["pruned"]


class Reports:
    """What one training tells a trial: the values that wait for its storage, and the steps that it has."""

    def __init__(self, trial: "BaseTrial", timeout: float | None) -> None:
        self.trial, self.calls = trial, Bounded(timeout)
        self.waiting: dict[int, float] = {}
        self.known: set[int] | None = None

    def prunes(self, step: int, value: float) -> bool:
        """Report the value and return whether the trial is pruned by it."""
        self.waiting[step] = value
        return self.calls.ask(lambda: self.report(step)) or False

    def report(self, step: int) -> bool:
        """Report what waits, then ask; a step that the trial had already decides nothing."""
        known = self.known = known_steps(self.trial) if self.known is None else self.known
        new = step not in known
        for one in sorted(self.waiting):  # a copy: while this hangs the training thread may add to it
            if one not in known:
                self.trial.report(self.waiting[one], one)
                known.add(one)
            del self.waiting[one]
        return new and self.trial.should_prune()

    def tell(self) -> str:
        """Return what was not answered, and why."""
        calls, lost = self.calls, len(self.waiting)
        values = f"; {lost} value{'s' * (lost != 1)} not stored" if lost else ""
        return f"Optuna's storage did not answer {calls.unanswered} of {calls.asked} times ({calls.error!r}){values}"


def known_steps(trial: "BaseTrial") -> set[int]:
    """Return the steps for which a trial has a value; none for one without a study, as FixedTrial."""
    study: Any = getattr(trial, "study", None)
    trials = study.get_trials(deepcopy=False) if study is not None else ()
    return {step for one in trials if one.number == trial.number for step in one.intermediate_values}


def pruned_error(why: str) -> Exception:
    """Return Optuna's TrialPruned, or raise MissingExtra without Optuna."""
    try:
        from optuna import TrialPruned
    except ImportError as error:
        raise MissingExtra("optuna", "optuna", "Prune") from error
    return TrialPruned(why)


def check_trial(trial: object) -> None:
    """Raise ArgumentError unless this is a trial.

    >>> check_trial("val/accuracy")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Prune: trial must be the one that Optuna gives the objective, not 'val/accuracy'
    """
    if not callable(getattr(trial, "report", None)) or not callable(getattr(trial, "should_prune", None)):
        raise ArgumentError(f"Prune: trial must be the one that Optuna gives the objective, not {trial!r}")


def check_direction(trial: object, metric: str, mode: Mode | None) -> None:
    """Raise ArgumentError unless the study prunes trials whose metric is bad."""
    told = mode_of(metric, mode)
    study: Any = getattr(trial, "study", None)
    if study is None:
        return  # FixedTrial and FrozenTrial: nothing prunes them
    if len(study.directions) != 1:
        raise ArgumentError(
            f"Prune: the study has {len(study.directions)} objectives, and Optuna cannot prune such a study:"
            " leave Prune out, or give create_study one direction"
        )
    wanted = "min" if study.direction.name == "MINIMIZE" else "max"
    if told not in (None, wanted):
        raise ArgumentError(
            f"Prune: the study {study.direction.name.lower()}s, but {metric!r} is good when it is"
            f" {'high' if told == 'max' else 'low'}, so the best trials would be pruned: create_study(direction="
            f'"{told}imize"), another metric, or mode="{wanted}" where the name misleads'
        )


def mode_of(metric: str, mode: Mode | None) -> Mode | None:
    """Return the given mode, or the one that the metric's name tells, or None where it tells nothing.

    >>> mode_of("val/loss", None), mode_of("val/x", None)
    ('min', None)
    """
    try:
        return infer_mode(metric, mode, owner="Prune")
    except ArgumentError:
        if mode is not None:
            raise
        return None
