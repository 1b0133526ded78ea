"""What logging costs a training, and how soon its curves are there: the run store and the peers.

    python benchmarks/recording.py          print the tables
    python benchmarks/recording.py --write    and put them between the marks in README.md and docs/benchmarks.md
    python benchmarks/recording.py --only store,tensorboard --quick    a first look

Each way trains in a process of its own: a step is 2.8 ms of arithmetic in PyTorch, then one call that logs 20 scalars.
The call is timed on the training thread; steps with and without it take turns in blocks. What is not installed is told.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import queue
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from report import table, write

sys.path.append(str(Path(sys.prefix) / "peers"))  # where `make bench` puts what .venv itself cannot hold
PAGES = ("README.md", "docs/benchmarks.md")
SCALARS, STEP = 20, 2.8e-3
POINTS = 1_000_000
LARGE = 10_000_000
RUNS = 1000
FIRST = 2000  # ranges of a first chart
PEER = 350  # us that W&B's call took on the machine that the limits of calls were set on
Log = Callable[[dict[str, Any], int], None]
UNWRITTEN = ("floor", "metrics")  # ways that keep nothing
NAMES = [f"train/metric{number}" for number in range(SCALARS)]


def light_run(folder: Path, *, store: bool = True) -> Any:
    """Return a run of no framework, so that nothing but logging is measured."""
    from epochal.core.run import Run
    from epochal.runs.folder import RunFolder
    from epochal.runs.recorder import Recorder

    run = Run(host="benchmark", provides=frozenset(), folder=RunFolder(folder, "run"))
    if store:
        Recorder(run)
    return run


@contextmanager
def epochal(folder: Path, *, store: bool = True) -> Iterator[Log]:
    """``run.log`` inside a batch."""
    from epochal.core import lifetime

    run = light_run(folder, store=store)
    engine = run.engine
    lifetime.begin(run)
    engine.train_start(1)
    engine.epoch_start(0)
    engine.batch_start(0)

    def log(values: dict[str, Any], step: int) -> None:
        engine.step = step
        run.log(values)

    yield log
    engine.batch_end()
    engine.train_epoch_end()
    engine.epoch_end()
    engine.train_end()
    lifetime.finish(run)
    if run.past[-1].notes:
        raise RuntimeError(f"the store lost something: {run.past[-1].notes}")


@contextmanager
def metrics_alone(folder: Path) -> Iterator[Log]:
    """The same without a store: what the callbacks' own view of the metrics costs."""
    with epochal(folder, store=False) as log:
        yield log


@contextmanager
def floor(folder: Path) -> Iterator[Log]:
    """What any logger costs at least: a tuple with the time, put into a queue."""
    waiting: deque[Any] = deque(maxlen=1000)
    yield lambda values, step: waiting.append((values, step, time.time()))


@contextmanager
def torch_writer(folder: Path) -> Iterator[Log]:
    """torch's SummaryWriter."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        yield lambda values, step: [writer.add_scalar(name, value, step) for name, value in values.items()]  # type: ignore[func-returns-value]


@contextmanager
def tensorboard_x(folder: Path) -> Iterator[Log]:
    """TensorboardX's SummaryWriter."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        yield lambda values, step: [writer.add_scalar(name, value, step) for name, value in values.items()]


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    """W&B, offline."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    import wandb

    run = wandb.init(project="benchmark", dir=str(folder), mode="offline")
    yield lambda values, step: run.log(values, step=step)
    run.finish()


@contextmanager
def mlflow_sqlite(folder: Path) -> Iterator[Log]:
    """MLflow with an SQLite store."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics({k: float(v) for k, v in values.items()}, step=step)


@contextmanager
def trackio_local(folder: Path) -> Iterator[Log]:
    """Trackio, local."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="benchmark", embed=False)
    yield lambda values, step: trackio.log({name: float(value) for name, value in values.items()}, step=step)
    trackio.finish()


WAYS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {  # name -> title, package, way
    "floor": ("floor: a tuple and the time into a queue", "epochal", floor),
    "metrics": ("`run.log`, `store=False`", "epochal", metrics_alone),
    "store": ("`run.log` into the run store", "epochal", epochal),
    "tensorboard": ("torch SummaryWriter", "tensorboard", torch_writer),
    "tensorboardX": ("tensorboardX", "tensorboardX", tensorboard_x),
    "wandb": ("W&B, offline", "wandb", wandb_offline),
    "trackio": ("trackio", "trackio", trackio_local),
    "mlflow": ("MLflow, SQLite", "mlflow", mlflow_sqlite),
}


# -- what is measured, each in a process of its own -------------------------------------------------------------------


class Step:
    """Arithmetic of a step's length on one thread."""

    def __init__(self, seconds: float) -> None:
        import torch

        torch.set_num_threads(1)
        self.a = torch.randn(192, 192)
        self.rounds = 1
        spent = min(self.timed() for _ in range(50))
        self.rounds = max(round(seconds / spent), 1)

    def timed(self) -> float:
        """Do it and return the seconds."""
        start = time.perf_counter()
        self()
        return time.perf_counter() - start

    def __call__(self) -> None:
        for _ in range(self.rounds):
            self.a @ self.a


def calls(folder: Path, way: Callable[[Path], Any], steps: int) -> dict[str, float]:
    """Return the call's p50 and p99 for floats and tensors, in us, and by how much the step grows, in percent."""
    import torch

    step, found = Step(STEP), {}
    base = [torch.tensor(number / 3) for number in range(SCALARS)]
    with way(folder) as log:
        number = 0
        for kind in ("floats", "tensors"):
            spent: list[float] = []
            bare: list[float] = []
            with_log: list[float] = []
            for block in range(2 * max(steps // 40, 4)):
                start = time.perf_counter()
                for _ in range(20):
                    step()
                    if block % 2:
                        number += 1
                        if kind == "floats":
                            values = {name: number + place / 3 for place, name in enumerate(NAMES)}
                        else:
                            values = {name: one + number for name, one in zip(NAMES, base, strict=True)}
                        began = time.perf_counter_ns()
                        log(values, number)
                        spent.append((time.perf_counter_ns() - began) / 1e3)
                (with_log if block % 2 else bare).append(time.perf_counter() - start)
            spent.sort()
            found[f"{kind} p50"], found[f"{kind} p99"] = spent[len(spent) // 2], spent[int(len(spent) * 0.99)]
            if kind == "floats":
                found["growth"] = (statistics.median(with_log) / statistics.median(bare) - 1) * 100
    return found


def cpu(folder: Path, rounds: int) -> dict[str, float]:
    """Return the least CPU time of a call in us, of calls in a row."""
    import torch

    best: dict[str, float] = {}
    values = {
        "floats": {name: place / 3 for place, name in enumerate(NAMES)},
        "tensors": {name: torch.tensor(place / 3) for place, name in enumerate(NAMES)},
    }
    with epochal(folder) as log:
        for _ in range(rounds):
            for kind, one in values.items():
                start = time.thread_time_ns()
                for number in range(100):
                    log(one, number)
                spent = (time.thread_time_ns() - start) / 1e5
                best[kind] = min(best.get(kind, spent), spent)
                time.sleep(0.002)
    return best


def million(folder: Path, way: Callable[[Path], Any], points: int) -> float:
    """Return the seconds until so many points are durable; the end of the way forces them to the disk.

    Importing does not count: one point was logged before.
    """
    values = {name: place / 3 for place, name in enumerate(NAMES)}
    with way(folder / "before") as log:
        log(values, 0)
    os.sync()
    start = time.perf_counter()
    with way(folder / "run") as log:
        for step in range(points // SCALARS):
            log(values, step)
    os.sync()
    return time.perf_counter() - start


def large(folder: Path, points: int) -> dict[str, float]:
    """Return how long the first chart of a run of so many points takes, in ms, in one curve and of twenty."""
    from epochal.runs.book import Block, Book
    from epochal.runs.schema import open_to_write
    from epochal.runs.stored import StoredRun

    book = Book()
    folder.mkdir(parents=True)
    connection = open_to_write(folder / "run.db")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(
        "INSERT INTO sessions (started, beat, ended, state, pid, host, about) VALUES (0, 0, 1, 'finished', 1, '', '{}')"
    )
    book.begin_attempt(step=0, epoch=0, time=0.0)
    for begin in range(0, points, 100_000):
        steps = list(range(begin, begin + 100_000))
        values, times = array("d", (step % 997 / 997 for step in steps)), [step / 100 for step in steps]
        book.take_block(Block("batch", ("loss",), steps, [0] * len(steps), times, values))
        part = book.part()
        connection.execute("BEGIN")
        book.write(connection, part, session=1)
        connection.execute("COMMIT")
        book.done(part)
    connection.close()
    spent: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        ranges = StoredRun(folder).ranges("loss", most=FIRST)
        spent.append((time.perf_counter() - start) * 1e3)
        if not FIRST / 2 < len(ranges) <= FIRST:
            raise RuntimeError(f"{len(ranges)} ranges")
    return {"first": spent[0], "median": statistics.median(spent), "bytes": (folder / "run.db").stat().st_size / points}


def many(folder: Path, runs: int) -> dict[str, float]:
    """Return how long so many finished runs take to be listed the first time, in ms: by the page, and in Python."""
    with epochal(folder) as log:
        for step in range(1000):
            log({name: step / (place + 1) for place, name in enumerate(NAMES)}, step)
    for number in range(1, runs):
        shutil.copytree(folder / "run", folder / f"run-{number}")  # with the times of its files
    return {
        way: min(in_process(listing, way, str(folder), limit=60) for _ in range(5))
        for way in ("page", "table", "filter")
    }


def listing(_: Path, way: str, folder: str) -> float:
    """Return how long it takes in a process that has listed nothing before, in ms; importing does not count."""
    import epochal.runs
    from epochal.dashboard.listing import Listing
    from epochal.dashboard.served import Served

    start = time.perf_counter()
    if way == "page":
        count = Listing(Served(Path(folder))).as_json().count('"state":"finished"')
    elif way == "table":
        count = len(epochal.runs.open(folder).table("train/metric1"))
    else:
        count = len(epochal.runs.open(folder).filter(state="finished"))
    if count != RUNS:
        raise RuntimeError(f"{count} runs")
    return (time.perf_counter() - start) * 1e3


def in_process(target: Callable[..., Any], *arguments: Any, limit: float) -> Any:
    """Call in a fresh process, with a folder of its own, and return what it returns or the error as text."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    folder = Path(tempfile.mkdtemp(prefix="logging-"))
    process = context.Process(target=answer, args=(results, target, folder, arguments))
    process.start()
    try:
        return results.get(timeout=limit)
    except queue.Empty:
        return f"not within {limit:.0f} s"
    finally:
        if process.is_alive():
            process.join(20)
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def answer(results: Any, target: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    """Put the result into the queue."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            found = target(folder / "run" if target is large else folder, *arguments)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
    results.put(found)


# -- the tables -------------------------------------------------------------------------------------------------------


def peers(names: list[str], steps: int, points: int) -> tuple[str, list[str], dict[str, Any]]:
    """Return the table of all ways, what was left out, and the figures."""
    rows: list[list[object]] = []
    skipped: list[str] = []
    figures: dict[str, Any] = {}
    for name in names:
        title, package, way = WAYS[name]
        try:
            number = version(package)
        except PackageNotFoundError:
            skipped.append(f"{package} is not installed")
            continue
        found = in_process(calls, way, steps, limit=300)
        few = points if name in UNWRITTEN or name == "store" else points // 20  # the others take minutes; in proportion
        durable = in_process(million, way, few, limit=300)
        if isinstance(found, str) or isinstance(durable, str):
            skipped.append(f"{title}: {found if isinstance(found, str) else durable}")
            continue
        durable *= points / few
        figures[name] = {**found, "million": durable}
        cells = [f"{found[key]:,.1f}" for key in ("floats p50", "floats p99", "tensors p50", "tensors p99")]
        last = "" if name in UNWRITTEN else f"{durable:,.1f} s"
        rows.append([title if package == "epochal" else f"{title} {number}", *cells, f"{found['growth']:+.1f} %", last])
    head = [
        "20 scalars a step",
        "floats, p50 us",
        "p99",
        "tensors, p50 us",
        "p99",
        "step of 2.8 ms",
        "1e6 points durable",
    ]
    return table(head, rows), skipped, figures


def limits(
    cpu_times: dict[str, float], first: dict[str, float], lists: dict[str, float], figures: dict[str, Any]
) -> str:
    """Return the table of what is promised; calls are held against limits in the time of the machine those are from."""
    store, pace = figures.get("store", {}), PEER / figures["wandb"]["floats p50"] if "wandb" in figures else None
    rows: list[list[object]] = []
    for what, value, limit, unit in (
        ("`run.log` of 20 floats, calls in a row", cpu_times["floats"], 2, "us"),
        ("`run.log` of 20 tensors, calls in a row", cpu_times["tensors"], 15, "us"),
        ("`run.log` of 20 floats between steps, half of the calls", store.get("floats p50"), 2, "us"),
        ("`run.log` of 20 tensors between steps, half of the calls", store.get("tensors p50"), 15, "us"),
        ("`run.log` of 20 floats between steps, 99 of 100 calls", store.get("floats p99"), 50, "us"),
        ("growth of a step of 2.8 ms", store.get("growth"), 3, "%"),
        ("1e6 points durable", store.get("million"), 1.5, "s"),
        ("the first chart of a curve of 1e7 points", first["first"], 100, "ms"),
        ("1,000 finished runs, the page's first list", lists["page"], 300, "ms"),
        ("1,000 finished runs, `runs.table()`", lists["table"], 300, "ms"),
        ("1,000 finished runs, `runs.filter(state=...)`", lists["filter"], 300, "ms"),
        ("a point in the file", first["bytes"], None, "bytes"),
    ):
        if value is not None:
            there = value * pace if pace and unit == "us" else None
            holds = "" if limit is None else "yes" if (value if there is None else there) <= limit else "**no**"
            scaled = "" if there is None else f"{there:,.2f} {unit}"
            rows.append([what, f"{value:,.2f} {unit}", scaled, "" if limit is None else f"<= {limit} {unit}", holds])
    return table(["what", "measured", f"where W&B's call takes {PEER} us", "limit", "holds"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    parser.add_argument("--quick", action="store_true", help="fewer steps and points")
    parser.add_argument("--only", default=",".join(WAYS), help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--json", action="store_true", help="print the figures too")
    given = parser.parse_args()
    steps = 200 if given.quick else 2000
    text, skipped, figures = peers(given.only.split(","), steps, POINTS)
    cpu_times = in_process(cpu, 30 if given.quick else 150, limit=300)
    first = in_process(large, LARGE // 10 if given.quick else LARGE, limit=300)
    lists = in_process(many, RUNS, limit=300)
    for one in (cpu_times, first, lists):
        if isinstance(one, str):
            raise SystemExit(one)
    left_out = f" Left out: {'; '.join(skipped)}." if skipped else ""
    about = (
        f"Measured {date.today()}: Python {platform.python_version()}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Calls between steps in wall time; those in a row in"
        " CPU time of the training thread, least of all. The limits of calls are from a machine on which W&B's call"
        f" took {PEER} us: they are held against the time that a call would take there. The peers' million points from"
        " 50,000, in proportion."
        f"{left_out}"
    )
    text = f"{text}\n\n{limits(cpu_times, first, lists, figures)}\n\n{about}"
    print(text)
    if given.json:
        print(json.dumps({**figures, "cpu": cpu_times, "large": first, "lists": lists}))
    if given.write:
        write(text, PAGES, "logging")


if __name__ == "__main__":
    main()
