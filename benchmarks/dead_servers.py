"""What an MLflow server that refuses, hangs, fails or comes back costs a training, and what is lost: nothing.

`python benchmarks/dead_servers.py` prints the table, `--write` puts it into docs/loggers.md. The steps of a plain loop
are timed, 20 scalars logged in each, with a run store, and with the logger in turn with a training without one; at the
end everything is brought to a server that works, and counted.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit
from urllib.request import urlopen

import measure
from report import table, write

PAGES = ("docs/loggers.md",)
LIMIT = 1.03
STEPS, SCALARS = 1000, 20
FLUSH = 5.0  # seconds that the end may take


class Server(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a logger uses; answers 500 until ``/work`` is asked for."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path == "/work":
            self.server.broken = False
        if path == "/count":
            self.reply(200, {"points": len(self.server.points), "status": self.server.status})
        elif self.server.broken:
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
    server.broken, server.points, server.status = broken, set(), ""
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


KINDS = {
    "nothing (A/A)": None,
    "refuses": partial(closed, listen=False),
    "hangs": partial(closed, listen=True),
    "answers 500": partial(served, broken=True),
    "answers 500, returns half way": partial(served, broken=True),
    "works": partial(served, broken=False),
}


class Training:
    """One kind of training: the milliseconds of its steps, the seconds of its end, the points that arrived."""

    def __init__(self, kind: str, uri: str | None, folder: Path) -> None:
        self.kind, self.uri, self.folder = kind, uri, folder
        self.ends: list[float] = []
        self.cpu: list[float] = []  # seconds of all threads
        self.lacking = self.stored = 0

    def __call__(self) -> float:
        """Train once and return the seconds of the steps."""
        import torch

        from epochal import Loop, MLflowLogger

        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        x, y = torch.rand(128, 784), torch.randint(0, 10, (128,))
        loggers = [] if self.uri is None else [MLflowLogger(self.uri, flush_limit=FLUSH)]
        names = [f"train/metric-{number}" for number in range(SCALARS)]
        with Loop(model=net, optimizer=optimizer, callbacks=loggers, dir=self.folder, name="run") as run:
            for _ in run.epochs(1):
                begun, cpu = time.perf_counter(), time.process_time()
                for step in run.batches(range(STEPS)):
                    loss = torch.nn.functional.cross_entropy(net(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    run.log(dict.fromkeys(names, float(step)))
                    if step == STEPS // 2 and "returns" in self.kind:
                        ask(self.uri, "/work")
                spent = time.perf_counter() - begun
                self.cpu.append(time.process_time() - cpu)
            ended = time.perf_counter()
        self.ends.append(time.perf_counter() - ended)
        self.bring(run.dir)
        return spent

    def bring(self, folder: Path) -> None:
        """Deliver to a server that works what the one of this kind lacks, and count what is missing then."""
        if self.uri is None:
            return
        from epochal.commands.sync import sync
        from epochal.runs.stored import StoredRun

        run = StoredRun(folder)
        stored = sum(len(run.metric(name).value) for name in run.metrics() if name != "seconds")
        with served(broken=False) as uri:
            sync(folder, uri=uri)
            self.lacking += stored + 1 - ask(uri, "/count")["points"]  # and the number of the epoch
            assert ask(uri, "/count")["status"] == "FINISHED"
        self.stored += stored


def ask(uri: str, path: str) -> dict:
    """Ask one of our servers."""
    with urlopen(f"{uri}{path}", timeout=10) as answer:
        return json.loads(answer.read())


def measured(pairs: int) -> str:
    """Train each kind in turn with a training without a logger and return the table."""
    from contextlib import ExitStack

    from epochal.loggers.mlflow_client import load

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    load()  # its import takes seconds and is no server's fault
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as place, ExitStack() as stack:
        base = Training("base", None, Path(place) / "base")
        base()
        trainings = {
            name: Training(name, stack.enter_context(make()) if make else None, Path(place) / str(number))
            for number, (name, make) in enumerate(KINDS.items())
        }
        ratios = measure.paired(base, trainings, pairs=pairs)
    usual = median(base.cpu)
    rows = [[name, *cells(one, trainings[name], usual)] for name, one in ratios.items()]
    head = (
        "the MLflow server",
        "time of the steps",
        "quartiles",
        "CPU time",
        "longest end",
        "points lost after `epochal sync`",
    )
    bad = [name for name in KINDS if name != "works" and ratios[name].median > LIMIT * ratios["nothing (A/A)"].median]
    lost = [name for name, one in trainings.items() if one.lacking]
    print(f"over {LIMIT}: {bad or 'none'}; lost: {lost or 'none'}", file=sys.stderr)
    return table(head, rows)


def cells(steps: measure.Ratio, training: Training, usual: float) -> list[str]:
    """Return what a row says of one kind."""
    lost = "-" if training.uri is None else f"{training.lacking} of {training.stored:,}"
    spread, cpu = f"{steps.low:.3f}-{steps.high:.3f}", f"{median(training.cpu) / usual:.3f}"
    return [f"{steps.median:.3f}", spread, cpu, f"{max(training.ends):.1f} s", lost]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", choices=["broken", "works"])
    options = parser.parse_args()
    if options.serve:
        serve(options.serve == "broken")
    else:
        import torch

        torch.set_num_threads(1)
        STEPS = options.steps
        text = measured(options.pairs)
        print(text)
        if options.write:
            write(text, PAGES, mark="dead servers")
