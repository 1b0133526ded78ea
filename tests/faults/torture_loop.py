"""kill -9 of plain loops at random moments, resumed until they are done: their ends are compared to the bit.

    python -m tests.faults.torture_loop --kills 500

Children are forked from this process, which has everything loaded and no threads.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from epochal import Checkpoint, Every
from epochal.checkpointing.layout import FOLDER
from epochal.checkpointing.listing import read_listing
from tests.faults.forks import ended, forked, killed
from tests.faults.loops import differences, train

USUAL = ("Everything", "EverythingWorkers", "Everything", "EverythingOwn")
MORE = (
    *USUAL,
    "Plain",
    "Accumulation",
    "OwnGenerator",
    "Stateful",
    "TwoLoaders",
    "Gan",
    "ValidationInside",
    "Policies",
)
EPOCHS = 5
BEGUN = "begun"
TEMPORARY = ".tmp-epochal"


def work(kind: str, folder: Path, *, seed: int, resume: bool) -> None:
    """Train in a child; what it ended with lies in a file."""
    torch.set_num_threads(1)
    saves = [Checkpoint(Every(batches=2), keep_last=2)] if resume else []
    done = train(kind, folder, seed=seed, resume=resume, callbacks=saves, epochs=EPOCHS)
    result = {"state": done.script.state(), "history": [dict(row) for row in done.run.history], "steps": done.run.step}
    torch.save(result, folder / "result.tmp")
    (folder / "result.tmp").rename(folder / "result.pt")


def begun(kind: str, folder: Path, **options: Any) -> None:
    """Train, and say first that it begins."""
    (folder / BEGUN).touch()
    work(kind, folder, **options)


class Torture:
    """The kills so far, and what came of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.report = {"kills": 0, "killed inside a save": 0, "failed resumes": 0, "lost commits": 0, "trainings": 0,
                       "weights identical": 0}  # fmt: skip

    def train(self, kind: str, folder: Path, kills: int) -> None:
        """Train once undisturbed, and once killed again and again, up to so many times in all; compare the ends."""
        alone, folder = folder / "alone", folder / "killed"
        alone.mkdir(parents=True)
        folder.mkdir()
        began = time.monotonic()
        ended(forked(partial(begun, kind, alone, seed=0, resume=False)))
        lasts = time.monotonic() - began  # less than one that saves takes
        newest, tries = 0, 0
        while not (folder / "result.pt").exists():
            tries += 1
            seed = tries if newest else 0  # from a checkpoint on no seed counts
            child = forked(partial(begun, kind, folder, seed=seed, resume=True))
            limit = self.random.uniform(0.0, lasts) if self.report["kills"] < kills else 60.0
            self.wait(child, folder, limit)
            newest = self.look(folder, newest)
            if tries > 200:
                raise RuntimeError(f"{kind} in {folder} does not come to its end")
        self.report["trainings"] += 1
        one, other = (torch.load(where / "result.pt", weights_only=False) for where in (alone, folder))
        found = differences(one, other)
        self.report["weights identical"] += not found
        if found:
            print(f"{kind} in {folder} differs: {found[:5]}", file=sys.stderr)

    def wait(self, child: int, folder: Path, limit: float) -> None:
        """Give a child so many seconds from its begin on, then kill it."""
        while not (folder / BEGUN).exists():
            time.sleep(0.001)
        (folder / BEGUN).unlink()
        code = killed(child, limit)
        self.report["kills"] += code < 0
        self.report["failed resumes"] += code > 0

    def look(self, folder: Path, newest: int) -> int:
        """Look at what a killed training left; return the serial of its newest checkpoint."""
        serials = [0]  # of a run that was killed before its first checkpoint, and of the one that began afresh
        for directory in folder.glob(f"*/{FOLDER}"):
            self.report["killed inside a save"] += any(one.name.startswith(TEMPORARY) for one in directory.iterdir())
            listing = read_listing(directory)
            good = [one for one in listing.saved if one.manifest.resume_point and one.verify().ok]
            serials.append(max((one.manifest.serial for one in good), default=0))
            self.report["lost commits"] += len(listing.damaged)
        self.report["lost commits"] += max(serials) < newest
        return max(serials)


def warm_up(folder: Path) -> None:
    """Import what a training imports late, so that children need not."""
    train("Everything", folder, callbacks=[Checkpoint(Every(batches=2))], epochs=1)


def torture(kills: int, kinds: tuple[str, ...], seed: int = 0) -> dict[str, int]:
    """Kill so many times, over all kinds; return the report."""
    torch.set_num_threads(1)
    hell = Torture(seed)
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder) / "warm")
        while hell.report["kills"] < kills:
            number = hell.report["trainings"]
            hell.train(kinds[number % len(kinds)], Path(folder) / str(number), kills)
    return hell.report


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--usual", action="store_true", help="fewer kinds of loops")
    chosen = parser.parse_args()
    found = torture(chosen.kills, USUAL if chosen.usual else MORE, chosen.seed)
    print(json.dumps(found))
    sys.exit(found["failed resumes"] + found["lost commits"] > 0 or found["weights identical"] < found["trainings"])
