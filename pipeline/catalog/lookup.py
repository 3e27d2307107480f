"""One row of a table of the store by its document's id: that column is read first, the rest only where it is.

To make Arrow values of Python's own has pyarrow import pandas where that is installed, longer than an answer takes. So
what is looked for is made here, of bytes, and nobody who answers for one document imports `pyarrow.dataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store import Store, read_parquet


def column_row(store: Store, key: str, name: str, doc_id: str) -> int:
    """Number of the document's row in a table of an output, or -1. Raises StoreError where there is no such output."""
    store.result(key)
    return position(read_parquet(store.file(key, name), ["doc_id"])["doc_id"], doc_id)


def position(ids: pa.ChunkedArray, doc_id: str) -> int:
    """The first row of a column of strings that holds `doc_id`, or -1."""
    found: int = pc.index(ids, word(doc_id)).as_py()
    return found


def word(text: str) -> pa.StringScalar:
    """A string as Arrow's own."""
    return words([text])[0]


def words(texts: Sequence[str]) -> pa.StringArray:
    """Strings as Arrow's own."""
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(b"".join(data)))


def numbers(values: Sequence[int]) -> pa.Int64Array:
    """Whole numbers as Arrow's own."""
    return pa.Int64Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.array(values, np.int64))])


def row_of(store: Store, key: str, name: str, doc_id: str) -> dict[str, Any] | None:
    """The document's row in a table of an output, if it has one. Raises as `column_row`."""
    row = column_row(store, key, name, doc_id)
    if row < 0:
        return None
    found: dict[str, Any] = read_parquet(store.file(key, name)).slice(row, 1).to_pylist()[0]
    return found


def text_of(store: Store, key: str, row: int) -> str:
    """The text of a row of a partition."""
    text: str = read_parquet(store.file(key, "documents.parquet"), ["text"])["text"][row].as_py()
    return text
