"""The tables that pass between rooms, and the words for what can happen to a document.

A document is one row. It ends in exactly one of three ways: kept, dropped with a
reason, or quarantined with an error; the ledger holds a row for each that left. `item` is what an evaluation set
asks there, as JSON to the byte (`sources.items`): no stage changes it, whatever becomes of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

DOCUMENT = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("parent_id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("target", pa.large_string()),
        pa.field("item", pa.large_string()),
        pa.field("licence", pa.string()),
        pa.field("url", pa.string()),
        pa.field("meta", pa.string()),
    ]
)

LEDGER = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)


# Between two turns of a conversation, in its text and in its target (`sources.chat`).
TURN = "<|endoftext|>"

# What a stage that cuts reports beside its signals, in its output.
REPORT_FILE = "report.parquet"


def documents(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """A batch of DOCUMENT from plain rows; absent optional columns are null."""
    return _batch(rows, DOCUMENT)


def ledger(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """A batch of LEDGER from plain rows."""
    return _batch(rows, LEDGER)


def replace(batch: pa.RecordBatch, **columns: pa.Array) -> pa.RecordBatch:
    """The same batch, of the same schema, with some columns replaced."""
    return pa.record_batch([columns.get(f.name, batch[f.name]) for f in batch.schema], schema=batch.schema)


def _batch(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    rows = list(rows)
    return pa.record_batch([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def cuts_file(part: int) -> str:
    """Name of the table of what is cut from one partition."""
    return f"cuts-{part:05d}.parquet"
