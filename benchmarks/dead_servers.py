"""What an MLflow server that refuses, hangs, fails or comes back costs a training, and what is lost: nothing.

`python benchmarks/dead_servers.py` prints the table in about four minutes, `--write` puts it into docs/loggers.md. The
steps of a plain loop are timed, 20 scalars logged in each, with a run store. Each training with such a server, or with
a disk in trouble, has one without right before and right behind it, and is compared with the mean of the two. Its steps
are timed once the logger's process has asked its server for the first time; in the end everything is brought to a
server that works, and counted. CPU is the processor's time of the training's own process, all its threads; "its
process" that of the logger's, as a share of the time of the steps.
"""

import argparse
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import measure
from report import table, write

PAGES = ("docs/loggers.md",)
LIMIT = 1.03
SCALARS = 20
FLUSH = 5.0  # seconds that the end may take
WARM = 1.0  # seconds of a training before it is timed


class Server(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a logger uses; answers 500 until ``/work`` is asked for."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path == "/work":
            self.server.broken = False
        if path in ("/count", "/work"):
            points = len(self.server.points)
            self.reply(200, {"points": points, "status": self.server.status, "asked": self.server.asked})
            return
        self.server.asked += 1
        if self.server.broken:
            self.reply(500, {"error_code": "INTERNAL_ERROR"})
        else:
            found = [(one["key"], one.get("step", 0), one["timestamp"]) for one in body.get("metrics", ())]
            self.server.points.update(found)
            self.server.status = body.get("status", self.server.status)
            info = {"run_id": "r", "run_uuid": "r", "experiment_id": "1", "status": "RUNNING"}
            experiment = {"experiment_id": "1", "name": "epochal"}
            self.reply(200, {"experiment": experiment, "run": {"info": info, "data": {}}, "run_info": info})

    do_GET = do_POST

    def reply(self, code, values):
        data = json.dumps(values).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_): ...


def serve(broken: bool) -> None:
    """Serve until killed; print the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.broken, server.points, server.status, server.asked = broken, set(), "", 0
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


@contextmanager
def served(*, broken: bool) -> Iterator[str]:
    """A server in a process of its own: it must not take the training's Python."""
    command = [sys.executable, __file__, "--serve", "broken" if broken else "works"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@contextmanager
def closed(*, listen: bool) -> Iterator[str]:
    """An address that refuses, or accepts and hangs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listen:
            taken.listen(64)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


REFUSES, HANGS, FAILS, RETURNS, WORKS = (
    "refuses", "hangs", "answers 500", "answers 500, returns half way", "works",
)  # fmt: skip
DELETED, FULL = "no server; the run's folder is deleted half way", "no server; the disk is full from half way on"
KINDS = {
    REFUSES: partial(closed, listen=False),
    HANGS: partial(closed, listen=True),
    FAILS: partial(served, broken=True),
    RETURNS: partial(served, broken=True),
    WORKS: partial(served, broken=False),
    DELETED: nullcontext,
    FULL: nullcontext,
}


class Spent(NamedTuple):
    """What a training took, in seconds: of its steps by the clock and by the processor, of its logger's process."""

    wall: float
    cpu: float
    others: float
    end: float


class Training:
    """Trainings of one kind; ``lacking`` of ``stored`` points never arrived."""

    def __init__(self, kind: str, folder: Path, steps: int) -> None:
        self.kind, self.folder, self.steps = kind, folder, steps
        self.lacking = self.stored = 0

    def __call__(self, *, count: bool) -> Spent:
        """Train once; ``count``: bring what the server lacks to one that works, and count."""
        with KINDS.get(self.kind, nullcontext)() as uri:
            spent, folder = train(self.kind, uri, self.folder, self.steps)
        if count and uri is not None:
            self.bring(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        return spent

    def bring(self, folder: Path) -> None:
        """Deliver to a server that works what the one of this kind lacks, and count what is missing then."""
        from epochal.commands.sync import sync
        from epochal.runs.stored import StoredRun

        run = StoredRun(folder)
        stored = sum(len(run.metric(name).value) for name in run.metrics() if name != "seconds")
        with served(broken=False) as uri:
            sync(folder, uri=uri)
            self.lacking += stored + 1 - ask(uri, "/count")["points"]  # and the number of the epoch
            assert ask(uri, "/count")["status"] == "FINISHED"
        self.stored += stored


class Failed(logging.Handler):
    """Hears that something could not be written, and keeps it from the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard = False

    def emit(self, record):
        self.heard = True


def train(kind: str, uri: str | None, folder: Path, steps: int) -> tuple[Spent, Path]:
    """Train once, the steps before the logger's process has asked its server left out."""
    import torch

    from epochal import Loop, MLflowLogger

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.rand(128, 784), torch.randint(0, 10, (128,))
    loggers = [] if uri is None else [MLflowLogger(uri, flush_limit=FLUSH)]
    names = [f"train/metric-{number}" for number in range(SCALARS)]
    clock, failed = Clock(steps), Failed()
    logging.getLogger("epochal").handlers = [failed]
    with ExitStack() as stack, Loop(model=net, optimizer=optimizer, callbacks=loggers, dir=folder, name="run") as run:
        for _ in run.epochs(1):
            for step in run.batches(range(10**9)):
                if clock.begun is None and clock.is_warm() and (uri is None or loggers[0].run_id or failed.heard):
                    clock.begin(loggers)
                loss = torch.nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(dict.fromkeys(names, float(step)))
                if clock.step() == steps // 2:
                    trouble(kind, uri, run.dir, stack)
                if clock.left == 0:
                    break
            spent = clock.spent()
            ended = time.perf_counter()
    return spent._replace(end=time.perf_counter() - ended), run.dir


class Clock:
    """Times a number of steps, once it was begun."""

    def __init__(self, steps: int) -> None:
        self.left, self.pid, self.made = steps, None, time.perf_counter()
        self.begun: Spent | None = None

    def is_warm(self) -> bool:
        """Say whether the store has begun long enough ago: that is another matter."""
        return time.perf_counter() - self.made > WARM

    def begin(self, loggers) -> None:
        """Begin, here."""
        self.pid = loggers[0].session.follower.process.pid if loggers else None
        self.begun = self.now()

    def step(self) -> int | None:
        """Count a step, and return how many are left."""
        self.left -= self.begun is not None
        return self.left if self.begun is not None else None

    def now(self) -> Spent:
        """Return what was spent until now."""
        return Spent(time.perf_counter(), time.process_time(), cpu_of(self.pid), 0.0)

    def spent(self) -> Spent:
        """Return what was spent since the begin."""
        return Spent(*(end - begin for begin, end in zip(self.begun, self.now(), strict=True)))


def cpu_of(pid: int | None) -> float:
    """Return the processor's seconds of another process, 0 where nobody tells; source: proc(5), stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def trouble(kind: str, uri: str | None, folder: Path, stack: ExitStack) -> None:
    """Do half way what a kind says."""
    if kind == RETURNS:
        ask(uri, "/work")
    if kind == DELETED:
        shutil.rmtree(folder)
    if kind == FULL:
        stack.enter_context(full_disk())


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow any more."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ask(uri: str, path: str) -> dict:
    """Ask one of our servers."""
    with urlopen(f"{uri}{path}", timeout=10) as answer:
        return json.loads(answer.read())


def measured(rounds: int, steps: int) -> str:
    """Train each kind between trainings without a logger, in turn, and return the table."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    spent: dict[str, list[tuple[Spent, Spent]]] = {kind: [] for kind in ("nothing (A/A)", *KINDS)}
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as place:
        trainings = {kind: Training(kind, Path(place) / str(number), steps) for number, kind in enumerate(KINDS)}
        base = Training("base", Path(place) / "base", steps)
        base(count=False)
        before = [base(count=False), base(count=False)]
        for number in range(rounds):
            for kind, training in trainings.items():
                found = training(count=number == rounds - 1)
                before = [*before[-2:], base(count=False)]
                spent[kind].append((found, average(before[1:])))
                spent["nothing (A/A)"].append((before[1], average(before[::2])))
    rows = [[kind, *cells(pairs, trainings.get(kind))] for kind, pairs in spent.items()]
    head = ("the MLflow server", "time of the steps", "quartiles", "CPU", "its process", "longest end", "points lost")
    bad = [kind for kind, pairs in spent.items() if median(ratio(pairs, "wall")) > LIMIT]
    lost = [kind for kind, one in trainings.items() if one.lacking]
    print(f"over {LIMIT}: {bad or 'none'}; lost: {lost or 'none'}", file=sys.stderr)
    return table(head, rows)


def average(both: list[Spent]) -> Spent:
    """Return the mean of what two trainings took."""
    return Spent(*(mean(values) for values in zip(*both, strict=True)))


def ratio(pairs: list[tuple[Spent, Spent]], what: str) -> list[float]:
    """Return what each training took in units of those beside it."""
    return [getattr(found, what) / getattr(usual, what) for found, usual in pairs]


def cells(pairs: list[tuple[Spent, Spent]], training: Training | None) -> list[str]:
    """Return what a row says of one kind."""
    steps = measure.ratio_of(ratio(pairs, "wall"))
    others = median(found.others / found.wall for found, _ in pairs)
    counted = training is not None and training.stored
    return [
        f"{steps.median:.3f}", f"{steps.low:.3f}-{steps.high:.3f}", f"{median(ratio(pairs, 'cpu')):.3f}",
        f"{others:.1%}" if others else "-", f"{max(found.end for found, _ in pairs):.1f} s",
        f"{training.lacking} of {training.stored:,}" if counted else "-",
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, choices=range(2, 100), metavar="N")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", choices=["broken", "works"])
    options = parser.parse_args()
    if options.serve:
        serve(options.serve == "broken")
    else:
        import torch

        torch.set_num_threads(1)
        text = measured(options.rounds, options.steps)
        print(text)
        if options.write:
            write(text, PAGES, mark="dead servers")
