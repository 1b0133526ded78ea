"""JSON that tells numbers truthfully and that no browser takes for anything else, and how a refusal is told."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

MARKUP = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # stand inside strings only, where this means the same

ENCODE = json.JSONEncoder(allow_nan=False, default=str, separators=(",", ":")).encode


class Refused(Exception):
    """What was asked for is refused, with a status of HTTP and in words for a person."""

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def plain(value: Any) -> Any:
    """Return a value with None for NaN and infinities, which JSON has no numbers for.

    >>> plain({"loss": [0.5, float("nan")], 1: float("inf")})
    {'loss': [0.5, None], '1': None}
    """
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in cast("list[Any]", value)]
    return value


def as_json(value: Any) -> str:
    r"""Return a value as JSON in ASCII, without a character that HTML has a meaning for.

    >>> as_json({"<b>": float("nan")})
    '{"\\u003cb\\u003e":null}'
    """
    try:
        text = ENCODE(value)
    except ValueError:  # NaN or an infinity
        text = ENCODE(plain(value))
    for character, escaped in MARKUP.items():
        text = text.replace(character, escaped)
    return text
