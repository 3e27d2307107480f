"""One code point from UTF-8 bytes, for the kernels that read characters.

Sources refuse invalid UTF-8; here it must only never read outside a document: what cannot be decoded is U+FFFD.
"""

from __future__ import annotations

from pipeline.kernels._jit import Bytes, kernel

REPLACEMENT = 0xFFFD


@kernel
def decode(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """(code point, bytes it takes) at data[i], never looking at data[end] or beyond."""
    c = int(data[i])
    if c < 0x80:
        return c, 1
    if c < 0xE0:
        width, code = 2, c & 0x1F
    elif c < 0xF0:
        width, code = 3, c & 0x0F
    else:
        width, code = 4, c & 0x07
    if i + width > end:
        return REPLACEMENT, end - i
    for k in range(1, width):
        code = code << 6 | (int(data[i + k]) & 0x3F)
    return (code if code < 0x110000 else REPLACEMENT), width
