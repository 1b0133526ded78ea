"""`make bench`: what Epochal costs, beside the peers, as the tables of docs/benchmarks.md.

    python benchmarks/dispatch.py            print the tables
    python benchmarks/dispatch.py --write    and put them between the marks in docs/benchmarks.md and README.md
    python benchmarks/dispatch.py --quick    fewer repeats, for a first look

An event is, for Epochal, what an integration does in its inner loop: look whether the slot of the event holds a call,
and if so fire it (guards, order, error notes included). For a peer it is the call by which its own loop delivers the
end of a batch. The loop around is measured alone and subtracted. The floor is one method call that loops over a
tuple of bound methods. Times are CPU time of this process, so that other processes on the machine count little.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import measure
import ours
import peers
from report import table, write

FIVE = "from epochal import Callback, Loop, attach, EarlyStopping, Checkpoint"
LISTENERS = (0, 1, 10)
PAGES = ("docs/benchmarks.md", "README.md")


class Claim(NamedTuple):
    """One thing that was promised: what, the limit, what was measured, and whether that is within it."""

    what: str
    measured: str
    limit: str
    holds: bool


def events(repeats: int) -> tuple[str, list[Claim], list[str]]:
    """Return the table of nanoseconds per event, the claims about it, and what was left out."""
    skipped: list[str] = []
    bodies: dict[str, peers.Deliver] = {"loop": ours.empty}
    for n in LISTENERS:
        bodies[f"floor {n}"], bodies[f"Epochal {n}"], bodies[f"by name {n}"] = (
            peers.floor(n),
            ours.slot(n),
            ours.by_name(n),
        )
    names = []
    for name in peers.PEERS:
        made = [peers.made(name, n) for n in LISTENERS]
        refused = [one for one in made if isinstance(one, str)]
        if refused:
            skipped.append(f"{name} is left out: {refused[0]}")
            continue
        names.append(name)
        bodies |= {f"{name} {n}": one for n, one in zip(LISTENERS, made, strict=True) if not isinstance(one, str)}
    best = measure.minima(bodies, repeats=repeats)
    spent = {name: value - best["loop"] for name, value in best.items()}
    shown = {
        "floor: a tuple of bound methods": "floor",
        "**Epochal**, in an inner loop": "Epochal",
        "Epochal, by the event's name": "by name",
        **{f"{name} {version(peers.DISTRIBUTIONS[name])}": name for name in names},
    }
    rows = []
    for label, name in shown.items():
        values = [spent[f"{name} {n}"] for n in LISTENERS]
        ratios = [f"{value:,.0f}" for value in values]
        rows.append([label, *ratios, f"{values[1] / spent['floor 1']:.1f}"])
    claims = [
        claim(f"an event with {n} no-op callbacks" if n else "an event that nobody listens to",
              spent[f"Epochal {n}"] / spent[f"floor {n}"], 1.3 if n else 1.2, "x the floor")
        for n in LISTENERS
    ]  # fmt: skip
    head = ["ns per event", "no listener", "1 no-op callback", "10", "1 callback, x floor"]
    return table(head, rows), claims, skipped


def claim(what: str, value: float, limit: float, unit: str, note: str = "") -> Claim:
    """Return a claim with its numbers shown."""
    places = 0 if limit > 10 else 2
    return Claim(what, f"{value:.{places}f} {unit}{note}", f"<= {limit:g}", value <= limit)


def loops(repeats: int, folder: Path) -> Iterator[Claim]:
    """Yield what ``Loop`` and ``run.log`` add to a batch."""
    import torch

    tensor = (torch.ones(1, requires_grad=True) * 2).sum()
    bodies = {
        "bare": ours.bare_ints,
        "Loop": ours.loop_over_ints(folder),
        "one tensor": ours.logging_rounds({"train/loss": tensor}, folder),
        "20 floats": ours.logging_rounds({f"train/{i}": 0.5 for i in range(20)}, folder),
    }
    best = measure.minima(bodies, repeats=repeats)
    yield claim(
        "`Loop` over a list of ints, nothing attached", best["Loop"] - best["bare"], 600, "ns per batch above `for`"
    )
    for name in ("one tensor", "20 floats"):
        yield Claim(f"`run.log` of {name}", f"{best[name] - best['Loop']:,.0f} ns", "", True)


def tiny(pairs: int, folder: Path) -> Iterator[Claim]:
    """Yield what a tiny training costs more under ``Loop``, without callbacks and with the contract's policies."""
    training = ours.Tiny(folder)
    others = {
        "A/A control: the bare loop beside itself": training.bare,
        "`Loop`, `run.log` of the loss in every batch": training.looped,
        "... and the policies of the contract's example": lambda: training.looped(ours.policies()),
    }
    for body in others.values():
        body()
    limits = dict(zip(others, (None, 1.10, 1.20), strict=True))
    micro = min(training.bare() for _ in range(5)) / ours.EPOCHS / ours.BATCHES * 1e6
    print(f"  a bare batch: {micro:.0f} us", file=sys.stderr)
    for name, ratio in measure.paired(training.bare, others, pairs=pairs).items():
        limit, spread = limits[name], f" ({ratio.low:.3f}-{ratio.high:.3f})"
        if limit is None:
            yield Claim(f"{name} ({micro:.0f} us per batch)", f"{ratio.median:.3f} x{spread}", "", True)
        else:
            yield Claim(name, f"{ratio.median:.3f} x{spread}", f"<= {limit:.2f}", ratio.median <= limit)
    checkpoint = statistics.median(training.per_checkpoint) * 1e3
    yield Claim("a checkpoint of it, captured, written, synced", f"{checkpoint:.1f} ms of CPU time", "", True)


def imports(pairs: int) -> Iterator[Claim]:
    """Yield what importing costs, in CPU time of a fresh interpreter."""

    def bare() -> float:
        return measure.interpreter("pass")

    others = {name: lambda name=name: measure.interpreter(name) for name in ("pass", "import epochal", FIVE)}
    for body in others.values():
        body()
    ratios = measure.paired(bare, others, pairs=pairs)
    start = min(bare() for _ in range(pairs))
    yield Claim(f"A/A control: a bare interpreter ({start * 1e3:.0f} ms)", f"{ratios['pass'].median:.2f} x", "", True)
    yield claim("`import epochal`", ratios["import epochal"].median, 1.3, "x a bare interpreter")
    added = min(measure.interpreter(FIVE) for _ in range(pairs)) - start
    yield claim("`from epochal import Callback, Loop, attach, EarlyStopping, Checkpoint`", added * 1e3, 50, "ms more")


def where() -> str:
    """Return on what was measured."""
    import torch

    cores, load = os.cpu_count(), os.getloadavg()[0]
    return (
        f"Measured {date.today().isoformat()}: Python {platform.python_version()}, torch {torch.__version__}, "
        f"{platform.system()} {platform.machine()}, {cores} cores, load {load:.1f}. CPU time; minimum of interleaved "
        f"repeats for events, median (and quartiles) of paired repeats for trainings. The tiny training: Linear(8, 1), "
        f"{ours.BATCH_SIZE} rows a batch, an epoch of {ours.BATCHES} batches, each with a validation; "
        "epoch ends are counted, and with the policies a checkpoint is written in each."
    )


def main() -> int:
    """Measure everything, print it, and return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description="Measure what Epochal costs, beside the peers.")
    parser.add_argument("--write", action="store_true", help="put the tables into " + " and ".join(PAGES))
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats, pairs = (10, 8) if options.quick else (60, 30)
    machine = where()
    with tempfile.TemporaryDirectory() as folder:
        print("importing", file=sys.stderr)
        claims = [*imports(pairs // 2)]
        print("tiny training", file=sys.stderr)
        claims = [*tiny(pairs, Path(folder)), *claims]
        print("loops", file=sys.stderr)
        claims = [*loops(repeats, Path(folder)), *claims]
    print("events", file=sys.stderr)
    dispatched, about_events, skipped = events(repeats)
    claims = [*about_events, *claims]
    verdicts = [
        [one.what, one.measured, one.limit, "" if not one.limit else "yes" if one.holds else "**no**"] for one in claims
    ]
    text = "\n\n".join([dispatched, table(["what", "measured", "limit", "holds"], verdicts), *skipped, machine])
    print(text)
    if options.write:
        write(text, PAGES)
    return 0 if all(one.holds for one in claims) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
