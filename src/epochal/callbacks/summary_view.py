"""What a finished training looks like to a person: why it ended, its best, small curves, what failed, what it cost."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from epochal.conditions.better import Mode, infer_mode
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from epochal.core.summary import Summary

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#%"
CURVES = 4
WIDTH = 48  # characters of a curve
HEIGHT = 3  # lines of a curve on a screen


class Curve(NamedTuple):
    """One metric over the epochs; None where an epoch did not measure it."""

    name: str
    values: tuple[float | None, ...]

    def caption(self) -> str:
        """Say where it began, where it ended and, when the name tells which way is good, its best.

        >>> Curve("val/loss", (0.9, 0.4, 0.5)).caption()
        '0.9 -> 0.5, best 0.4 in epoch 2'
        """
        numbers = [value for value in self.values if value is not None]
        text = f"{numbers[0]:.4g} -> {numbers[-1]:.4g}" if len(numbers) > 1 else f"{numbers[0]:.4g}"
        finite = [value for value in numbers if isfinite(value)]
        mode = known_mode(self.name)
        if mode is None or len(finite) < 2:
            return text
        best = min(finite) if mode == "min" else max(finite)
        return f"{text}, best {best:.4g} in epoch {self.values.index(best) + 1}"


def known_mode(name: str) -> Mode | None:
    """Return which way a metric is good, or None if its name does not tell."""
    try:
        return infer_mode(name)
    except ArgumentError:
        return None


def curves(history: Sequence[Mapping[str, float]], limit: int = CURVES) -> list[Curve]:
    """Return the metrics worth a curve: the losses first, then the fitness, then what else is better when high.

    >>> [curve.name for curve in curves([{"epoch_time": 1.0, "val/acc": 0.5, "train/loss": 2.0}])]
    ['train/loss', 'val/acc']
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    total = [name for name in ("train/loss", "val/loss") if name in names]
    losses = total or [name for name in names if known_mode(name) == "min"][:2]
    highs = [name for name in names if name != "fitness" and known_mode(name) == "max"]
    highs.sort(key=lambda name: not any(word in name.lower() for word in ("map", "acc")))  # they say most
    wanted = [*losses, *(["fitness"] if "fitness" in names else []), *highs][:limit]
    return [Curve(name, tuple(row.get(name) for row in history)) for name in wanted]


def draw(values: Sequence[float | None], *, width: int = WIDTH, height: int = 1, levels: str = BLOCKS) -> list[str]:
    """Draw a curve as ``height`` lines of block characters, at most ``width`` long; what is no number is left blank.

    >>> draw([1.0, 2.0, None, 3.0])
    ['▁▅ █']
    """
    shown = thinned(values, width)
    finite = [value for value in shown if value is not None and isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    spread = high / 2 - low / 2  # halves, since the whole may be beyond the largest float
    top = len(levels) - 1
    filled: list[int] = []
    for value in shown:
        if value is None or not isfinite(value):
            filled.append(0)
        else:
            filled.append(1 + round((value / 2 - low / 2) / spread * (height * top - 1)) if spread > 0 else 1)
    return ["".join(levels[min(max(one - row * top, 0), top)] for one in filled) for row in reversed(range(height))]


def thinned(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return at most ``width`` of the values, evenly spread, the first and the last among them."""
    if len(values) <= width:
        return list(values)
    return [values[round(index * (len(values) - 1) / (width - 1))] for index in range(width)]


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> duration(0.25), duration(75), duration(3725)
    ('0.2 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "epoch"), counted(3, "epoch")
    ('1 epoch', '3 epochs')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def facts(summary: "Summary") -> list[tuple[str, str]]:
    """Return label and text of everything there is to say, but the curves and the costs."""
    done = f"{counted(summary.epochs, 'epoch')}, {counted(summary.steps, 'step')}, {duration(summary.seconds)}"
    rows = [(summary.end_reason or "running", f"after {done}")]
    if summary.stop_reason:
        rows.append(("why", summary.stop_reason))
    if summary.best_fitness is not None and summary.best_epoch is not None:
        where = f"in epoch {summary.best_epoch + 1} (index {summary.best_epoch})"
        rows.append(("best", f"fitness {summary.best_fitness:.4g} {where}"))
    if summary.checkpoints or summary.checkpoint_errors:
        errors = f", {summary.checkpoint_errors} could not be written" * bool(summary.checkpoint_errors)
        rows.append(("checkpoints", f"{summary.checkpoints}{errors}"))
    if summary.dir is not None and summary.dir.is_dir():
        rows.append(("files", str(summary.dir)))
    for label, count in summary.failures.items():
        off = ", switched off" if label in summary.switched_off else ""
        rows.append(("failed", f"{label}: {counted(count, 'time')}{off}"))
    rows.extend(("note", note) for note in summary.notes)
    return rows


def costs(summary: "Summary") -> list[tuple[str, str, str, str]]:
    """Return name, calls, seconds in all and microseconds per call of every callback, the dearest first."""
    dearest = sorted(summary.costs.items(), key=lambda item: -item[1][1])
    return [(label, str(n), f"{spent:.3f}", f"{1e6 * spent / n:.1f}") for label, (n, spent) in dearest if n]


def as_text(summary: "Summary", *, ascii_only: bool = False) -> str:
    """Return the summary as plain lines without any control character, for log files and pipes.

    >>> from epochal.testing import simulate
    >>> run = simulate([], [{"val/loss": x} for x in (0.5, 0.25, 0.4)]).run
    >>> print(as_text(run.past[-1]))
    completed    after 3 epochs, 3 steps, ... s
    best         fitness -0.25 in epoch 2 (index 1)
    val/loss     █▁▅  0.5 -> 0.4, best 0.25 in epoch 2
    """
    levels = ASCII if ascii_only else BLOCKS
    rows = facts(summary)
    for curve in curves(summary.history):
        rows.append((curve.name, f"{draw(curve.values, levels=levels)[0]}  {curve.caption()}"))
    for label, calls, spent, each in costs(summary):
        rows.append(("cost", f"{label}: {calls} calls, {spent} s, {each} us each"))
    wide = max(12, *(len(label) for label, _ in rows))
    return "\n".join(f"{label:<{wide}} {text}" for label, text in rows)


def render(summary: "Summary") -> "RenderableType":
    """Return the summary for a screen, to be printed by a console of rich."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in facts(summary):
        grid.add_row(Text(label, style=STYLES.get(label, "")), Text(text))
    parts: list[RenderableType] = [grid]
    for curve in curves(summary.history):
        grid.add_row(Text(curve.name), Text(curve.caption(), style="dim"))
        if len({value for value in curve.values if value is not None}) > 1:
            grid.add_row("", Text("\n".join(draw(curve.values, height=HEIGHT)), style="cyan", no_wrap=True))
    if summary.costs:
        table = Table("callback", box=None, header_style="dim", padding=(0, 2, 0, 0))
        for head in ("calls", "seconds", "us per call"):
            table.add_column(head, justify="right")
        for label, *numbers in costs(summary):
            table.add_row(Text(label), *numbers)
        parts += [Text(), table]
    return Panel(Group(*parts), title=Text(summary.name), title_align="left", border_style="dim", expand=False)


STYLES = {
    "completed": "green",
    "stopped": "green",
    "exception": "red",
    "interrupted": "yellow",
    "preempted": "yellow",
    "failed": "red",
}
