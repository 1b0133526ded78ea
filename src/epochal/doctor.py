"""What is installed here, and what would bring the rest; nothing heavy is imported to find out."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Literal, NamedTuple

from epochal.integrations.trainers import TRAINERS, TrainerKind
from epochal.integrations.untested import installed_version, is_newer
from epochal.tested import TESTED

Verdict = Literal["tested", "newer than tested", "older than tested", "not tested", "missing"]
NOT_FOR_USERS = frozenset({"all", "dev"})
REQUIREMENT = re.compile(
    r"^(?P<name>[\w.-]+)(\[(?P<extras>[\w,-]+)\])?[^;]*(;.*extra == ['\"](?P<extra>[\w-]+)['\"].*)?$"
)


@dataclass(frozen=True)
class Finding:
    """One package: the extras that bring it (none: always there), the version here and the one tested (None: none)."""

    package: str
    extras: tuple[str, ...]
    installed: str | None
    tested: str | None

    @property
    def verdict(self) -> Verdict:
        """What to think of it.

        >>> Finding("ultralytics", ("yolo", "demo"), "8.4.190", "8.4.190").verdict
        'tested'
        """
        if self.installed is None:
            return "missing"
        if self.tested is None:
            return "not tested"
        if self.installed.partition("+")[0] == self.tested:
            return "tested"
        return "newer than tested" if is_newer(self.installed, self.tested) else "older than tested"


class TrainerFinding(NamedTuple):
    """One trainer: what it is, and its packages here; the first is its own, others stand below it."""

    kind: TrainerKind
    packages: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether its own package can be imported."""
        return find_spec(self.kind.packages[0]) is not None


def requirements(lines: list[str]) -> dict[str, list[str]]:
    """Return extra -> packages ("" for what is always installed), from the lines of a package's metadata.

    >>> requirements(["rich>=13", "torch>=2.4; extra == 'pytorch'", "epochal[pytorch]; extra == 'yolo'"])
    {'': ['rich'], 'pytorch': ['torch'], 'yolo': ['torch']}
    """
    direct: dict[str, list[tuple[str, str | None]]] = {}
    for line in lines:
        if found := REQUIREMENT.match(line):
            direct.setdefault(found["extra"] or "", []).append((found["name"].lower(), found["extras"]))
    return {extra: list(dict.fromkeys(_flat(extra, direct))) for extra in direct}


def _flat(extra: str, direct: dict[str, list[tuple[str, str | None]]]) -> Iterator[str]:
    for name, extras in direct.get(extra, []):
        if name == "epochal":
            for inner in (extras or "").split(","):
                yield from _flat(inner, direct)
        else:
            yield name


def findings() -> list[Finding]:
    """Return what is here and what is not, for every package that an extra for users brings."""
    brought_by: dict[str, list[str]] = {}
    lines = metadata.requires("epochal") if installed_version("epochal") else None  # run from its sources
    for extra, packages in requirements(lines or []).items():
        if extra not in NOT_FOR_USERS:
            for package in packages:
                brought_by.setdefault(package, []).extend([extra] if extra else [])
    return [
        Finding(package, tuple(extras), installed_version(package), TESTED.get(package))
        for package, extras in brought_by.items()
    ]


def trainers() -> list[TrainerFinding]:
    """Return every trainer that Epochal joins, with the versions that are here; none is imported.

    >>> [one.kind.title for one in trainers()][:2]
    ['PyTorch, your own loop', 'Ultralytics YOLO']
    """
    return [
        TrainerFinding(
            kind,
            tuple(Finding(one, (kind.extra,), installed_version(one), TESTED.get(one)) for one in kind.packages),
        )
        for kind in TRAINERS.values()
    ]


def incomplete(found: list[Finding]) -> dict[str, list[str]]:
    """Return each extra that is not whole here, with the packages it would bring.

    >>> incomplete([Finding("mlflow", ("mlflow", "demo"), None, "3.0"), Finding("torch", ("demo",), "2.9", "2.9")])
    {'mlflow': ['mlflow'], 'demo': ['mlflow']}
    """
    missing = [one for one in found if one.verdict == "missing"]
    extras = dict.fromkeys(extra for one in missing for extra in one.extras)
    return {extra: [one.package for one in missing if extra in one.extras] for extra in extras}


def machine() -> dict[str, str]:
    """Return what matters of this machine: Python, system, processor cores, graphics processors."""
    return {
        "Epochal": installed_version("epochal") or "not installed",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "System": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU cores": str(_cores()),
        "GPU": _gpus(),
    }


def _cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> str:
    """Return the names of the NVIDIA cards, asked of the driver's own tool: importing torch would take seconds."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "Apple Silicon (mps)" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "none found"
    return "; ".join(listed.splitlines()) or "none found"
