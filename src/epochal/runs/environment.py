"""On what a training ran: versions, the state of the code, the command line; without secrets."""

import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

TRAINERS = ("torch", "ultralytics", "keras", "tensorflow", "lightning", "transformers", "accelerate")
PACKAGES = ("epochal", *TRAINERS, "numpy")
NAMES = r"(?:\w*(?:secret|passw|credential)[\w-]*|\w*(?:key|token|auth|authorization|pwd))"
SECRET = re.compile(rf"(?:^|[^a-z]){NAMES}$", re.IGNORECASE)  # `--api-key`, not `--tokenizer` or `--key-dim`
INSIDE = re.compile(  # `?token=abc`, `"api_key": "abc"`, `Authorization: Bearer abc`
    rf"""(\b{NAMES}["']?\s*[:=]\s*["']?(?:(?:bearer|basic)\s+)?)(?!\/\/)[^"'\s,&}}]+""", re.IGNORECASE
)
HIDDEN = "***"
RECENT = 10.0  # seconds for which trainings that follow each other share what git said


def environment() -> dict[str, Any]:
    """Return python's and the packages' versions, the machine, git's commit, and the command line.

    >>> sorted(environment())
    ['command', 'cwd', 'git', 'host', 'machine', 'packages', 'platform', 'python']
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "cwd": _cwd(),
        "command": without_secrets(sys.orig_argv),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "git": _recent_git_state(_cwd(), int(monotonic() / RECENT)),
    }


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which the values of what sounds like a secret, and passwords in addresses, are hidden.

    >>> without_secrets(["train.py", "--api-key", "abc", "--token=abc", "http://me:abc@host/x", "--epochs", "3"])
    ['train.py', '--api-key', '***', '--token=***', 'http://me:***@host/x', '--epochs', '3']
    >>> without_secrets(["--tokenizer", "bert", "--header", "Authorization: Bearer abc", "http://host/x?a=1&token=abc"])
    ['--tokenizer', 'bert', '--header', 'Authorization: Bearer ***', 'http://host/x?a=1&token=***']
    """
    shown: list[str] = []
    hide = False
    for one in arguments:
        name, equals, _ = one.partition("=")
        if hide and not one.startswith("-"):
            one = HIDDEN
        elif equals and SECRET.search(name):
            one = f"{name}={HIDDEN}"
        else:
            one = INSIDE.sub(rf"\1{HIDDEN}", one)
        hide = one.startswith("-") and not equals and SECRET.search(one) is not None
        shown.append(re.sub(r"(://[^/\s:@]*):[^/\s@]+@", rf"\1:{HIDDEN}@", one))
    return shown


def git_state(folder: str | None) -> dict[str, Any] | None:
    """Return the commit, the branch, and whether something tracked was changed; None outside git or without it."""
    if folder is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


@lru_cache(maxsize=8)
def _recent_git_state(folder: str | None, _moment: int) -> dict[str, Any] | None:
    return git_state(folder)


def _git(folder: str, *arguments: str) -> str | None:
    try:
        asked = subprocess.run(
            ["git", "--no-optional-locks", "-C", folder, *arguments],
            capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


@cache
def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cwd() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # somebody deleted it
        return None
