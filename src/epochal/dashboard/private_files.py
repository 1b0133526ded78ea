"""Files of this user alone, in the folder where programs keep what outlives them."""

import hashlib
import os
import secrets
import sys
from pathlib import Path


def state_folder() -> Path:
    """Return where programs keep what outlives them, of this user: ``$XDG_STATE_HOME`` or what the system has.

    >>> state_folder().name
    'epochal'
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "epochal"


def private_file(folder: Path, ending: str) -> Path:
    """Return the file that belongs to a served folder.

    >>> private_file(Path("runs"), ".json").parent.name
    'dashboard'
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return state_folder() / "dashboard" / f"{name}{ending}"


def read_private(file: Path) -> str:
    """Return a file's text; PermissionError if it is a link, or others could have written or read it."""
    with open(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), encoding="utf-8") as opened:
        found = os.fstat(opened.fileno())
        if sys.platform != "win32" and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
            raise PermissionError(f"{file} is not of this user alone")
        return opened.read()


def write_private(file: Path, text: str) -> None:
    """Write a file that only this user can read, from its first byte on; the old one is replaced in one step."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text)
        os.replace(fresh, file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
