"""The secrets of a served folder, in a file of the user's own: the token of this start, and the key of the cookies."""

import json
import os
import secrets
from pathlib import Path
from time import time
from typing import NamedTuple

from epochal.core.log import log
from epochal.dashboard.private_files import private_file, read_private, write_private

LIFETIME = 30 * 24 * 3600.0  # seconds after which a start makes a new key


class Secrets(NamedTuple):
    """``token`` lets browsers in and is another at each start; ``key`` makes the cookie that they then have."""

    token: str
    key: bytes


def secret_file(folder: Path) -> Path:
    """Return the file with the secrets of a served folder."""
    return private_file(folder, ".json")


def begin(folder: Path, *, forget: bool = False) -> Secrets:
    """Make the secrets of this start: a new token, and the key that is there unless it is old or to be forgotten.

    With the old key, pages that are open in a browser go on. Where no file can be written, the secrets are in memory
    alone, which is said in the log.
    """
    file = secret_file(folder)
    key, made = (None, 0.0) if forget else kept(file)
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
        about = json.loads(read_private(file))
        key, made = bytes.fromhex(about["key"]), float(about["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0.0
    return (key, made) if len(key) == 32 and 0 <= time() - made < LIFETIME else (None, 0.0)
