"""Arrow arrays made of their bytes: `pyarrow.array` imports pandas where it is installed, longer than `where` takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike


def integers(values: ArrayLike) -> pa.Int64Array:
    """int64 [n]."""
    data = np.ascontiguousarray(values, np.int64)
    return pa.Int64Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def strings(texts: Sequence[str]) -> pa.StringArray:
    """string [n]."""
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(b"".join(data)))
