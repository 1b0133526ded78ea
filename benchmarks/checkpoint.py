"""What a checkpoint costs: how long the training stands still, until it is on the disk, memory; ours and the peers'.

    python benchmarks/checkpoint.py            print the table: 1 GB of parameters and AdamW's state
    python benchmarks/checkpoint.py --write    and put it between the marks in README.md and its page
    python benchmarks/checkpoint.py --gb 0.2 --repeats 3    smaller, for a first look

Each way saves from a process of its own. Every save has its own units, measured right before it in the same process:
one memcpy of the state, and one write of as many bytes to the same disk with an fsync. Each way is used as its users
do: over the same file, or into a new folder before the old one is deleted. What is not forced to the disk by itself is
forced by us, and that counts as a part of its time to durable. Another process looks all the time how many complete
checkpoints lie on the disk.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import table, write

PAGES = ("README.md", "docs/callbacks/checkpoint.md")
WIDTH, CHUNK = 768, 4 << 20
LIMITS = {"eager": (1.3, 1.2, 1.05), "lazy": (0.2, 1.2, 1.05)}  # stall, durable, memory; a page of slack in memory


class State:
    """Parameters and AdamW's state of about so many bytes, in tensors of a transformer's sizes."""

    def __init__(self, size: float) -> None:
        torch.manual_seed(0)
        block = 12 * WIDTH * WIDTH * 4 * 3  # bytes: a block's weights, in float32, with AdamW's two moments
        self.net = torch.nn.Sequential()
        for _ in range(max(round(size / block), 1)):
            self.net.append(torch.nn.Linear(WIDTH, 3 * WIDTH))
            self.net.append(torch.nn.Linear(3 * WIDTH, WIDTH))
            self.net.append(torch.nn.Linear(WIDTH, 4 * WIDTH))
            self.net.append(torch.nn.Linear(4 * WIDTH, WIDTH))
            self.net.append(torch.nn.LayerNorm(WIDTH))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-5, foreach=False)
        self.x = torch.randn(16, WIDTH)
        self.step()
        self.copy = [torch.empty_like(one) for one in self.tensors()]
        for target in self.copy:
            target.zero_()

    def step(self) -> None:
        """Train by one step."""
        self.optimizer.zero_grad()
        self.net(self.x).square().mean().backward()
        self.optimizer.step()

    def tensors(self) -> list[torch.Tensor]:
        """All tensors of the state."""
        moments = [one for state in self.optimizer.state.values() for one in state.values()]
        return [one.detach() for one in (*self.net.parameters(), *moments)]

    def tree(self) -> dict[str, Any]:
        """The state as users save it."""
        return {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(one.nbytes for one in self.tensors())

    def memcpy(self) -> float:
        """Return the seconds that one copy of it takes, tensor by tensor, memory that was touched before."""
        start = time.perf_counter()
        for target, source in zip(self.copy, self.tensors(), strict=True):
            ctypes.memmove(target.data_ptr(), source.data_ptr(), source.nbytes)
        return time.perf_counter() - start

    def write(self, folder: Path) -> float:
        """Return the seconds that writing as many bytes takes, on the disk itself."""
        path = folder / "unit"
        path.unlink(missing_ok=True)
        start = time.perf_counter()
        with open(path, "wb", buffering=0) as file:
            for source in self.copy:
                data = memoryview((ctypes.c_char * source.nbytes).from_address(source.data_ptr()))
                for begin in range(0, source.nbytes, CHUNK):
                    file.write(data[begin : begin + CHUNK])
            os.fsync(file.fileno())
        spent = time.perf_counter() - start
        path.unlink()
        return spent


class Save(NamedTuple):
    """One save in units: seconds, and those of one memcpy and one write with fsync right before."""

    stall: float
    durable: float
    memcpy: float
    write: float


class Memory:
    """The highest resident memory of this process while the ``with`` runs."""

    def __enter__(self) -> "Memory":
        self.over, self.highest = threading.Event(), resident()
        self.before = self.highest
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Look at it every two milliseconds."""
        while not self.over.wait(0.002):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def more(self) -> int:
        """Bytes beyond those at the beginning."""
        return self.highest - self.before


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def force(path: Path) -> None:
    """Force a file, or all files of a folder, to the disk."""
    for one in [path] if path.is_file() else [*path.rglob("*"), path]:
        handle = os.open(one, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


# -- the ways: each yields (stall, durable) for each save, one training step after the other --------------------------

Way = Callable[[State, Path, Callable[[], None]], Iterator[tuple[float, float]]]


def epochal(mode: str) -> Way:
    """Ours: a Loop with a Checkpoint after every batch; the stall is what batch end and step take longer."""

    def way(state: State, folder: Path, unit: Callable[[], None]) -> Iterator[tuple[float, float]]:
        from epochal import Checkpoint, Every, Loop

        saving = Checkpoint(Every(batches=1), keep_last=1, keep_best=0, snapshot=mode)  # type: ignore[arg-type]
        loop = Loop(model=state.net, optimizer=state.optimizer, callbacks=[saving], dir=folder, name="ours")
        with loop as run:
            for _ in run.epochs(1):
                batches = run.batches(iter(lambda: 0, 1))
                next(batches)
                state.step()
                next(batches)  # the memory is made behind the first step
                run.engine.saver.flush()
                while True:
                    state.step()
                    unit()
                    start = time.perf_counter()
                    next(batches)  # the end of the batch: the state is taken
                    stall = time.perf_counter() - start
                    state.net(state.x).square().mean().backward()
                    began = time.perf_counter()
                    if run.engine.copying is not None:
                        run.engine.copying()  # as the optimizer's step does first
                    stall += time.perf_counter() - began
                    run.engine.saver.flush()
                    yield stall, run.engine.saver.timing.durable

    return way


def in_place(save: Callable[[dict[str, Any], Path], None], name: str) -> Way:
    """A function that writes over the same file."""

    def way(state: State, folder: Path, unit: Callable[[], None]) -> Iterator[tuple[float, float]]:
        while True:
            state.step()
            unit()
            start = time.perf_counter()
            save(state.tree(), folder / name)
            stall = time.perf_counter() - start
            force(folder / name)
            yield stall, time.perf_counter() - start

    return way


def torch_save(tree: dict[str, Any], path: Path) -> None:
    """torch.save."""
    torch.save(tree, path)


def safetensors_save(tree: dict[str, Any], path: Path) -> None:
    """safetensors, with names made of the paths."""
    from safetensors.torch import save_file

    flat = {f"model.{name}": value for name, value in tree["model"].items()}
    for number, state in tree["optimizer"]["state"].items():
        flat |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    save_file(flat, path)


def dcp(asynchronous: bool) -> Way:
    """torch.distributed.checkpoint in one process, a new folder per save, the old one deleted behind it."""

    def way(state: State, folder: Path, unit: Callable[[], None]) -> Iterator[tuple[float, float]]:
        import torch.distributed.checkpoint as dcp

        count = 0
        while True:
            state.step()
            unit()
            path, before = folder / f"dcp-{count}", folder / f"dcp-{count - 1}"
            start = time.perf_counter()
            if asynchronous:
                future = dcp.async_save(state.tree(), checkpoint_id=path, no_dist=True)
                stall = time.perf_counter() - start
                future.result()
            else:
                dcp.save(state.tree(), checkpoint_id=path, no_dist=True)
                stall = time.perf_counter() - start
            force(path)
            durable = time.perf_counter() - start
            shutil.rmtree(before, ignore_errors=True)
            count += 1
            yield stall, durable

    return way


def lightning(state: State, folder: Path, unit: Callable[[], None]) -> Iterator[tuple[float, float]]:
    """Lightning's AsyncCheckpointIO, used as its ModelCheckpoint does: save, then delete the one before."""
    from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

    count = 0
    while True:
        state.step()
        unit()
        plugin = AsyncCheckpointIO(TorchCheckpointIO())
        path, before = folder / f"lightning-{count}.ckpt", folder / f"lightning-{count - 1}.ckpt"
        start = time.perf_counter()
        plugin.save_checkpoint(state.tree(), str(path))
        if before.exists():
            plugin.remove_checkpoint(str(before))
        stall = time.perf_counter() - start
        plugin.teardown()
        force(path)
        count += 1
        yield stall, time.perf_counter() - start


WAYS: dict[str, Way] = {
    "**epochal, eager**": epochal("eager"),
    "**epochal, lazy**": epochal("lazy"),
    "**epochal, off**": epochal("off"),
    "torch.save": in_place(torch_save, "last.pt"),
    "safetensors": in_place(safetensors_save, "last.safetensors"),
    "torch DCP": dcp(asynchronous=False),
    "torch DCP, async": dcp(asynchronous=True),
    "Lightning, AsyncCheckpointIO": lightning,
}


# -- how many are complete --------------------------------------------------------------------------------------------


def complete(folder: Path) -> int:
    """Return how many complete checkpoints lie in a folder, by what each format says of itself."""
    count = 0
    for path in folder.iterdir() if folder.exists() else ():
        try:
            if path.suffix in (".pt", ".ckpt"):
                count += zipfile.is_zipfile(path)
            elif path.suffix == ".safetensors":
                count += safetensors_is_whole(path)
            elif path.name.startswith("dcp-"):
                count += (path / ".metadata").exists()
            elif (path / "checkpoints").is_dir():
                count += sum(epochal_is_whole(one) for one in (path / "checkpoints").glob("epoch-*"))
        except OSError:
            continue  # it went while we looked
    return count


def safetensors_is_whole(path: Path) -> bool:
    """Say whether a file has as many bytes as its header tells."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 1 << 26:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    end = max(one["data_offsets"][1] for name, one in header.items() if name != "__metadata__")
    return path.stat().st_size == 8 + length + end


def epochal_is_whole(folder: Path) -> bool:
    """Say whether a folder is committed, and its files as long as the manifest tells."""
    if not (folder / "COMMIT").exists():
        return False
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    return all((folder / name).stat().st_size == one["size"] for name, one in files.items())


# -- measuring --------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What one way cost, in units."""

    stall: float
    durable: float
    memory: float
    seconds: tuple[float, float]  # of the units: memcpy, write
    complete: int


def measure_way(name: str, size: float, repeats: int, folder: str, results: Any) -> None:
    """Measure one way, in this process; the first save is a warm-up for the times, and the one of the memory."""
    torch.set_num_threads(max((os.cpu_count() or 2) - 1, 1))
    state = State(size)
    saves: list[Save] = []
    units: list[tuple[float, float]] = []

    def unit() -> None:
        units.append((state.memcpy(), state.write(Path(folder).parent)))

    measured = WAYS[name](state, Path(folder), unit)
    with Memory() as memory:
        next(measured)
    results.put(("first", None))
    for _ in range(repeats):
        stall, durable = next(measured)
        saves.append(Save(stall, durable, *units[-1]))
    results.put(("done", (saves, memory.more / state.size)))
    measured.close()


def found(name: str, size: float, repeats: int) -> Found:
    """Run one way in a process of its own, and look at its folder meanwhile."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory(dir=os.environ.get("EPOCHAL_BENCH_DIR")) as parent:
        folder = Path(parent) / "saves"
        folder.mkdir()
        process = context.Process(target=measure_way, args=(name, size, repeats, str(folder), results))
        process.start()
        while results.empty() and process.is_alive():
            time.sleep(0.01)
        results.get(timeout=1)
        fewest = complete(folder)
        while results.empty() and process.is_alive():
            fewest = min(fewest, complete(folder))
            time.sleep(0.01)
        saves, memory = results.get(timeout=1)[1]
        process.join()
    return Found(
        statistics.median(one.stall / one.memcpy for one in saves),
        statistics.median(one.durable / one.write for one in saves),
        memory,
        (statistics.median(one.memcpy for one in saves), statistics.median(one.write for one in saves)),
        fewest,
    )


RESTART = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, {here!r})
from pathlib import Path
import checkpoint
from epochal import Checkpoint, Loop
state = checkpoint.State({size})
with Loop(model=state.net, optimizer=state.optimizer, dir={folder!r}, name="restart", callbacks=[Checkpoint()],
          resume={resume}) as run:
    for _ in run.epochs(2):
        for _ in run.batches([0]):
            state.step()
        if {resume} or {first}:
            print(time.perf_counter() - start, flush=True)
            break
"""


def restart(size: float, repeats: int) -> float:
    """Return the time to the first batch after a resume, in units of reading the files plus starting fresh."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("EPOCHAL_BENCH_DIR")) as folder:

        def run(resume: bool, first: bool, where: str) -> float:
            here = str(Path(__file__).parent)
            script = RESTART.format(here=here, size=size, folder=where, resume=resume, first=first)
            started = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            spent = time.perf_counter() - started
            process.wait()
            return spent

        run(False, True, folder)  # leaves a checkpoint of its only epoch
        ratios: list[float] = []
        for _ in range(repeats):
            files = [one for one in Path(folder).rglob("*.safetensors") if "checkpoints" in str(one)]
            started = time.perf_counter()
            for path in files:
                data = bytearray(path.stat().st_size)
                with open(path, "rb", buffering=0) as file:
                    file.readinto(data)
            reading = time.perf_counter() - started
            with tempfile.TemporaryDirectory(dir=os.environ.get("EPOCHAL_BENCH_DIR")) as fresh:
                unit = reading + run(False, True, fresh)
            ratios.append(run(True, False, folder) / unit)
    return statistics.median(ratios)


def verdict(name: str, one: Found) -> str:
    """Say whether what we promise holds."""
    limits = LIMITS.get(name.strip("*").rpartition(" ")[2])
    if limits is None:
        return ""
    holds = one.stall <= limits[0] and one.durable <= limits[1] and one.memory <= limits[2] and one.complete >= 1
    return "yes" if holds else "**no**"


def main() -> int:
    """Measure, print, and return 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint costs.")
    parser.add_argument("--write", action="store_true", help="put the table into " + " and ".join(PAGES))
    parser.add_argument("--gb", type=float, default=1.0, help="size of the state, in 10^9 bytes")
    parser.add_argument("--repeats", type=int, default=7, help="saves measured per way")
    parser.add_argument("--only", default="", help="ways whose name contains this")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write puts the whole table in its place; leave --only out")
    rows: list[tuple[str, Found]] = []
    for name in WAYS:
        if options.only in name:
            print(f"  {name}", file=sys.stderr)
            rows.append((name, found(name, options.gb * 1e9, options.repeats)))
            print(f"    {rows[-1][1]}", file=sys.stderr)
    again = restart(options.gb * 1e9, options.repeats) if not options.only else 0.0
    lines = [
        (name, f"{one.stall:.2f}", f"{one.durable:.2f}", f"{one.memory:.2f}", one.complete, verdict(name, one))
        for name, one in rows
    ]
    head = [
        "saving",
        "stall, in memcpys",
        "durable, in write + fsync",
        "memory, in states",
        "complete, at least",
        "kept",
    ]
    memcpy, disk = (statistics.median(one.seconds[index] for _, one in rows) for index in (0, 1))
    where = (
        f"Measured {date.today().isoformat()}: Python {platform.python_version()}, torch {torch.__version__}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{options.gb:g} GB of state, a memcpy of it takes {memcpy:.2f} s, a write with fsync {disk:.2f} s. Medians of "
        f"{options.repeats} saves, each in units measured right before it. A resumed training reaches its first batch "
        f"in {again:.2f} x the time of reading the files and starting fresh."
    )
    text = "\n\n".join([table(head, lines), where])
    print(text)
    if options.write:
        write(text, PAGES, mark="checkpoint")
    return 1 if any("no" in verdict(name, one) for name, one in rows) or again > 1.2 else 0


if __name__ == "__main__":
    sys.exit(main())
