"""From the click to the training: how long a command waits until it is applied, and until who asked knows.

    python benchmarks/control.py            a training of steps of 5 ms, 60 commands at random moments
    python benchmarks/control.py --count 20
    python benchmarks/control.py --write    and put the table into docs/benchmarks.md

A process of its own trains in a `Loop`, each step taking 5 ms; this one asks, as the page and the command line do, and
waits. "applied" is the time at which the training thread did it, by the clock of the machine that both run on.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import table, write

from epochal.core.errors import EpochalError
from epochal.runs.asking import answer, ask
from epochal.runs.stored import StoredRun

LIMIT = 100.0  # milliseconds, of the median
TRAINING = """
import sys, time
import torch
from epochal import Loop

torch.set_num_threads(1)
net = torch.nn.Linear(8, 1)
with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), dir=sys.argv[1], name="clicked") as run:
    for _ in run.epochs(1_000_000):
        for _ in run.batches([0] * 100):
            run.optimizer.step()
            run.log({"train/loss": 1.0})
            time.sleep(0.005)
"""


def measured(folder: Path, count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds until each command was applied, and until the answer was here."""
    run, dice = StoredRun(folder), random.Random(0)
    applied, known = [], []
    for _ in range(count):
        time.sleep(dice.uniform(0.05, 0.4))
        began = time.time()
        row = answer(run, ask(run, "scale_lr", {"factor": 1.0}, by="benchmark"), seconds=10)
        known.append(1e3 * (time.time() - began))
        if row["state"] != "applied":
            raise SystemExit(f"a command was {row['state']}: {row['answer']}")
        told = run.table("commands", "id = ?", row["id"])[0]
        applied.append(1e3 * (told["answered"] - told["asked"]))
    return applied, known


def begun(folder: Path) -> bool:
    """Say whether the training has begun to write."""
    try:
        return bool(StoredRun(folder).sessions)
    except EpochalError:
        return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    count = given.count
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "clicked"
        child = subprocess.Popen([sys.executable, "-c", TRAINING, directory])
        try:
            while not begun(folder):
                if child.poll() is not None:
                    raise SystemExit("the training has ended")
                time.sleep(0.1)
            applied, known = measured(folder, count)
        finally:
            child.kill()
            child.wait()
    rows = [
        [what, *(f"{one:.0f} ms" for one in (statistics.median(of), statistics.quantiles(of, n=20)[-1], max(of)))]
        for what, of in (("click to applied", applied), ("click to answer", known))
    ]
    head = [f"{count} commands, steps of 5 ms", "median", "95 of 100", "longest"]
    text = f"{table(head, rows)}\n\nThe median may be {LIMIT:.0f} ms."
    print(text)
    if given.write:
        write(text, ("docs/benchmarks.md",), "control")
    if statistics.median(applied) > LIMIT:
        raise SystemExit(f"the median is above {LIMIT:g} ms")


if __name__ == "__main__":
    main()
