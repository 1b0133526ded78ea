"""A checksum taken on a second thread is that of the bytes in their order."""

import threading
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.checkpointing.checksum import ALONE, Checksum


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=8), st.sampled_from([1, 3, ALONE])), max_size=12))
def test_it_is_the_crc32_of_all_pieces(pieces):
    texts = [text * (times // max(len(text), 1) if times == ALONE else times) for text, times in pieces]
    with Checksum() as checksum:
        for text in texts:
            checksum.add(memoryview(text))
    assert str(checksum) == f"crc32:{zlib.crc32(b''.join(texts)):08x}"


def fail_while_writing():
    with Checksum() as checksum:
        checksum.add(memoryview(bytes(ALONE)))
        raise OSError("full")


def test_its_thread_ends_also_when_writing_fails():
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="full"):
        fail_while_writing()
    assert set(threading.enumerate()) <= before
