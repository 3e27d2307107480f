"""One row of a table of the store by its document's id: that column is read first, the rest only where it is."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from pipeline.store import Store, read_parquet


def column_row(store: Store, key: str, name: str, doc_id: str) -> int:
    """Number of the document's row in a table of an output, or -1. Raises StoreError where there is no such output."""
    store.result(key)
    found: int = pc.index(read_parquet(store.file(key, name), ["doc_id"])["doc_id"], doc_id).as_py()
    return found


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
