"""What single batches measured, taken out of metrics that Keras averages over the epoch."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from epochal.core.log import log
from epochal.integrations.entry import wrap


class OwnValue:
    """A batch's own value, from the epoch's means up to it and up to the batch before; computed when it is read.

    >>> mean_of_two, of_the_first = (3.0, 64.0), (2.0, 32.0)  # each with its weight, the number of samples
    >>> float(OwnValue(mean_of_two, of_the_first))
    4.0
    """

    __slots__ = ("before", "now")

    def __init__(self, now: tuple[Any, Any], before: tuple[Any, Any]) -> None:
        self.now, self.before = now, before

    def __float__(self) -> float:
        mean, weight = map(float, self.now)
        mean_before, weight_before = map(float, self.before)
        more = weight - weight_before
        return (mean * weight - mean_before * weight_before) / more if more else mean


class EpochMeans:
    """The means that a model's metrics make of an epoch, and the share of its newest batch in them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.logs: Mapping[str, Any] = {}  # what the newest batch returned: means up to it
        self.batches = 0  # in those means
        self.before: dict[str, tuple[Any, Any]] = {}
        self.means: dict[str, Any] | None = None  # name -> the metric of Keras that is a mean
        self.many: set[str] = set()  # names of what is no number
        self.disturbed = False  # metrics were reset inside an epoch: somebody evaluates the model between two batches

    def watch(self) -> Callable[[], None]:
        """See when Keras' metrics are reset; what is returned ends that."""

        def resetting(original: Callable[[], None]) -> Callable[[], None]:
            def reset_metrics() -> None:
                original()
                self.disturbed = True

            return reset_metrics

        return wrap(self.model, "reset_metrics", resetting)

    def begin_epoch(self) -> None:
        """An epoch begins; Keras has reset its metrics."""
        self.logs, self.batches, self.before, self.disturbed = {}, 0, {}, False

    def begin_batch(self) -> None:
        """A batch begins, in an epoch whose metrics may hold by now what an evaluation has left in them."""
        if self.disturbed:
            self.disturbed = False
            self.before = {one.name: (one.result(), frozen(one.count.value)) for one in means_of(self.model)}

    def own(self, logs: Mapping[str, Any], size: int = 1, *, exact: bool = True) -> dict[str, Any]:
        """Return the newest batch's own values, and as Keras has it what is no mean; nothing is read yet.

        ``size`` is the number of its batches. To know the weight of a mean costs TensorFlow 60 us: where it need not be
        ``exact`` all batches are taken to weigh the same, as all but an epoch's last one mostly do.
        """
        if self.means is None:  # metrics are built in the first batch
            self.means = {one.name: one for one in means_of(self.model) if one.name in logs}
            self.numbers(logs)
        if self.many:
            logs = {name: value for name, value in logs.items() if name not in self.many}
        self.logs, self.batches = logs, self.batches + size
        values: dict[str, Any] = dict(logs)
        for name, metric in self.means.items():
            if name in logs:
                now = (logs[name], frozen(metric.count.value) if exact else None)
                if name in self.before:
                    values[name] = self.between(self.before[name], now, size)
                self.before[name] = now
        return values

    def between(self, before: tuple[Any, Any], now: tuple[Any, Any], size: int) -> OwnValue:
        """Return what the newest batches measured, the mean before them and behind them given."""
        if before[1] is None or now[1] is None:
            return OwnValue((now[0], self.batches), (before[0], self.batches - size))
        return OwnValue(now, before)

    def numbers(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of Keras' logs is a number; what is not is said, once."""
        many = {name for name, value in logs.items() if not is_number(value)}
        for name in sorted(many - self.many):
            log().warning(
                "Keras' %s is not one number, so it is not logged; of a metric with a value for each class, as F1Score,"
                ' average="macro" makes one.', name,
            )  # fmt: skip
        self.many |= many
        return {name: value for name, value in logs.items() if name not in many}

    def averaged(self) -> dict[str, Any]:
        """Return what Keras itself has averaged over the epoch; a step of one's own may return more than that."""
        import keras

        if type(self.model).train_step is keras.Model.train_step:
            return dict(self.logs)
        unused = {name for name, one in (self.means or {}).items() if not float(one.count.numpy())}
        known = self.model.get_metrics_result().keys() - unused
        return {name: value for name, value in self.logs.items() if name in known}

    def state_dict(self) -> dict[str, Any]:
        """Return the means up to the newest batch, and their weights."""
        logs = {name: float(value) for name, value in self.logs.items() if hasattr(value, "__float__")}
        before = {
            name: (float(mean), None if weight is None else float(weight))
            for name, (mean, weight) in self.before.items()
        }
        return {"logs": logs, "batches": self.batches, "before": before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.logs, self.batches, self.before = state["logs"], state["batches"], dict(state["before"])


def means_of(model: Any) -> Iterator[Any]:
    """Yield the metrics of a model that are means over an epoch, the loss first; a root of a mean is none."""
    import keras

    for metric in model.metrics:
        for one in [*(getattr(metric, "metrics", None) or ()), metric]:
            if isinstance(one, keras.metrics.Mean) and type(one).result is keras.metrics.Mean.result:
                yield one


def frozen(value: Any) -> Any:
    """Return what a variable holds now, which the next step does not change."""
    if type(value).__name__ == "ResourceVariable":  # in every batch: read_value takes five times as long
        from tensorflow import raw_ops

        return raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)
    if hasattr(value, "read_value"):
        return value.read_value()
    return value.detach().clone() if hasattr(value, "detach") else value


def is_number(value: Any) -> bool:
    """Say whether this is one number.

    >>> is_number(0.5), is_number("0.5"), is_number(None)
    (True, False, False)
    """
    return hasattr(value, "__float__") and prod(getattr(value, "shape", ())) == 1


def under(prefix: str, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return Keras' logs under our names.

    >>> under("val", {"loss": 0.5})
    {'val/loss': 0.5}
    """
    return {f"{prefix}/{name}": value for name, value in logs.items()}


def aliases(logs: Mapping[str, Any]) -> dict[str, str]:
    """Return Keras' names of what it measures, with ours.

    >>> aliases({"loss": 0.5})
    {'loss': 'train/loss', 'val_loss': 'val/loss'}
    """
    return {name: f"train/{name}" for name in logs} | {f"val_{name}": f"val/{name}" for name in logs}


def compiled_names(model: Any) -> list[str]:
    """Return the names of what a model is compiled to measure, as far as they stand before the first batch."""
    config = getattr(model, "_compile_config", None)
    given = [] if config is None else config.config.get("metrics") or []
    names = [one if isinstance(one, str) else getattr(one, "name", None) for one in given]
    return ["loss", *(name for name in names if isinstance(name, str))]
