"""Stop a training when a metric has stopped improving."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from epochal.callbacks.stop import Stopping, speaking_as
from epochal.conditions.patience import OWNER, NewBest, Patience
from epochal.conditions.plateau import Plateau
from epochal.conditions.presets import STOPS, Stops, given, only_with_compat, preset
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.checkpointing.view import Saved
    from epochal.conditions.better import Mode
    from epochal.core.callback import Callback
    from epochal.core.run import Run

USUAL = {"min_delta": 0.0, "relative": False, "restore_best": False, "start_from_epoch": 0}
INSTEAD = {
    "start_from_epoch": "write Stop(when=Plateau(...).after(epochs=n))",
    "check_finite": "add TerminateOnNaN(...), or write Stop(when=Plateau(...) | NonFinite(...))",
    "stopping_threshold": "write Stop(when=Plateau(...) | Target(...))",
    "divergence_threshold": "write Stop(when=Plateau(...) | Diverged(...))",
}


@final
class EarlyStopping(Stopping):
    """Stop when a metric has not improved for ``patience`` checks: ``Stop(when=Plateau(...))``.

    >>> from epochal.testing import simulate
    >>> losses = [0.50, 0.31, 0.33, 0.31, 0.40, 0.20]
    >>> result = simulate([EarlyStopping("val/loss", patience=3)], [{"val/loss": x} for x in losses])
    >>> result.stop_reason
    'EarlyStopping(val/loss): val/loss has not improved for 3 checks (best 0.31 in epoch 2)'

    metric
        What is watched; a check is a settled value, once per validation or else once per epoch.
    patience
        The number of bad checks in a row that stops; at least 1. It has no default: the libraries' own (0, 3, 5,
        10, 100) share nothing, and the right number depends on how often you validate.
    min_delta, relative
        What an improvement must exceed, in units of the metric, or as a share of the best's absolute value.
    mode
        "min" or "max"; None infers it from the metric's name, with ``ArgumentError`` when that does not tell.
    baseline
        A value to beat before anything counts as an improvement.
    restore_best
        Load the model from the best checkpoint by this metric when the training ends, stopped or completed.
        It brings a ``Checkpoint`` on the same metric with it, which keeps the best one.
    compat
        "keras", "lightning", "transformers" or "ultralytics": decide exactly as that library's own early stopping,
        which NaN, ties, missing values and float32 belong to. It takes the arguments that the library has and refuses
        others; a ``patience`` of 0, in Ultralytics None too, and a negative ``min_delta`` mean what they do there. A
        metric that nobody has measured is said in the log.
    start_from_epoch
        Keras: nothing is judged in the epochs before it (0-based).
    check_finite, stopping_threshold, divergence_threshold
        Lightning: stop at NaN and infinities (True there); at a value better than one; at a value worse than one.

    NaN is a bad check, a tie no improvement, a value not measured anew no check. A metric that nobody has measured at
    the end of the first epoch: ``MetricNotFound``. For more, such as a warm-up during which nothing counts, write
    ``Stop(when=Plateau(...).after(epochs=10))``.
    """

    def __init__(
        self,
        metric: str,
        *,
        patience: int | None,
        min_delta: float = 0.0,
        relative: bool = False,
        mode: "Mode | None" = None,
        baseline: float | None = None,
        restore_best: bool = False,
        start_from_epoch: int = 0,
        check_finite: bool | None = None,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        compat: Stops | None = None,
        name: str | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "min_delta": min_delta,
            "relative": relative,
            "mode": mode,
            "baseline": baseline,
            "restore_best": restore_best,
            "start_from_epoch": start_from_epoch,
            "check_finite": check_finite,
            "stopping_threshold": stopping_threshold,
            "divergence_threshold": divergence_threshold,
        }
        options = given(options, USUAL)
        self.plateau: Plateau | Patience
        if compat is None:
            only_with_compat(options, INSTEAD, owner=OWNER)
            options |= {"min_delta": min_delta, "relative": relative}
        else:
            preset(STOPS, compat, options, owner=OWNER)
        options.pop("restore_best", None)
        with speaking_as(OWNER, "Plateau"):
            if compat is None:
                self.plateau = Plateau(metric, patience=patience, **options)  # pyright: ignore[reportArgumentType]
            else:
                self.plateau = Patience(metric, compat=compat, patience=patience, **options)
        super().__init__(self.plateau, name=name)
        self.compat = compat
        self.restore_best = restore_best

    def __repr__(self) -> str:
        shown = repr(self.plateau).replace(type(self.plateau).__name__, "EarlyStopping", 1)
        return f"{shown[:-1]}, restore_best=True)" if self.restore_best else shown

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.plateau.metric

    @property
    def at_batches(self) -> bool:
        """False: it stops at checks."""
        return False

    def implies(self) -> "Sequence[Callback]":
        """Return the Checkpoint that keeps the best, if that is to be restored."""
        if not self.restore_best:
            return ()
        from epochal.callbacks.checkpoint import Checkpoint
        from epochal.conditions.best import Best

        if isinstance(self.plateau, Patience):  # what it finds best is not what a ranking would
            return (Checkpoint(when=NewBest(self.plateau), keep_best=0, keep_last=1),)
        mode = self.plateau.rule.mode
        return (Checkpoint(when=Best(self.metric, mode=mode), metric=self.metric, mode=mode, keep_best=1, keep_last=0),)

    def on_train_end(self, run: "Run") -> None:
        """Load the model from the best checkpoint, if that is wanted."""
        if not self.restore_best or run.end_reason not in ("completed", "stopped"):
            return
        metric = run.metrics.canonical(self.metric)
        best = self.best_checkpoint(run, metric)
        if best is None:
            log().warning("%s: there is no checkpoint with %s, so the last weights stay.", run.label(self), metric)
            return
        run.engine.restore(best)
        log().info("%s: restored the model of epoch %d, the best by %s.", run.label(self), best.manifest.epoch, metric)

    def best_checkpoint(self, run: "Run", metric: str) -> "Saved | None":
        """Return the checkpoint to load: the best by rank, or with ``compat`` the newest that was the best."""
        if not isinstance(self.plateau, Patience):
            return run.checkpoints.best(metric=metric, mode=self.plateau.rule.mode) if run.checkpoints else None
        found = [(label, getattr(one, "when", None)) for label, one in run.roster.callbacks.items()]
        keepers = {label for label, when in found if isinstance(when, NewBest) and when.patience is self.plateau}
        return next((one for one in reversed(run.checkpoints) if keepers & {*one.manifest.asked_by}), None)
