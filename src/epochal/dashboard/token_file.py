"""The secrets of a served folder, in a file of the user's own: the token of this start, and the key of the cookies."""

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from time import time
from typing import NamedTuple

from epochal.core.log import log

LIFETIME = 30 * 24 * 3600.0  # seconds after which a start makes a new key


class Secrets(NamedTuple):
    """``token`` lets a browser in once and is another at each start; ``key`` makes the cookie it then has."""

    token: str
    key: bytes


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


def secret_file(folder: Path) -> Path:
    """Return the file with the secrets of a served folder."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return state_folder() / "dashboard" / f"{name}.json"


def begin(folder: Path, *, forget: bool = False) -> Secrets:
    """Make the secrets of this start: a new token, and the key that is there unless it is old or to be forgotten.

    With the old key, pages that are open in a browser go on. Where no file can be written, the secrets are in memory
    alone, which is said in the log.
    """
    file = secret_file(folder)
    key, made = (None, time()) if forget else kept(file)
    if key is None:
        key, made = secrets.token_bytes(32), time()
    token = secrets.token_urlsafe(32)
    about = {"folder": os.fsdecode(folder.resolve()), "token": token, "key": key.hex(), "made": made}
    try:
        write_private(file, json.dumps(about))
    except OSError as error:
        log().warning("%s cannot be written (%s): pages that are open do not outlive this server.", file, error)
    return Secrets(token, key)


def kept(file: Path) -> tuple[bytes | None, float]:
    """Return the key in a file and when it was made; none from a file that others could read or have written."""
    try:
        with open(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), encoding="utf-8") as opened:
            found = os.fstat(opened.fileno())
            mine = sys.platform == "win32" or (found.st_uid == os.geteuid() and not found.st_mode & 0o077)
            about = json.load(opened) if mine else {}
        key, made = bytes.fromhex(about["key"]), float(about["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0.0
    return (key, made) if len(key) == 32 and 0 <= time() - made < LIFETIME else (None, 0.0)


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
