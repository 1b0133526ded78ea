"""What a LightningModule measures, logged to the run at the right moments: each value once, and never an old one."""

from collections.abc import Mapping
from typing import Any

from epochal.core.engine import Engine
from epochal.integrations.lightning_names import canonical, fresh, in_batch, of_epoch


class Values:
    """Logs the values of one fit; ``train/loss`` is what ``training_step`` returned, where it returns a loss."""

    def __init__(self, engine: Engine, trainer: Any) -> None:
        self.engine, self.trainer = engine, trainer
        self.before_epoch: Mapping[str, Any] = {}  # the trainer's metrics, which keep what is old
        self.before_validation: Mapping[str, Any] = {}
        self.seen: dict[str, Any] = {}  # the newest batch values
        self.sums: dict[str, Any] = {}  # what a checkpoint inside an epoch knows of its batches
        self.meters: list[Any] = []  # the module's torchmetrics.Metric objects
        self.loss: Any = None
        self.logged = False  # the loss of this batch

    @property
    def results(self) -> Any:
        """What the module logged in this epoch's training."""
        return self.trainer.fit_loop.epoch_loop._results

    def meet(self, module: Any) -> None:
        """Know a module's ``torchmetrics.Metric`` objects, by what only they have."""
        self.meters = [one for one in module.modules() if hasattr(one, "_update_count")]

    @property
    def can_go_on(self) -> bool:
        """Whether all that is summed up for the epoch can be saved: a torchmetrics.Metric keeps its sums to itself.

        Of those that are logged batch by batch only, nobody wants the sums.
        """
        of_batches = {id(one.value) for one in self.results.values() if not (one.is_tensor or one.meta.on_epoch)}
        return not any(one._update_count and id(one) not in of_batches for one in self.meters)

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the trainer's metrics, and ``inside`` an epoch what was summed up in it."""
        metrics = {name: value for name, value in self.trainer.callback_metrics.items() if hasattr(value, "detach")}
        summed = {key: one for key, one in self.results.items() if inside and one.meta.on_epoch and one.is_tensor}
        return {"metrics": metrics, "sums": {key: sums(one) for key, one in summed.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back; a sum waits until the module logs its metric again."""
        self.trainer._logger_connector._callback_metrics.update(state["metrics"])
        self.sums = dict(state["sums"])

    def begin_epoch(self) -> None:
        """An epoch begins."""
        self.before_epoch = dict(self.trainer.callback_metrics)

    def begin_batch(self) -> None:
        """A batch begins."""
        self.loss, self.logged = None, False

    def take_loss(self, output: Any) -> None:
        """Keep the loss as the module returned it: Lightning divides it by the size of the accumulation group."""
        loss: Any = output.get("loss") if isinstance(output, Mapping) else output
        self.loss = loss.detach() if hasattr(loss, "detach") and loss.numel() == 1 else None

    def log_loss(self) -> None:
        """Log the loss of this batch, once: before its step where somebody looks at that, else at its end."""
        if self.loss is not None and not self.logged:
            self.logged = True
            self.engine.log({"train/loss": self.loss})

    def end_batch(self) -> None:
        """Log the loss of this batch, and what the module logged in it."""
        self.log_loss()
        for key in [key for key in self.sums if key in self.results]:
            add(self.results[key], self.sums.pop(key))
        values = in_batch(self.results, self.seen)
        if self.logged:
            values = {name: value for name, value in values.items() if canonical(name) != "train/loss"}
        if values:
            self.engine.log(values)

    def end_batches(self) -> None:
        """Log what the module logged for the epoch as a whole: it is known as soon as the batches are done.

        In an epoch that was gone on with, it may not have logged again what it did before, at the epoch's start say.
        """
        left, self.sums = self.sums, {}
        before = {key.partition(".")[2]: of_sums(one) for key, one in left.items()}
        self.log_new({**before, **of_epoch(self.results)})

    def begin_validation(self) -> None:
        """A validation begins."""
        self.before_validation = dict(self.trainer.callback_metrics)

    def end_validation(self) -> None:
        """Log what the validation measured."""
        self.engine.log(fresh(self.trainer.callback_metrics, self.before_validation))

    def end_epoch(self, rates: Mapping[str, float]) -> None:
        """Log what is new since the epoch's batches and validation, and the rates."""
        self.log_new(fresh(self.trainer.callback_metrics, self.before_epoch))
        self.engine.log({f"lr/{name}": rate for name, rate in rates.items()})

    def log_new(self, values: Mapping[str, Any]) -> None:
        """Log what was not logged in this epoch."""
        metrics = self.engine.metrics
        known = {name: metrics.entries.get(metrics.canonical(name)) for name in values}
        self.engine.log({name: values[name] for name, entry in known.items() if entry is None or not entry.in_epoch})


def sums(metric: Any) -> list[Any]:
    """Return what a metric of Lightning's has summed up: the sum, and of how many samples if it is for a mean."""
    return [metric.value, getattr(metric, "cumulated_batch_size", None)]


def of_sums(before: list[Any]) -> Any:
    """Return what a metric comes to that is not logged any more.

    >>> of_sums([6.0, 3]), of_sums([6.0, None])
    (2.0, 6.0)
    """
    value, samples = before
    return value if samples is None else value / samples


def add(metric: Any, before: list[Any]) -> None:
    """Let a metric that was begun anew go on with what was summed up before."""
    value, samples = before
    if metric.meta.is_max_reduction or metric.meta.is_min_reduction:
        metric.value = metric.meta.reduce_fx(value, metric.value)
    else:
        metric.value = value + metric.value
    if samples is not None:
        metric.cumulated_batch_size = samples + metric.cumulated_batch_size
    metric._computed = None
