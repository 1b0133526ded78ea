"""How much memory this process may still take."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # a container's own limit, version 2


def spare_memory(meminfo: Path = MEMINFO, group: Path = GROUP) -> int | None:
    """Return the bytes that can be had without swapping, of the machine or of its container; None if nobody tells.

    >>> spare_memory(Path("nowhere"), Path("nowhere")) is None
    True
    """
    told = [one for one in (_of_machine(meminfo), _of_group(group)) if one is not None]
    return max(min(told), 0) if told else None


def _of_machine(meminfo: Path) -> int | None:
    line = next((one for one in _lines(meminfo) if one.startswith("MemAvailable:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def _of_group(group: Path) -> int | None:
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if not used or not limit or limit[0] == "max":
        return None
    cached = next((one for one in _lines(group / "memory.stat") if one.startswith("inactive_file ")), "x 0")
    return int(limit[0]) - int(used[0]) + int(cached.split()[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
