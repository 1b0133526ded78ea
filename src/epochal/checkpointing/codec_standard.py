"""Leaves of the codec from the standard library: paths, dates and times."""

import datetime
import pathlib
from typing import Any

from epochal.core.errors import CheckpointError

_PATHS: dict[str, type[pathlib.PurePath]] = {
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
    "PosixPath": pathlib.Path,  # the path of this system: a run may go on under another one
    "WindowsPath": pathlib.Path,
}


def encode_standard(value: object) -> Any:
    """Return the node of a path, date, time or duration; None for anything else.

    >>> encode_standard(pathlib.PurePosixPath("runs/mnist"))
    {'$': 'path', 'kind': 'PurePosixPath', 'value': 'runs/mnist'}
    """
    kind = type(value)
    if isinstance(value, pathlib.PurePath) and kind.__name__ in _PATHS:
        return {"$": "path", "kind": kind.__name__, "value": str(value)}
    if kind is datetime.timedelta:
        assert isinstance(value, datetime.timedelta)
        return {"$": "timedelta", "items": [value.days, value.seconds, value.microseconds]}
    if kind is datetime.date:
        return {"$": "date", "value": str(value)}
    if kind is datetime.datetime:
        assert isinstance(value, datetime.datetime)
        return _moment(value)
    return None


def _moment(value: datetime.datetime) -> Any:
    zone = getattr(value.tzinfo, "key", None)
    if zone is None and value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        return None
    text = value.replace(tzinfo=None) if zone else value
    return {"$": "datetime", "value": text.isoformat(), "zone": zone, "fold": value.fold}


def decode_standard(tag: str, node: dict[str, Any]) -> Any:
    """Return the value of a node that `encode_standard` made.

    >>> decode_standard("date", {"value": "2026-02-03"})
    datetime.date(2026, 2, 3)
    """
    if tag == "path":
        return _PATHS[node["kind"]](node["value"])
    if tag == "timedelta":
        return datetime.timedelta(*node["items"])
    if tag == "date":
        return datetime.date.fromisoformat(node["value"])
    if tag == "datetime":
        moment = datetime.datetime.fromisoformat(node["value"]).replace(fold=node["fold"])
        return moment if node["zone"] is None else moment.replace(tzinfo=_zone(node["zone"]))
    raise CheckpointError(f"state.json holds a value of the unknown kind {tag!r}: written by a newer Epochal?")


def _zone(key: str) -> datetime.tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(key)
