"""What a person reads when the demo is over: why it ended, what was learnt, what each callback did, where all is."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from epochal.callbacks.summary_view import duration
from epochal.checkpointing.layout import FOLDER
from epochal.demo.outcome import Outcome
from epochal.demo.plan import Plan
from epochal.demo.terminal_plot import Curve, plot
from epochal.runs.schema import FILE

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLES = ("cyan", "green", "magenta")
PICTURE, LOG = "curves.png", "ultralytics.log"


def announcement(plan: Plan, parent: Path) -> "RenderableType":
    """Return what is said before the training: what will be learnt from what, and how long that may take."""
    text = Text()
    text.append("data    ", style="bold").append(f"{plan.data}\n")
    text.append("length  ", style="bold").append(
        f"at most {plan.epochs} epochs; early stopping watches {plan.quality}\n"
    )
    text.append("files   ", style="bold").append(f"{shown(parent)}{os.sep}; nothing is downloaded")
    return Panel(text, title=f"[bold]{plan.title}[/]", title_align="left", border_style="cyan")


def render(outcome: Outcome, width: int = 100) -> "RenderableType":
    """Return the report, to be printed by a console of rich that is ``width`` characters wide."""
    parts: list[RenderableType] = [verdict(outcome), Text()]
    if len(outcome.summary.history) > 1:
        parts += [plots(outcome, width - 4), Text()]
    parts += [callbacks_table(outcome), *(Text(f"note: {note}", style="dim") for note in outcome.summary.notes), Text()]
    parts.append(files_table(outcome))
    good = outcome.summary.end_reason in ("completed", "stopped") and outcome.learnt
    frame = "green" if good else "yellow"
    report = Panel(Group(*parts), title=f"[bold]{outcome.plan.title}[/]", title_align="left", border_style=frame)
    return Group(report, Text("\nlook at it:", style="bold"), commands(outcome))


def verdict(outcome: Outcome) -> Text:
    """Tell why the training ended, how good it became, and how long it took."""
    summary, plan = outcome.summary, outcome.plan
    text = Text()
    text.append(f"{summary.end_reason} ", style="bold green" if outcome.learnt else "bold yellow")
    text.append(f"after epoch {summary.epochs} of at most {plan.epochs}, {duration(summary.seconds)}")
    text.append(f", {summary.steps} steps\n")
    if summary.stop_reason is not None:
        text.append("why      ", style="bold").append(f"{summary.stop_reason}\n")
    if outcome.best is None:
        return text.append(f"{plan.quality} was never measured", style="red")
    epoch, value = outcome.best
    text.append("learnt   ", style="bold").append(
        f"{plan.quality} {value:.3f}", style="bold green" if outcome.learnt else "red"
    )
    text.append(f" at epoch {epoch}, the best; the goal was {plan.goal:g}")
    if summary.best_fitness is not None and summary.best_epoch is not None:
        text.append(f"\nfitness  {summary.best_fitness:.3f} at epoch {summary.best_epoch + 1}, the best", style="dim")
    return text


def plots(outcome: Outcome, width: int) -> Table:
    """Draw the curves side by side, or one above the other where there is no room."""
    panels = outcome.panels()
    beside = width >= 84
    each = min((width - 4) // len(panels) - 10, 44) if beside else min(width - 12, 60)
    mark = None if outcome.best is None else float(outcome.best[0])
    grid = Table.grid(padding=(0, 3, 0, 0))
    drawn: list[Text] = []
    for title, lines in panels.items():
        curves = [Curve(name, points, style) for style, (name, points) in zip(STYLES, lines.items(), strict=False)]
        drawn.append(plot(curves, title=title, width=each, height=9, mark=mark, low=0.0 if title == "loss" else None))
        legend(drawn[-1], title, curves, mark)
    if beside:
        grid.add_row(*drawn)
    else:
        for one in drawn:
            grid.add_row(one)
    return grid


def legend(text: Text, title: str, curves: list[Curve], mark: float | None) -> None:
    """Put the names of the curves behind the title."""
    names = Text(title, style="bold")
    for curve in curves:
        names.append("   ").append(f"━ {curve.name}", style=curve.style)
    if mark is not None:
        names.append("   ").append("┇ best epoch", style="yellow dim")
    rest = text[len(title) :]
    text.plain = ""
    text.append_text(names).append_text(rest)


def callbacks_table(outcome: Outcome) -> Table:
    """Tell what each callback did and what it cost."""
    summary = outcome.summary
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("callback", no_wrap=True)
    table.add_column("what it did", ratio=1)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for label, did in outcome.deeds.items():
        _, seconds = summary.costs.get(label, (0, 0.0))
        share = f"{seconds / summary.seconds:.2%}" if summary.seconds > 0 else "-"
        table.add_row(Text(label), Text(did), short_time(seconds), share)
    return table


def short_time(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> short_time(0.00042), short_time(0.012), short_time(2)
    ('0.4 ms', '12.0 ms', '2.00 s')
    """
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def files_table(outcome: Outcome) -> Table:
    """Tell what was written where."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, path in files(outcome):
        table.add_row(label, Text(shown(path)))
    return table


def files(outcome: Outcome) -> Iterator[tuple[str, Path]]:
    """Yield what was written, by what it is; only what is really there."""
    ours = outcome.summary.dir or outcome.folder
    listed = {
        "all of it": ours / FILE,
        "checkpoints": ours / FOLDER,
        "metrics": ours / "metrics.csv",
        "TensorBoard": ours / "tensorboard",
        "MLflow": outcome.folder.parent / "mlflow.db",
        "picture": ours / PICTURE,
        "Ultralytics": outcome.folder / "weights",
        "its log": outcome.folder / LOG,
    }
    yield from ((label, path) for label, path in listed.items() if path.exists())


def commands(outcome: Outcome) -> Text:
    """Return the commands that show what was written, to be pasted into this shell, in this folder."""
    return Text(
        "\n".join(f"  {line}" for line in command_lines(outcome)), style="cyan", no_wrap=True, overflow="ignore"
    )


def command_lines(outcome: Outcome) -> list[str]:
    """Return the commands as text."""
    found = dict(files(outcome))
    lines: list[str] = []
    if "all of it" in found:
        lines.append(f"{tool('epochal')} dashboard {quoted(outcome.folder.parent)}")
    if "checkpoints" in found:
        lines.append(f"{tool('epochal')} checkpoints {quoted(found['checkpoints'].parent)} --verify")
    if "TensorBoard" in found:
        lines.append(f"{tool('tensorboard')} --logdir {quoted(outcome.folder.parent)}")
    if "MLflow" in found:
        store = f"sqlite:///{shown(found['MLflow'])}"
        lines.append(f"{tool('mlflow')} ui --backend-store-uri {shlex.quote(store)}")
    return lines


def tool(name: str) -> str:
    """Return how to call a command of this environment: by name where the shell finds that one, else by path."""
    here = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    if not here.exists() or (on_path is not None and Path(on_path).parent.resolve() == here.parent.resolve()):
        return name
    return quoted(here)


def shown(path: Path) -> str:
    """Return a path as seen from here, where it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def quoted(path: Path) -> str:
    """Return a path for a shell."""
    return shlex.quote(shown(path))
