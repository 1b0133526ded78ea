"""Names as MLflow allows them."""

import re
from functools import lru_cache
from zlib import crc32

LONGEST = 250  # characters of a metric's or a parameter's name; peer: mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH


@lru_cache(maxsize=10_000)
def safe(name: str) -> str:
    """Return a name of letters, digits, "_", "-", ".", "/" and spaces, which is a path and not too long.

    >>> safe("metrics/mAP50-95(B)"), safe("../a//b"), safe("?")
    ('metrics/mAP50-95_B', 'a/b', '_')
    >>> len(safe("layer." * 100)), safe("layer." * 100) == safe("layer." * 101)
    (250, False)
    """
    text = re.sub(r"[^\w\-./ ]+", "_", name)
    text = "/".join(part for part in text.split("/") if part not in ("", ".", "..")).strip("_/ ") or "_"
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 9]}-{crc32(name.encode('utf-8', 'replace')):08x}"
    return text
