"""Measuring on a busy machine: CPU time of this process, what is compared runs in turn, minima and medians."""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running in the middle of a few nanoseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def per_round(body: Callable[[int], object], rounds: int) -> float:
    """Return the CPU nanoseconds that one round of ``body(rounds)`` takes; a body may return the sum itself."""
    start = time.process_time_ns()
    own = body(rounds)
    spent = time.process_time_ns() - start
    return (own if isinstance(own, int) else spent) / rounds


def minima(
    bodies: Mapping[str, Callable[[int], object]], *, repeats: int = 40, slice_ns: float = 4e6
) -> dict[str, float]:
    """Return per body the least nanoseconds of one round; the bodies take turns, so that load meets all of them.

    A slice is short (4 ms), so that some slices of each body run undisturbed.
    """
    rounds: dict[str, int] = {}
    for name, body in bodies.items():
        body(100)
        rounds[name] = max(20, int(slice_ns / max(per_round(body, 500), 5.0)))
    best = dict.fromkeys(bodies, float("inf"))
    with no_collection():
        for _ in range(repeats):
            for name, body in bodies.items():
                best[name] = min(best[name], per_round(body, rounds[name]))
    return best


class Ratio(NamedTuple):
    """The median of paired ratios to a base, and their quartiles."""

    median: float
    low: float
    high: float
    pairs: int


def ratio_of(values: list[float]) -> Ratio:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high, len(values))


def paired(base: Callable[[], float], others: Mapping[str, Callable[[], float]], *, pairs: int) -> dict[str, Ratio]:
    """Return every other's cost in units of the base's, run right before or right after it in turn.

    Each callable does its work and returns what it cost. Give the base itself as one of the others: the A/A control,
    which says how much of a ratio is noise.
    """
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for pair in range(pairs):
        for name, other in others.items():
            if pair % 2:
                cost = other()
                ratios[name].append(cost / base())
            else:
                unit = base()
                ratios[name].append(other() / unit)
    return {name: ratio_of(values) for name, values in ratios.items()}


def interpreter(statement: str) -> float:
    """Return the CPU seconds (user and system) of a fresh isolated interpreter that runs one statement."""
    process = subprocess.Popen([sys.executable, "-I", "-c", statement], stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{statement!r} failed in a fresh interpreter with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime
