"""Which process trains a run: told by the run's mark, so that no other goes on with it meanwhile."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any, cast

from epochal.core.errors import CheckpointError

SILENT = 15.0  # seconds without a sign of life after which a process that cannot be seen counts as dead


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others, also from a later one that is given the same number.

    >>> sorted(this_process())
    ['host', 'pid', 'started']
    """
    return {"pid": os.getpid(), "host": host_name(), "started": started(os.getpid())}


def refuse_if_trained(mark: Path) -> None:
    """Raise CheckpointError if another process of this machine is training the run at this moment.

    Who is not rank 0 does not ask: it belongs to the same training as the process that the mark tells of.
    """
    pid = trained_by(mark)
    if pid is not None and _rank() == 0:
        raise CheckpointError(
            f"{mark.parent} is being trained at this moment, by process {pid}."
            f" Wait for its end, or stop it (kill {pid}: it saves and leaves), then resume"
        )


def trained_by(mark: Path) -> int | None:
    """Return the number of the other process that trains a run; None where there is none, or nobody can tell.

    >>> trained_by(Path("nowhere/run.json")) is None
    True
    """
    import json

    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(about, dict):
        return None
    pid, host, began = (cast("dict[str, Any]", about).get(name) for name in ("pid", "host", "started"))
    if not isinstance(pid, int) or not began or pid == os.getpid() or host != host_name():
        return None
    return pid if started(pid) == began else None


def state_of(session: Mapping[str, Any], now: float | None = None) -> str:
    """Return the state of a session: what it said, or "crashed" where it ended without a word.

    Where its process can be asked for it is; of one elsewhere the last sign of life counts.
    """
    if session["ended"] is not None:
        return str(session["state"])
    if session["host"] == host_name() and session["process"] and can_be_seen(session["process"]):
        alive = started(session["pid"]) == session["process"]
    else:
        alive = (time() if now is None else now) - session["beat"] < SILENT
    return str(session["state"]) if alive else "crashed"


def can_be_seen(process: str) -> bool:
    """Say whether a process whose ``started`` is known would be seen from here, if it lived.

    Not one of another machine of the same name, nor of a container that shares this machine's name.
    """
    told, own = process.split(" "), (started(os.getpid()) or "").split(" ")
    return len(told) != 3 or len(own) != 3 or (told[0], told[2]) == (own[0], own[2])


def started(pid: int) -> str | None:
    """Return when a process began, in words of the system's own; None if it is dead, or where this cannot be known.

    >>> started(os.getpid()) == started(os.getpid()), started(2**30)
    (True, None)
    """
    if sys.platform == "linux":
        return _started_linux(pid)
    return None if sys.platform == "win32" else _started_ps(pid)


def _started_linux(pid: int) -> str | None:
    """Return the boot, the ticks since then, and among which processes its number counts.

    Peer: proc(5), fields 3 (state) and 22 (starttime) of stat; pid_namespaces(7).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]} {_namespace()}"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "?"


def _started_ps(pid: int) -> str | None:
    import subprocess

    try:
        asked = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, began = asked.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else began.strip()


def host_name() -> str:
    """Return the name of this machine."""
    import platform

    return platform.node()


def launch() -> str | None:
    """Return what the processes of one launch have in common and those of no other, None without a launcher.

    Where they meet, as PyTorch's launchers and those after them say in MASTER_ADDR and MASTER_PORT.
    """
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT")
    if not port:
        return None
    return f"{host_name() if address in ('', 'localhost', '127.0.0.1', '::1') else address}:{port}"


def _rank() -> int:
    """Return the rank that a launcher gave this process; who has none, or -1 as Ultralytics says it, is the first."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0
