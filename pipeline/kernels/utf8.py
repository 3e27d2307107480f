"""One code point from UTF-8 bytes, for the kernels that read characters.

Sources refuse invalid UTF-8; here it must only never read outside a document: what cannot be decoded is U+FFFD.
"""

from __future__ import annotations

from pipeline.kernels._jit import Bytes, kernel

REPLACEMENT = 0xFFFD


@kernel
def decode(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """(code point, bytes it takes) at data[i], never looking at data[end] or beyond."""
    c, left = int(data[i]), end - i
    if c < 0x80:
        return c, 1
    if c < 0xE0:
        if left < 2:
            return REPLACEMENT, left
        return (c & 0x1F) << 6 | _six(data, i + 1), 2
    if c < 0xF0:
        if left < 3:
            return REPLACEMENT, left
        return (c & 0x0F) << 12 | _six(data, i + 1) << 6 | _six(data, i + 2), 3
    if left < 4:
        return REPLACEMENT, left
    code = (c & 0x07) << 18 | _six(data, i + 1) << 12 | _six(data, i + 2) << 6 | _six(data, i + 3)
    return (code if code < 0x110000 else REPLACEMENT), 4


@kernel
def _six(data: Bytes, i: int) -> int:
    """The bits of a character that a byte of it brings after the first."""
    return int(data[i]) & 0x3F
