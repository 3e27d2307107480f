"""The bytes behind an Arrow string array, as numpy arrays that share its memory.

Text is never copied; of `string` arrays the offsets are widened from 32 to 64 bits. What comes back is read-only,
because an Arrow buffer belongs to every array that was sliced from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Text = tuple[NDArray[np.uint8], NDArray[np.int64]]


def text_buffers(array: pa.Array) -> Text:
    """(bytes, offsets) of a string or large_string array: row i is bytes[offsets[i]:offsets[i + 1]], n + 1 offsets.

    A slice keeps the bytes of its parent and begins at a later offset. A null row is empty.
    Raises TypeError for other types.
    """
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise TypeError(f"text must be string or large_string, not {array.type}")
    _, offsets, data = array.buffers()
    width = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
    if offsets is None or offsets.size == 0:
        return _bytes(None), frozen(np.zeros(len(array) + 1, np.int64))
    rows = np.frombuffer(offsets, width, len(array) + 1, array.offset * width.itemsize)
    return _bytes(data), frozen(rows.astype(np.int64, copy=False))


def frozen(array: NDArray) -> NDArray:
    """A contiguous, read-only view (a copy where it lies scattered): what every kernel takes as input."""
    view = np.require(array, None, ["C", "A"]).view()
    view.flags.writeable = False
    return view


def aligned(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """An array that begins at a multiple of 64 bytes."""
    size, item = shape[0] * shape[1], np.dtype(dtype).itemsize
    room = np.empty(size + 64 // item, dtype)
    skip = -room.ctypes.data % 64 // item
    return room[skip : skip + size].reshape(shape)


def _bytes(data: pa.Buffer | None) -> NDArray[np.uint8]:
    return frozen(np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8))
