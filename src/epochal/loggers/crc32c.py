"""The checksum of event files, CRC-32C, by NumPy: TensorBoard's own goes through Python byte by byte."""

from functools import lru_cache
from typing import Any

POLYNOMIAL = 0x82F63B78  # reversed; source: RFC 3720, appendix B.4
BLOCK = 1024  # bytes that are looked up at once
SHORT = 16  # bytes for which NumPy is not worth its call


def masked(data: bytes) -> int:
    """Return the checksum as event files have it; source: TensorFlow's record format (TFRecord)."""
    found = crc32c(data)
    return (((found >> 15) | (found << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the checksum of bytes.

    The checksum is linear: that of a block is the sum, without carry, of what each byte gives where it stands.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    if len(data) <= SHORT:
        return short(data)
    import numpy as np

    rows, places = tables()
    values, state = np.frombuffer(data, np.uint8), 0xFFFFFFFF
    for begin in range(0, len(values), BLOCK):
        block = values[begin : begin + BLOCK].copy()
        size = len(block)
        block[:4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)[:size]  # what came before goes in there
        state = (state >> 8 * min(size, 4)) ^ int(np.bitwise_xor.reduce(rows[places[-size:], block]))
    return state ^ 0xFFFFFFFF


def short(data: bytes) -> int:
    """Return the checksum of a few bytes, one by one."""
    table, state = bytewise(), 0xFFFFFFFF
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def bytewise() -> list[int]:
    """Return what each byte gives with none behind it."""
    return tables()[0][0].tolist()


@lru_cache(maxsize=1)
def tables() -> tuple[Any, Any]:
    """Return what each byte gives with 0, 1, 2 ... bytes behind it, (BLOCK, 256), and the bytes behind each place."""
    import numpy as np

    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & 1, (one >> 1) ^ np.uint32(POLYNOMIAL), one >> 1)
    rows = np.empty((BLOCK, 256), np.uint32)
    rows[0] = one
    for behind in range(1, BLOCK):
        rows[behind] = one[rows[behind - 1] & 0xFF] ^ (rows[behind - 1] >> 8)
    return rows, np.arange(BLOCK - 1, -1, -1)
