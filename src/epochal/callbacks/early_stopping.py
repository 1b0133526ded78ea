"""Stop a training when a metric has stopped improving."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from epochal.callbacks.stop import Stopping, speaking_as
from epochal.conditions.plateau import Plateau
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.conditions.better import Mode
    from epochal.core.callback import Callback
    from epochal.core.run import Run


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

    NaN is a bad check, a tie no improvement, a value not measured anew no check. A metric that nobody has measured at
    the end of the first epoch: ``MetricNotFound``. For more, such as a warm-up during which nothing counts, write
    ``Stop(when=Plateau(...).after(epochs=10))``.
    """

    def __init__(
        self,
        metric: str,
        *,
        patience: int,
        min_delta: float = 0.0,
        relative: bool = False,
        mode: "Mode | None" = None,
        baseline: float | None = None,
        restore_best: bool = False,
        name: str | None = None,
    ) -> None:
        with speaking_as("EarlyStopping", "Plateau"):
            self.plateau = Plateau(
                metric, patience=patience, min_delta=min_delta, relative=relative, mode=mode, baseline=baseline
            )
        super().__init__(self.plateau, name=name)
        self.restore_best = restore_best

    def __repr__(self) -> str:
        shown = repr(self.plateau).replace("Plateau", "EarlyStopping", 1)
        return f"{shown[:-1]}, restore_best=True)" if self.restore_best else shown

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.plateau.metric

    def implies(self) -> "Sequence[Callback]":
        """Return the Checkpoint that keeps the best, if that is to be restored."""
        if not self.restore_best:
            return ()
        from epochal.callbacks.checkpoint import Checkpoint
        from epochal.conditions.best import Best

        mode = self.plateau.rule.mode
        return (Checkpoint(when=Best(self.metric, mode=mode), metric=self.metric, mode=mode, keep_best=1, keep_last=0),)

    def on_train_end(self, run: "Run") -> None:
        """Load the model from the best checkpoint, if that is wanted."""
        if not self.restore_best or run.end_reason not in ("completed", "stopped"):
            return
        metric = run.metrics.canonical(self.metric)
        best = run.checkpoints.best(metric=metric, mode=self.plateau.rule.mode) if run.checkpoints else None
        if best is None:
            log().warning("%s: there is no checkpoint with %s, so the last weights stay.", run.label(self), metric)
            return
        run.engine.restore(best)
        log().info("%s: restored the model of epoch %d, the best by %s.", run.label(self), best.manifest.epoch, metric)
