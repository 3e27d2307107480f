"""The planes of a text against the table of characters, for every character there is, at every place in 64 bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels import planes, scratch, unicode
from tests.pipeline.test_signals import TEXTS


def drawn(text: str) -> tuple[np.ndarray, np.ndarray, bytes]:
    """bool [planes, bytes], the four counts, and the bytes."""
    data = np.frombuffer(text.encode(), np.uint8)
    copied = np.full(data.size + planes.PAD, ord("."), np.uint8)
    size = scratch.take(data, 0, data.size, copied)
    room, counts = planes.planes(size), np.zeros(4, np.int64)
    planes.draw(copied, size, unicode.table(), room, counts)
    bits = np.unpackbits(np.ascontiguousarray(room.T).view(np.uint8), axis=1, bitorder="little")
    return bits[:, :size].astype(bool), counts, data.tobytes()


@pytest.mark.parametrize("apart", ["", "a", "ab "])
def test_every_character(apart):
    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, unicode.CODE_POINTS)])
    bits, counts, data = drawn(apart.join(map(chr, codes.tolist())))
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    first = np.cumsum(sizes + len(apart)) - sizes - len(apart)
    flags = unicode.table()[codes]
    space = np.flatnonzero(flags & unicode.SPACE)
    own = np.zeros(len(data), bool)
    for k in range(4):
        own[first[sizes > k] + k] = True
    assert (np.flatnonzero(bits[planes.SPACES] & own).tolist()) == sorted(
        first[s] + k for s in space for k in range(sizes[s])
    )
    assert (bits[planes.BREAKS][first] == (flags & unicode.BREAK != 0)).all()
    assert (flags[bits[planes.LETTERS][first]] & unicode.ALPHA != 0).all()
    assert (flags[bits[planes.LETTERS][first]] & unicode.PUNCT == 0).all()
    assert counts[3] == codes.size + len(apart) * (codes.size - 1)


@given(text=TEXTS, a=st.integers(0, 300), b=st.integers(0, 300))
def test_what_is_asked_of_planes(text, a, b):
    bits, counts, data = drawn(text)
    room = planes.planes(len(data))
    copied = np.zeros(len(data) + planes.PAD, np.uint8)
    scratch.take(np.frombuffer(data, np.uint8), 0, len(data), copied)
    planes.draw(copied, len(data), unicode.table(), room, np.zeros(4, np.int64))
    a, b = sorted((min(a, len(data)), min(b, len(data))))
    space, feed = bits[planes.SPACES], bits[planes.FEEDS]
    assert planes.after_space(room, a, b) == next((i for i in range(a, b) if not space[i]), b)
    assert planes.before_space(room, a, b) == next((i + 1 for i in range(b - 1, a - 1, -1) if not space[i]), a)
    assert planes.next_feed(room, a, b) == next((i for i in range(a, b) if feed[i]), b)
    assert planes.some(room, planes.LETTERS, a, b) == bits[planes.LETTERS][a:b].any()
    assert planes.characters_before(room, a) == (~bits[planes.CONTINUING][:a]).sum()
    assert counts.tolist() == [text.count("#"), text.count("...") + text.count("…"), text.count("\n"), len(text)]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128])
def test_nothing_is_left_of_an_earlier_text(size):
    room, copied = planes.planes(300), np.zeros(300 + planes.PAD, np.uint8)
    for text in ("a1\né" * 60, "a" * size):
        data = np.frombuffer(text.encode(), np.uint8)
        planes.draw(copied, scratch.take(data, 0, data.size, copied), unicode.table(), room, np.zeros(4, np.int64))
    for plane in (planes.LETTERS, planes.DIGITS, planes.WIDE, planes.BREAKS, planes.FEEDS):
        assert planes.bits(room, plane, size) == 0
