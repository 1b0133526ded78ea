"""A logger that works in a process of its own and writes what it is handed into a file, for tests."""

import json
import os
import time
from pathlib import Path

from epochal.loggers.base import Logger
from epochal.loggers.worker import Limits


class Apart(Logger):
    """Appends a line of JSON per record; ``mood`` says what goes wrong, a file of this name beside it ends that."""

    destination = "kept"
    apart = True
    limits = Limits(pause=0.02, longest_pause=0.05)

    def __init__(self, path, mood="", secret=None, **options):
        super().__init__(**options)
        self.path, self.mood, self.secret, self.opened = Path(path).absolute(), mood, secret, 0

    def options(self):
        return {"path": str(self.path), "mood": self.mood}

    def private(self):
        return {"secret": self.secret}

    def state_dict(self):
        return {"opened": self.opened}

    def load_state_dict(self, state):
        self.opened = state["opened"]

    def open(self, about):
        self.opened = os.getpid()
        return Lines(self, about)


class Lines:
    def __init__(self, owner, about):
        self.owner, self.about, self.steps = owner, about, about.told.get("steps", 0)

    def write(self, records):
        if self.owner.mood == "hangs":
            time.sleep(600)
        if self.owner.mood == "fails":
            raise ConnectionRefusedError("nobody listens")
        self.add(*([one.kind, dict(one.values), *one.at, one.time] for one in records))
        self.steps = max([self.steps, *(one.at.step for one in records)])

    def remember(self):
        return {"steps": self.steps}

    def add(self, *rows):
        with self.owner.path.open("a") as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in rows))

    def finish(self, end_reason):
        self.add(["end", end_reason, self.owner.secret, os.getpid()])


class Derived(Apart):
    """Does not ask for a process: it stays a thread."""


def read(path):
    """Return the whole lines of a file, none where there is no file."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []
