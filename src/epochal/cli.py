"""The command `epochal`; the functions registered here are the table of commands."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epochal.core.errors import CheckpointError, EpochalError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from epochal.checkpointing.store import SavedCheckpoint

app = typer.Typer(
    help="One callback system for every trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Task(StrEnum):
    """What the demo's YOLO learns."""

    detect = "detect"
    segment = "segment"


class Trainer(StrEnum):
    """What the demo trains with."""

    yolo = "yolo"
    pytorch = "pytorch"


@app.command()
def demo(
    task: Annotated[Task, typer.Option(help="What YOLO learns: boxes, or boxes and masks.")] = Task.detect,
    trainer: Annotated[Trainer, typer.Option(help="YOLO26n, or a classifier in a plain PyTorch loop.")] = Trainer.yolo,
    epochs: Annotated[int | None, typer.Option(help="At most so many; then it need not reach its goal.")] = None,
) -> None:
    """Train on real handwritten digits: early stopping, checkpoints, TensorBoard, MLflow, in under 4 minutes."""
    from epochal.demo.main import run_demo

    try:
        run_demo(task.value, trainer.value, epochs=epochs)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the report is printed; a shell's number for Ctrl-C


@app.command()
def doctor() -> None:
    """Tell what is installed here, whether that version was tested, and what would bring the rest."""
    from epochal.doctor import findings, incomplete, machine

    console, found = _console(), findings()
    for name, value in machine().items():
        console.print(f"[bold]{name:<10}[/bold] {value}", highlight=False)
    style = {"tested": "green", "another version": "yellow", "missing": "red"}
    table = _table("package", "installed", "tested with", "", "extras")
    for one in found:
        mark = f"[{style[one.verdict]}]{one.verdict}[/]"
        extras = ", ".join(one.extras) or "always there"
        table.add_row(one.package, one.installed or "-", one.tested or "-", mark, extras)
    console.print(table)
    for extra, packages in incomplete(found).items():
        console.print(f'pip install "epochal\\[{extra}]"  would bring {", ".join(packages)}', highlight=False)


@app.command()
def checkpoints(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, the name of one in runs/, or latest.")],
    verify: Annotated[bool, typer.Option(help="Read every file again and compare checksums.")] = False,
) -> None:
    """List the checkpoints of a run: when and why they were saved, with which metrics, how large."""
    from epochal.checkpointing.layout import FOLDER
    from epochal.checkpointing.listing import read_listing

    folder = _run_folder(run)
    listing = read_listing(folder / FOLDER if (folder / FOLDER).is_dir() else folder)
    damaged = {path.name: str(verdict) for path, verdict in listing.damaged.items()}
    if verify:
        damaged |= {one.path.name: str(verdict) for one in listing.saved if not (verdict := one.verify())}
    if not (listing.saved or damaged):
        raise CheckpointError(f"{folder} holds no committed checkpoint")
    _print_checkpoints(listing.saved, damaged, verify)
    if damaged:
        told = "\n".join(f"  {name}: {why}" for name, why in damaged.items())
        raise CheckpointError(f"{len(damaged)} of {folder} cannot be used\n{told}")


@app.command()
def events() -> None:
    """Print the events and the grammar that every training keeps."""
    from epochal.core.events import EVENTS, grammar_text

    for event in EVENTS:
        print(f"{event.name:<27} {event.level:<11} {event.meaning}")
    print(f"\n{grammar_text()}")


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 2."""
    try:
        app()
    except EpochalError as error:
        print(f"epochal: {error}", file=sys.stderr)
        sys.exit(2)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def _run_folder(run: Path) -> Path:
    """Return the folder of a run that is told by its path, by its name below `runs`, or as `latest`."""
    if run.is_dir():
        return run
    marks = sorted(Path("runs").rglob("run.json"), key=lambda mark: mark.stat().st_mtime)
    if str(run) == "latest" and marks:
        return marks[-1].parent
    known = {name: mark.parent for mark in marks for name in (mark.parent.name, run_name(mark))}
    if run.name in known:
        return known[run.name]
    guess = nearest(run.name, known)
    hint = f"; did you mean {guess}?" if guess else f" among the {len(known)} in runs/"
    raise CheckpointError(f"there is no run {run}: neither a folder here nor a name{hint}")


def run_name(mark: Path) -> str:
    """Return a run's name as its mark tells it: the folder of a YOLO run is always called epochal."""
    import json

    try:
        return str(json.loads(mark.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return mark.parent.name


def _print_checkpoints(saved: "list[SavedCheckpoint]", damaged: dict[str, str], verify: bool) -> None:
    """Print two lines for each: which, how good, how large; and under it why it was saved, with which metrics."""
    from rich.table import Table

    table = Table.grid(padding=(0, 3))
    for one in saved:
        manifest = one.manifest
        fitness = "" if manifest.fitness is None else f"fitness {manifest.fitness:.4g}"
        state = "[red]damaged[/]" if one.path.name in damaged else "[green]verified[/]" if verify else "committed"
        table.add_row(f"[bold]{manifest.name}[/]", fitness, f"{manifest.size / 1e6:.2f} MB", state)
    for name in sorted(damaged.keys() - {one.path.name for one in saved}):
        table.add_row(f"[bold]{name}[/]", "", "", "[red]damaged[/]")
    console = _console()
    console.print(table)
    for one in saved:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(one.manifest.metrics.items()))
        console.print(f"\n[bold]{one.manifest.name}[/]: {one.manifest.reason or 'asked for'}", highlight=False)
        console.print(f"  {metrics or 'no metrics'}", style="dim", highlight=False)
        if not one.manifest.resume_point:
            console.print("  for export and rescue, not to resume from", style="dim", highlight=False)


if __name__ == "__main__":
    main()
