"""What fifty watchers cost a training: the median step while they look on, against the same training without them.

    python benchmarks/watchers.py              50 watchers, 30 turns of 2 s with and 2 s without them
    python benchmarks/watchers.py --count 200
    python benchmarks/watchers.py --write    and put the table into docs/benchmarks.md

A process of its own trains in a `Loop` and logs 20 scalars in each step; another is `epochal dashboard`. A watcher does
what a page with twenty charts does: it holds a stream open, and asks for what is new of the curves when the stream says
that it is time. The watchers run on the training's own machine here, but on one of its processors only, since browsers
elsewhere take nothing from it. Each turn is set against those before and behind it; turns without watchers, set against
each other in the same way, say how much of that is luck.
"""

import argparse
import base64
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import psutil
from report import table, write

from epochal.core.errors import EpochalError
from epochal.runs.asking import ask
from epochal.runs.stored import StoredRun

LIMIT = 1.03  # times the median step without watchers
SETTLE = 1.0  # seconds at the beginning of a turn that are not counted
NAME = "watched"
CURVES = [f"train/{number}" for number in range(20)]
TRAINING = """
import sys, time
from array import array
import torch
from epochal import Loop

torch.set_num_threads(1)
x = torch.randn(128, 256)
net = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
times = array("d")
with Loop(model=net, optimizer=optimizer, dir=sys.argv[1], name=sys.argv[2]) as run:
    for _ in run.epochs(1_000_000):
        for batch in run.batches(range(500)):
            began = time.perf_counter()
            optimizer.zero_grad()
            net(x).pow(2).mean().backward()
            optimizer.step()
            run.log({f"train/{number}": float(batch + number) for number in range(20)})
            times.extend((time.time(), time.perf_counter() - began))
with open(sys.argv[3], "wb") as file:
    times.tofile(file)
"""


class Turn(NamedTuple):
    """A stretch of time, how many watched in it, and the processor's seconds that the server and the watchers used."""

    begin: float
    end: float
    watchers: int
    server: float
    clients: float


class Server:
    """`epochal dashboard` over a folder, and how a browser that it let in asks it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "epochal", "dashboard", str(folder), "--port", "0"]
        environment = {**os.environ, "XDG_STATE_HOME": str(folder.parent / "state")}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = re.search(r"http://127.0.0.1:(\d+)/(\?token=\S+)", self.told())
        assert said is not None
        self.port = int(said[1])
        self.headers: dict[str, str] = {}
        cookie = self.get(f"/{said[2]}").headers["Set-Cookie"]
        self.headers["Cookie"] = cookie.partition(";")[0]
        self.run = base64.urlsafe_b64encode(NAME.encode()).rstrip(b"=").decode()

    def told(self) -> str:
        """Read what it says until it serves."""
        said = ""
        for line in self.process.stdout or ():
            said += line
            if "Ctrl-C" in line:
                break
        return said

    def get(self, path: str) -> http.client.HTTPResponse:
        """Ask, and return the answer while it comes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=self.headers)
        return connection.getresponse()

    def used(self) -> float:
        """Return the processor's seconds that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


class Watcher:
    """Watches the run, from a thread, until it is to leave."""

    def __init__(self, server: Server, leave: threading.Event) -> None:
        self.server, self.leave = server, leave
        self.asked = threading.Event()
        self.bytes, self.step = 0, 0
        self.threads = [threading.Thread(target=one, daemon=True) for one in (self.listen, self.look)]
        for thread in self.threads:
            thread.start()

    def listen(self) -> None:
        """Hold the stream open, and read what comes."""
        with self.server.get(f"/api/stream?run={self.server.run}&list=0") as stream:
            while not self.leave.is_set():
                line = stream.readline()
                self.bytes += len(line)
                if b'"ask":true' in line and (found := re.search(rb'"step":(\d+)', line)):
                    self.step = int(found[1])
                    self.asked.set()
        self.asked.set()

    def look(self) -> None:
        """Ask for what is new of the charts' curves when it is time, on one connection, as browsers do."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        begin = 0
        while self.asked.wait(60) and not self.leave.is_set():
            self.asked.clear()
            end = self.step
            query = urlencode([pair for name in CURVES for pair in (("name", name), ("begin", begin), ("end", end))])
            connection.request("GET", f"/api/runs/{self.server.run}/curves?{query}", headers=self.server.headers)
            self.bytes += len(connection.getresponse().read())
            begin = end
        connection.close()


def begun(folder: Path) -> bool:
    """Say whether the training has begun to write."""
    try:
        return bool(StoredRun(folder).newest())
    except EpochalError:
        return False


def turn(server: Server, watchers: int, seconds: float) -> Turn:
    """Let so many watch for a while."""
    leave = threading.Event()
    watching = [Watcher(server, leave) for _ in range(watchers)]
    time.sleep(SETTLE)
    begin, before, own = time.time(), server.used(), time.process_time()
    time.sleep(seconds)
    found = Turn(begin, time.time(), watchers, server.used() - before, time.process_time() - own)
    leave.set()
    for thread in (thread for one in watching for thread in one.threads):
        thread.join(60)
    if any(one.bytes == 0 for one in watching):
        raise SystemExit("a watcher saw nothing")
    return found


def measured(place: Path, count: int, turns: int, seconds: float) -> tuple[list[Turn], list[float]]:
    """Return the turns, and the training's steps: when each ended and how long it took, in turn."""
    file = place / "times"
    with ExitStack() as stack:
        command = [sys.executable, "-c", TRAINING, str(place / "runs"), NAME, str(file)]
        training = stack.enter_context(subprocess.Popen(command))
        stack.callback(training.kill)
        while not begun(place / "runs" / NAME):
            if training.poll() is not None:
                raise SystemExit("the training has ended")
            time.sleep(0.1)
        server = Server(place / "runs")
        stack.enter_context(server.process)
        stack.callback(server.process.kill)
        if hasattr(os, "sched_setaffinity"):  # of this process alone: the others have begun
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        found = [turn(server, watchers, seconds) for watchers in [*(0, count) * turns, 0]]
        ask(StoredRun(place / "runs" / NAME), "stop", {}, by="benchmark")
        training.wait(30)
    times = array("d")
    times.frombytes(file.read_bytes())
    return found, list(times)


def against(medians: list[float], of: range, near: int) -> list[float]:
    """Return the steps of some turns, as times those so many turns before and behind."""
    return [medians[at] / statistics.mean((medians[at - near], medians[at + near])) for at in of]


def quartiles(values: list[float]) -> str:
    """Return the first and the third quartile as text."""
    first, _, third = statistics.quantiles(values)
    return f"{first:.3f} to {third:.3f}"


def share(turns: list[Turn], of: Callable[[Turn], float]) -> float:
    """Return the share of a processor that was used in some turns."""
    return sum(map(of, turns)) / sum(one.end - one.begin for one in turns)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        turns, times = measured(Path(directory), given.count, given.turns, given.seconds)
    steps = list(zip(times[::2], times[1::2], strict=True))
    medians = [statistics.median(took for ended, took in steps if one.begin < ended < one.end) for one in turns]
    rows: list[list[object]] = []
    for watchers in (0, given.count):
        step = statistics.median(median for one, median in zip(turns, medians, strict=True) if one.watchers == watchers)
        these = [one for one in turns if one.watchers == watchers]
        shares = [share(these, lambda one: one.server), share(these, lambda one: one.clients)]
        rows.append([watchers, f"{1e3 * step:.2f} ms", *(f"{100 * one:.1f} %" for one in shares)])
    watched = against(medians, range(1, len(turns), 2), 1)
    alone = against(medians, range(2, len(turns) - 1, 2), 2)
    ratio, luck = statistics.median(watched), statistics.median(alone)
    text = (
        f"{table(['watchers', 'step, median', 'server, of a processor', 'watchers, of one'], rows)}\n\n"
        f"A step with {given.count} watchers takes {ratio:.3f} times as long (quartiles {quartiles(watched)}); turns"
        f" without them, against each other: {luck:.3f} ({quartiles(alone)}). Wanted: at most {LIMIT}."
    )
    print(text)
    if given.write:
        write(text, ("docs/benchmarks.md",), "watchers")
    if ratio > LIMIT + abs(luck - 1):
        raise SystemExit("watchers hold the training up")


if __name__ == "__main__":
    main()
