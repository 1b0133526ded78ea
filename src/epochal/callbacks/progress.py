"""Show a training while it runs, and its summary when it is over."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, final

from epochal.callbacks.summary_view import curves, duration
from epochal.conditions.arguments import check_amount
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.callbacks.screen import Screen
    from epochal.core.run import Run

DRAW_THEIR_OWN = frozenset({"ultralytics", "keras", "lightning", "pytorch_lightning", "transformers"})
BAR = 20  # characters
NEVER = float("inf")


@final
class Progress(Callback):
    """A bar in a terminal and in a notebook, one plain line per epoch elsewhere; at the end a summary.

    >>> from epochal.testing import simulate
    >>> _ = simulate([Progress(summary=False)], [{"train/loss": 0.5, "val/loss": x} for x in (0.4, 0.3)])
    epoch=1/2 step=1 seconds=... lr=0.1 train/loss=0.5 val/loss=0.4 best=1
    epoch=2/2 step=2 seconds=... lr=0.1 train/loss=0.5 val/loss=0.3 best=1

    live
        True: a bar; False: lines; None: a bar where standard output is a terminal or a notebook, but lines where the
        trainer draws a bar of its own, as Ultralytics does: two of them would overwrite each other.
    callback_times
        Measure what every callback costs and show it in the summary.
    summary
        Show the summary at the end: why the training ended, its best, curves, what failed, where its files are.
    metrics
        Which metrics an epoch's line in a terminal shows, besides the fitness; None: all. Plain lines have all.
    per_second
        How often the bar is redrawn, at most. Only then is the training loss read, so that the device is not made to
        wait in every batch.

    Plain lines are ``name=value`` pairs without control characters; epochs are counted from 1, ``best=1`` marks a best
    fitness, ``lr`` is the first group's rate, ``seconds`` the epoch's. Only rank 0 shows anything. It is guarded: a
    closed terminal does not end a training.
    """

    guarded = True

    def __init__(
        self,
        *,
        live: bool | None = None,
        callback_times: bool = False,
        summary: bool = True,
        metrics: Sequence[str] | None = None,
        per_second: float = 4.0,
        name: str | None = None,
    ) -> None:
        if live not in (None, True, False):
            raise ArgumentError(f"Progress: live must be True, False or None, not {live!r}")
        self.live, self.callback_times, self.summary = live, callback_times, summary
        self.metrics = None if metrics is None else tuple(metrics)
        self.pause = 1 / check_amount(per_second, owner="Progress", argument="per_second")
        self.name = name
        self.screen: Screen | None = None
        self.due = NEVER  # when the bar is redrawn next
        self.began = self.epoch_began = self.waits_since = 0.0
        self.began_at = 0.0  # the epochs done when this process began

    def __repr__(self) -> str:
        return f"Progress(live={self.live}, callback_times={self.callback_times}, summary={self.summary})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "screen": None}  # a terminal cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Find out where progress can be shown."""
        if run.rank:
            return
        from epochal.callbacks.screen import choose

        if self.callback_times:
            run.time_callbacks()
        home = type(run.trainer).__module__.partition(".")[0]
        self.screen = choose(self.live, trainer_draws=home in DRAW_THEIR_OWN)
        self.began = self.epoch_began = perf_counter()
        self.began_at = float(run.engine.next_epoch)
        self.due = 0.0 if self.screen.live else NEVER
        if run.engine.next_epoch:
            self.screen.line(f"resumed {run.name} after epoch {run.engine.next_epoch}, step {run.step}")

    def on_train_epoch_start(self, run: "Run") -> None:
        """Take the time."""
        self.epoch_began = perf_counter()

    def on_train_batch_end(self, run: "Run") -> None:
        """Redraw the bar, if it is time."""
        if perf_counter() >= self.due and self.screen is not None:
            self.due = perf_counter() + self.pause
            self.screen.status(status(run, self.training_speed(run), self.left(run)))

    def on_val_start(self, run: "Run") -> None:
        """Show that a validation runs."""
        if self.screen is not None and self.screen.live:
            self.screen.status(f"{epoch_of(run)}  validation")

    def on_val_batch_end(self, run: "Run") -> None:
        """Redraw the bar, if it is time."""
        if perf_counter() >= self.due and self.screen is not None:
            self.due = perf_counter() + self.pause
            shown = bar(run.val_batch + 1, run.num_val_batches)
            self.screen.status(f"{epoch_of(run)}  validation {shown}")

    def on_pause(self, run: "Run") -> None:
        """Say that the training waits."""
        self.waits_since = perf_counter()
        if self.screen is not None:
            self.screen.status(f"{epoch_of(run)}  paused after step {run.step}")

    def on_continue(self, run: "Run") -> None:
        """Leave the time of a pause out of speed and time left."""
        waited = perf_counter() - self.waits_since
        self.began += waited
        self.epoch_began += waited

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Write the epoch's line."""
        if self.screen is not None:
            seconds = perf_counter() - self.epoch_began
            live = self.screen.live
            self.screen.line(readable_line(run, seconds, self.metrics) if live else plain_line(run, seconds))

    def teardown(self, run: "Run") -> None:
        """Take the bar away; the summary is shown when all other callbacks are done too."""
        screen, self.screen, self.due = self.screen, None, NEVER
        if screen is None:
            return
        screen.close()
        if self.summary:
            run.engine.when_over.append(lambda: screen.summary(run.past[-1]))

    def training_speed(self, run: "Run") -> float:
        """Return the batches per second of this epoch."""
        return (run.batch + 1) / max(perf_counter() - self.epoch_began, 1e-9)

    def left(self, run: "Run") -> float | None:
        """Return how many seconds are left, or None if nobody knows."""
        if not run.num_epochs or not run.num_batches:
            return None
        done = run.epoch + (run.batch + 1) / run.num_batches
        each = (perf_counter() - self.began) / max(done - self.began_at, 1e-9)
        return max(run.num_epochs - done, 0.0) * each


def epoch_of(run: "Run") -> str:
    """Return which epoch this is, counted from 1."""
    return f"epoch {run.epoch + 1}" + (f"/{run.num_epochs}" if run.num_epochs else "")


def bar(done: int, total: int | None) -> str:
    """Return a bar and its numbers, only the number where the total is unknown.

    >>> bar(5, 20), bar(5, None)
    ('━━━━━─────────────── 5/20', '5')
    """
    if not total:
        return str(done)
    filled = min(BAR * done // total, BAR)
    return f"{'━' * filled}{'─' * (BAR - filled)} {done}/{total}"


def status(run: "Run", speed: float, left: float | None) -> str:
    """Return the line that changes: epoch, bar, newest losses, speed, time left, rate."""
    parts = [f"{epoch_of(run)}  {bar(run.batch + 1, run.num_batches)}"]
    names = ["train/loss"] if "train/loss" in run.metrics else [n for n in run.metrics if n.startswith("train/")][:3]
    parts.extend(f"{name} {run.metrics[name]:.4g}" for name in names)
    parts.append(f"{speed:.3g} it/s")
    if left is not None:
        parts.append(f"{duration(left)} left")
    rates = list(run.lr.values())
    if rates:
        parts.append(f"lr {rates[0]:.3g}")
    return "  ".join(parts)


def epoch_values(run: "Run") -> Mapping[str, float]:
    """Return what this epoch measured, without the rates."""
    return {name: value for name, value in run.engine.history[-1].items() if not name.startswith("lr/")}


def is_best(run: "Run") -> bool:
    """Say whether this epoch has the best fitness so far."""
    return run.engine.fitness_rule.best_epoch == run.epoch


def plain_line(run: "Run", seconds: float) -> str:
    """Return the epoch as ``name=value`` pairs."""
    rates = list(run.lr.values())
    pairs = {"epoch": f"{run.epoch + 1}" + (f"/{run.num_epochs}" if run.num_epochs else ""), "step": str(run.step)}
    pairs["seconds"] = f"{seconds:.1f}"
    if rates:
        pairs["lr"] = f"{rates[0]:.4g}"
    pairs.update((name.replace(" ", "_"), f"{value:.6g}") for name, value in epoch_values(run).items())
    if is_best(run):
        pairs["best"] = "1"
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def readable_line(run: "Run", seconds: float, metrics: Sequence[str] | None = None) -> str:
    """Return the epoch for a person, what says most first; marked where the fitness is the best so far."""
    found = epoch_values(run)
    if metrics is None:
        metrics = [name for name in (*(curve.name for curve in curves([found])), *found) if name != "fitness"]
    values = [f"{name} {found[name]:.4g}" for name in dict.fromkeys(metrics) if name in found]
    if run.fitness is not None:
        values.insert(0, f"fitness {run.fitness:.4g}{' *best*' * is_best(run)}")
    return "  ".join([epoch_of(run), duration(seconds), *values])
