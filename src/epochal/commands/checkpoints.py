"""`epochal checkpoints`: which there are, when and why they were saved, how good and how large they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from epochal.checkpointing.layout import BAD, LEFT, Manifest
from epochal.checkpointing.listing import read_listing
from epochal.checkpointing.retention import ranked
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.verify import verify, verify_commit

HEAD = f"{'epoch':>6} {'batch':>7} {'step':>9} {'size':>10} {'of it new':>10}   state"


@dataclass(frozen=True)
class Found:
    """What lies in a folder of checkpoints: the usable ones, and by their names what is wrong with the others.

    ``aside``: what an earlier resume set aside, and why; nothing is wrong with the run for that.
    """

    saved: Sequence[SavedCheckpoint]
    damaged: dict[str, str]
    aside: dict[str, str]
    verified: bool


def look(directory: Path, *, read_again: bool) -> Found:
    """Look at all checkpoints, at every byte of them if told so; nothing is changed.

    >>> look(Path("nowhere"), read_again=True)
    Found(saved=[], damaged={}, aside={}, verified=True)
    """
    listing = read_listing(directory)
    damaged = {path.name: str(verdict) for path, verdict in listing.damaged.items()}
    if read_again:
        damaged |= {one.path.name: str(verdict) for one in listing.saved if not (verdict := one.verify())}
    saved = [one for one in listing.saved if one.path.name not in damaged]
    hidden = sorted(directory.glob(".*")) if directory.is_dir() else []
    aside = {path.name: _why(path, read_again) for path in hidden if path.name.startswith((BAD, LEFT))}
    return Found(saved, damaged, aside, read_again)


def show(found: Found, console: Console) -> None:
    """Print them, oldest first: a row of numbers each, under it the name, the metrics and why it was saved."""
    marks = _marks([one.manifest for one in found.saved])
    if found.saved:
        console.print(HEAD, style="bold")
    for one in found.saved:
        manifest = one.manifest
        row = Text(_numbers(manifest) + "   ")
        row.append("verified" if found.verified else "committed", style="green")
        row.append("".join(f", {mark}" for mark in marks[manifest.name]))
        console.print(row)
        _indented(console, _about(manifest))
        console.print()
    for title, style, names in (("damaged", "red", found.damaged), ("set aside", "yellow", found.aside)):
        for name, why in names.items():
            _indented(console, Text.assemble((f"{title} ", style), (name, "bold"), f": {why}"))
    if found.saved:
        count, size = len(found.saved), occupied(one.path for one in found.saved)
        console.print(f"{count} checkpoint{'s' * (count > 1)}, {megabytes(size)} on the disk", style="dim")


def occupied(folders: Iterable[Path]) -> int:
    """Return the bytes that folders take together; a file that several of them share counts once."""
    files = [file.stat() for folder in folders for file in folder.iterdir() if file.is_file()]
    return sum({(one.st_dev, one.st_ino): one.st_size for one in files}.values())


def megabytes(size: int) -> str:
    """Return a size to be read.

    >>> megabytes(9_300_000), megabytes(532), megabytes(12_000_000_000)
    ('9.30 MB', '0.53 kB', '12.00 GB')
    """
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if size >= one[0]), (1e3, "kB"))
    return f"{size / unit:.2f} {name}"


def _indented(console: Console, text: Text) -> None:
    for line in text.wrap(console, max(console.width - 4, 40)):
        line.rstrip()
        console.print(Text("    ") + line, soft_wrap=True)


def _numbers(manifest: Manifest) -> str:
    batch = "-" if manifest.batch is None else manifest.batch
    sizes = f"{megabytes(manifest.size):>10} {megabytes(manifest.written):>10}"
    return f"{manifest.epoch:>6} {batch:>7} {manifest.step:>9} {sizes}"


def _about(manifest: Manifest) -> Text:
    values = {
        **({} if manifest.fitness is None else {"fitness": manifest.fitness}),
        **dict(sorted(manifest.metrics.items())),
    }
    metrics = ", ".join(f"{name} {value + 0.0:.4g}" for name, value in values.items())
    lines = [(manifest.name, "bold"), f"\n{manifest.reason or 'asked for'}", (f"\n{metrics or 'no metrics'}", "dim")]
    if not manifest.resume_point:
        lines.append(("\nfor export and rescue, not to resume from", "yellow"))
    return Text.assemble(*lines)


def _marks(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    best, last = [one.name for one in ranked(manifests)[:1]], [one.name for one in manifests[-1:]]
    return {
        one.name: [
            mark
            for mark, holds in (("best", one.name in best), ("last", one.name in last), ("pinned", one.pinned))
            if holds
        ]
        for one in manifests
    }


def _why(path: Path, read_again: bool) -> str:
    if path.name.startswith(LEFT):
        return "the run went on from an earlier one"
    verdict = verify(path) if read_again else verify_commit(path)
    return "damaged when a resume met it; --verify tells where" if verdict.ok and not read_again else str(verdict)
