"""How fast a training is, how long it waits for data, and when it will be done."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final

from epochal.callbacks.summary_view import duration
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.callback import Callback
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run


class Work(NamedTuple):
    """What was done since some moment: batches, samples in them, seconds waiting for them and seconds in them.

    >>> Work(batches=4, samples=32, waited=0.5, worked=1.5).rates()["throughput/samples_per_second"]
    16.0
    """

    batches: int = 0
    samples: float = 0
    waited: float = 0.0
    worked: float = 0.0

    @property
    def seconds(self) -> float:
        """The time of training: validations and saved checkpoints are not in it."""
        return self.waited + self.worked

    def since(self, before: "Work") -> "Work":
        """Return what was done since a moment before."""
        return Work(
            self.batches - before.batches,
            self.samples - before.samples,
            self.waited - before.waited,
            self.worked - before.worked,
        )

    def rates(self) -> dict[str, float]:
        """Return what is logged of it; no samples where nobody could count them."""
        seconds = max(self.seconds, 1e-9)
        samples = {"throughput/samples_per_second": self.samples / seconds} if self.samples else {}
        return {
            **samples,
            "throughput/batches_per_second": self.batches / seconds,
            "throughput/data_wait": self.waited / seconds,
            "throughput/data_wait_seconds": self.waited,
        }


@final
class Throughput(Callback):
    """Measure samples and batches per second, the time waiting for data, and how long the training still takes.

    >>> from epochal.testing import simulate
    >>> clock = iter(range(100))  # at each look a second later
    >>> run = simulate([Throughput(samples=8, clock=lambda: next(clock))], [{}, {}], batches=4).run
    >>> [run.metrics[f"throughput/{name}"] for name in ("samples_per_second", "data_wait", "eta_seconds")]
    [4.0, 0.5, 0.0]

    samples
        How many samples a batch has: a number, or a function of the batch (``run.data``). None looks for itself: at the
        ``img`` or the first value of a mapping, the first dimension of an array, the length of a list of samples.
    every
        Log also after each n-th batch, what was measured since the last time; None: once per epoch.
    clock
        Seconds, as ``time.perf_counter`` gives them.

    Logged are ``throughput/samples_per_second``, ``throughput/batches_per_second``, ``throughput/data_wait`` (the share
    of the training time between the end of a batch and the start of the next, 0 to 1), ``throughput/data_wait_seconds``
    and ``throughput/eta_seconds``; each epoch also in words at level INFO. Validations and saved checkpoints are no
    training time, but ``eta_seconds``, also an attribute, counts them as they were so far in this process. It is None
    while the number of epochs or batches is unknown, and knows of no early stop. A pause does not count. It is this
    process's clock and its samples: a GPU that is still busy is not waited for. Put it last, so that what other
    callbacks do at a batch's end is not taken for waiting. Two reads of the clock per batch.
    """

    guarded = True

    def __init__(
        self,
        *,
        samples: float | Callable[[Any], float] | None = None,
        every: int | None = None,
        clock: Callable[[], float] = perf_counter,
        name: str | None = None,
    ) -> None:
        if samples is not None and not callable(samples):
            check_amount(samples, owner="Throughput", argument="samples")
        if every is not None:
            check_count(every, owner="Throughput", argument="every")
        self.samples, self.every, self.clock = samples, every, clock
        if name is not None:
            self.name = name
        if (
            every is not None
        ):  # after the batch: not a batch's value to be averaged; each safe point costs a microsecond
            self.at_safe_point = self.log_window
        self.begin(0.0)

    def __repr__(self) -> str:
        return f"Throughput(samples={self.samples!r}, every={self.every})"

    def begin(self, now: float) -> None:
        """Forget everything measured: a training begins in this process."""
        self.began = self.batch_began = self.batch_ended = self.paused = now
        self.batches, self.counted, self.waited, self.worked = 0, 0.0, 0.0, 0.0
        self.before_epoch = self.before_window = Work()
        self.epochs = 0  # finished in this process
        self.pauses = 0.0  # seconds between the batches of two epochs, all together
        self.usual: int | None = None  # batches of the epoch before
        self.eta_seconds: float | None = None

    def on_train_start(self, run: "Run") -> None:
        """Start the clock."""
        self.begin(self.clock())

    def on_train_epoch_start(self, run: "Run") -> None:
        """Begin an epoch's measurement; its first batch is waited for from here on."""
        self.batch_ended = self.clock()
        self.before_epoch = self.before_window = self.done()

    def on_train_batch_start(self, run: "Run") -> None:
        """Take the time that was waited for the batch."""
        self.batch_began = now = self.clock()
        self.waited += now - self.batch_ended

    def on_train_batch_end(self, run: "Run") -> None:
        """Take the batch's time, and count its samples."""
        self.batch_ended = now = self.clock()
        self.worked += now - self.batch_began
        self.batches += 1
        samples = self.samples
        if samples is None:
            self.counted += count_samples(run.data) or 0
        else:
            self.counted += samples(run.data) if callable(samples) else samples

    def log_window(self, run: "Run", now: "Moment") -> None:
        """Log what was measured since the last time, at each n-th batch."""
        if self.every is None or now.ended != "batch" or self.batches % self.every:
            return
        done = self.done()
        self.eta_seconds = self.eta(run, ended=False)
        self.tell(run, done.since(self.before_window))
        self.before_window = done

    def on_model_save(self, run: "Run") -> None:
        """Leave a checkpoint's time out: nobody waits for data then."""
        self.batch_ended = self.clock()

    def on_val_end(self, run: "Run") -> None:
        """Leave a validation's time out."""
        self.batch_ended = self.clock()

    def on_pause(self, run: "Run") -> None:
        """Stop the clock: the training waits because somebody said so."""
        self.paused = self.clock()

    def on_continue(self, run: "Run") -> None:
        """Leave the time of a pause out, everywhere."""
        waited = self.clock() - self.paused
        self.batch_ended += waited
        self.began += waited

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Log the epoch."""
        work = self.done().since(self.before_epoch)
        if not work.batches:
            return
        self.epochs, self.usual = self.epochs + 1, work.batches
        self.pauses = self.clock() - self.began - self.done().seconds
        self.eta_seconds = self.eta(run, ended=True)
        self.tell(run, work)
        log().info("%s: epoch %d: %s", run.label(self), run.epoch + 1, in_words(work, self.eta_seconds))

    def done(self) -> Work:
        """Return all the work of this process so far."""
        return Work(self.batches, self.counted, self.waited, self.worked)

    def tell(self, run: "Run", work: Work) -> None:
        """Log the rates of some work, and the time left."""
        eta = {} if self.eta_seconds is None else {"throughput/eta_seconds": self.eta_seconds}
        run.log({**work.rates(), **eta})

    def eta(self, run: "Run", *, ended: bool) -> float | None:
        """Return the seconds left, by the speed of this process; ``ended``: this epoch is over."""
        per_epoch = run.num_batches or self.usual
        if run.num_epochs is None or per_epoch is None:
            return None
        epochs = max(run.num_epochs - run.epoch - 1, 0)
        here = 0 if ended else max(per_epoch - run.batch - 1, 0)
        each = self.done().seconds / self.batches
        pause = self.pauses / self.epochs if self.epochs else 0.0
        return (epochs * per_epoch + here) * each + (epochs + (not ended)) * pause


def in_words(work: Work, left: float | None) -> str:
    """Return the work as a line of a log.

    >>> in_words(Work(batches=4, samples=32, waited=0.5, worked=1.5), 75.0)
    '16 samples/s, 2 batches/s, 25 % of the time waiting for data, 1 min 15 s left'
    """
    seconds = max(work.seconds, 1e-9)
    parts = [f"{rate(work.samples / seconds)} samples/s"] if work.samples else []
    parts += [f"{rate(work.batches / seconds)} batches/s", f"{work.waited / seconds:.0%} of the time waiting for data"]
    parts += [] if left is None else [f"{duration(left)} left"]
    return ", ".join(parts).replace("%", " %")


def rate(per_second: float) -> str:
    """Return a rate in three digits or more, never as a power of ten.

    >>> rate(19754.2), rate(0.6064), rate(16)
    ('19,754', '0.606', '16')
    """
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def count_samples(data: Any) -> int | None:
    """Return how many samples a batch has, or None if that cannot be seen.

    >>> import numpy
    >>> x, y = numpy.zeros((8, 3, 32, 32)), numpy.zeros(8)
    >>> count_samples((x, y)), count_samples({"img": x}), count_samples([{"image": x[0]}, {"image": x[1]}])
    (8, 8, 2)
    >>> count_samples(([x[0], x[1]], ["cat", "dog"])), count_samples(None)
    (2, None)
    """
    if isinstance(data, (list, tuple)):
        first = cast("Any", data[0]) if data else None
        shape = getattr(first, "shape", None)
        if shape:  # inputs and targets, side by side
            return shape[0]
        return len(first if isinstance(first, (list, tuple)) else data)
    if isinstance(data, Mapping):
        batch = cast("Mapping[str, Any]", data)
        data = batch["img"] if "img" in batch else next(iter(batch.values()), None)
    shape = getattr(data, "shape", None)
    if shape is not None:
        return shape[0] if shape else None
    return len(data) if hasattr(data, "__len__") else None
