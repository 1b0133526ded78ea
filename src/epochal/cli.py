"""The command `epochal`; the functions registered here are the table of commands."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epochal.commands.destinations import To
from epochal.commands.export import Kind
from epochal.commands.find import run_folder, run_name, store_folder
from epochal.core.errors import CheckpointError, EpochalError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from epochal.doctor import Finding

app = typer.Typer(
    help="One callback system for every trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, the name of one in runs/, or latest.")]


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
    from rich.markup import escape

    from epochal.doctor import findings, incomplete, machine, trainers

    console, found = _console(), findings()
    for name, value in machine().items():
        console.print(f"[bold]{name:<10}[/bold] {value}", highlight=False)
    table = _table("trainer", "package", "installed", "tested with", "", "how")
    for trainer in trainers():
        kind = trainer.kind
        how = kind.use if trainer.usable else f'pip install "epochal[{kind.extra}]"'
        for number, one in enumerate(trainer.packages):
            table.add_row("" if number else kind.title, *_version(one), "" if number else escape(how))
    console.print(table)
    table = _table("package", "installed", "tested with", "", "extras")
    for one in found:
        table.add_row(*_version(one), ", ".join(one.extras) or "always there")
    console.print(table)
    for extra, packages in incomplete(found).items():
        console.print(f'pip install "epochal\\[{extra}]"  would bring {", ".join(packages)}', highlight=False)


@app.command()
def checkpoints(
    run: Run,
    verify: Annotated[bool, typer.Option(help="Read every file again and compare checksums.")] = False,
) -> None:
    """List the checkpoints of a run: when and why they were saved, with which metrics, how large."""
    from epochal.commands.checkpoints import look, show

    folder = run_folder(run)
    found = look(store_folder(folder), read_again=verify)
    if not (found.saved or found.damaged or found.aside):
        raise CheckpointError(f"{folder} holds no committed checkpoint")
    show(found, _console())
    if found.damaged:
        raise CheckpointError(f"{len(found.damaged)} of {folder} cannot be used: {', '.join(found.damaged)}")


@app.command()
def export(
    run: Run,
    to: Annotated[Kind, typer.Option(help="A torch state_dict, a safetensors file, or a file for YOLO(...).")],
    which: Annotated[str, typer.Option(help="best (by fitness), last, or the name of a checkpoint.")] = "best",
    part: Annotated[str, typer.Option(help="The part of the state; a YOLO run's model is the averaged one.")] = "model",
    out: Annotated[Path | None, typer.Option(help="The file to write; else RUN-WHICH with its usual ending.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write the weights of a checkpoint as one file of a usual kind."""
    from epochal.commands.export import export as write
    from epochal.runs.folder import MARK

    folder = run_folder(run)
    print(write(folder, to, which=which, part=part, out=out, force=force, name=run_name(folder / MARK)))


@app.command()
def resume(
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Start a training again with the command that started it, to go on from its newest checkpoint."""
    from epochal.commands.resume import restart, start

    again = restart(run_folder(run))
    print(f"goes on from  {again.point}")
    print(f"in            {again.directory}")
    print(f"runs          {again.line}")
    if again.newer is not None:
        print(f"note          {again.newer} is newer: a script that says resume=True goes on with that one")
    if yes or typer.confirm("Run it?"):
        start(again)
    raise typer.Exit(1)


@app.command()
def sync(
    run: Run,
    to: Annotated[To | None, typer.Option(help="Where to; else where the run's loggers deliver to.")] = None,
    uri: Annotated[str | None, typer.Option(help="MLflow's address, instead of the one that was used.")] = None,
) -> None:
    """Deliver what a run recorded to MLflow, TensorBoard or W&B: all that they lack, from where they stopped."""
    from epochal.commands.sync import shown_sync

    for line in shown_sync(run_folder(run), to, uri, _console()):
        print(line)


@app.command()
def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder with the runs.")] = Path("runs"),
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="If it is taken, the next free one; 0: any.")] = 7007,
    host: Annotated[str, typer.Option(help="The address to listen at; see --remote.")] = "127.0.0.1",
    name: Annotated[list[str] | None, typer.Option(help="One more HOST:PORT under which browsers come.")] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Yes, other machines may come; needs --certfile.")] = False,
    certfile: Annotated[Path | None, typer.Option(help="A TLS certificate, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, where it is not in the same file.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="No commands, notes and tags.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Let no browser in that was let in before.")] = False,
) -> None:
    """Show the runs of a folder as a live page, and steer their trainings from it, until Ctrl-C."""
    from epochal.commands.dashboard import need_packages, start

    need_packages()
    from epochal.dashboard.server import Place

    place = Place(host, port, tuple(name or ()), certfile, keyfile, remote)
    start(folder, place, read_only=read_only, forget=forget, show=show)


@app.command()
def watch(run: Run) -> None:
    """Show a run in the terminal, live, until it ends; then its state is the exit status."""
    from epochal.commands.watch import watch as look

    try:
        status = look(run_folder(run), _console())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)


Wait = Annotated[float, typer.Option(min=0, help="At most so many seconds for the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Group = Annotated[str | None, typer.Option(help="Of this parameter group only.")]
NEGATIVE = {"ignore_unknown_options": True}  # -1 is a number, which the training refuses in words


class When(StrEnum):
    """When a training is to stop."""

    batch = "batch"
    epoch = "epoch"


@app.command()
def stop(
    run: Run,
    after: Annotated[When, typer.Option(help="After this batch, or at the end of the epoch.")] = When.batch,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Stop a running training: its last validation and its end still come."""
    _control(run, "stop", {"when": after.value}, wait, as_json)


@app.command()
def save(run: Run, wait: Wait = 10.0, as_json: AsJson = False) -> None:
    """Have a running training take a checkpoint now, and keep it for good."""
    _control(run, "save", {}, wait, as_json)


@app.command("set-lr", context_settings=NEGATIVE)
def set_lr(
    run: Run,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The learning rate, or schedule.")],
    group: Group = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Set the learning rate of a running training; its schedule runs on unseen."""
    from epochal.commands.control import rate

    _control(run, "set_lr", {"value": rate(value), "group": group}, wait, as_json)


@app.command("scale-lr", context_settings=NEGATIVE)
def scale_lr(
    run: Run,
    factor: Annotated[float, typer.Argument(metavar="FACTOR", help="It multiplies the rate, for good.")],
    group: Group = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Multiply the learning rate of a running training, whatever its schedule says."""
    _control(run, "scale_lr", {"factor": factor, "group": group}, wait, as_json)


@app.command()
def pause(run: Run, wait: Wait = 10.0, as_json: AsJson = False) -> None:
    """Let a running training wait after this batch, until `epochal continue RUN`."""
    _control(run, "pause", {}, wait, as_json)


@app.command("continue")
def continue_(run: Run, wait: Wait = 10.0, as_json: AsJson = False) -> None:
    """Let a training that was paused go on."""
    _control(run, "continue", {}, wait, as_json)


@app.command()
def validate(run: Run, wait: Wait = 600.0, as_json: AsJson = False) -> None:
    """Have a running training validate now, and print what it measured; it decides nothing by that."""
    _control(run, "validate", {}, wait, as_json)


@app.command()
def do(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="One that it declares with @run.command.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Have a running training do a command of its own script."""
    from epochal.commands.control import of_words

    _control(run, name, of_words(run_folder(run), name, arguments or ()), wait, as_json)


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


def _control(run: Path, name: str, arguments: dict[str, object], wait: float, as_json: bool) -> None:
    from epochal.commands.control import control

    raise typer.Exit(control(run_folder(run), name, arguments, wait=wait, as_json=as_json))


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _version(one: "Finding") -> tuple[str, str, str, str]:
    style = {"tested": "green", "missing": "red"}.get(one.verdict, "yellow")
    return one.package, one.installed or "-", one.tested or "-", f"[{style}]{one.verdict}[/]"


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")  # on a narrow terminal nothing is left out
    return table


if __name__ == "__main__":
    main()
