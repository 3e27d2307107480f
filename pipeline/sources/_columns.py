"""From batches of Arrow columns to documents, column by column, without a Python object a row.

The law: what comes out is what `_rows` would have made of each row: rows that are no documents are shown to it alone,
and so is a whole batch that holds anything else than plain columns. The number that matters: none, the copies of a
text between the file and the stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.sources import CHUNK_CHARACTERS, Chunk, Collector
from pipeline.sources._rows import Column, Mapped, RowError


def chunks(batch: pa.RecordBatch, first: int, mapped: Mapped, collector: Collector) -> Iterator[Chunk]:
    """Documents and rejects of rows that are numbered from `first`; the collector is left empty."""
    try:
        meta = _meta(batch, mapped) if _plain(batch, mapped) else None
    except RowError:
        meta = None
    if meta is None:
        yield from _singly(batch, first, mapped, collector)
        return
    text = batch[mapped.columns["text"][0]]
    good = pc.fill_null(pc.greater(pc.binary_length(text), 0), False)
    if good.true_count < len(good):
        for row in pc.indices_nonzero(pc.invert(good)).to_pylist():
            collect(collector, first + row, _row(batch, row), mapped)
    numbers = pc.add(pc.indices_nonzero(good), pa.scalar(first, pa.uint64()))
    if good.true_count < len(good):
        batch, meta = batch.filter(good), meta.filter(good)
    yield Chunk(_documents(batch, numbers, meta, mapped, collector), collector.rejected())


def collect(collector: Collector, number: int, row: dict[str, Any] | RowError, mapped: Mapped) -> None:
    """Hand one row to the collector, as a document or with what is wrong with it."""
    try:
        if isinstance(row, RowError):
            raise row
        collector.document(number, mapped.document(row))
    except RowError as error:
        collector.reject(number, error.reason, str(error))


def _plain(batch: pa.RecordBatch, mapped: Mapped) -> bool:
    """Whether every column but those for `meta` is a string of sound UTF-8 (a label may be whole numbers)."""
    names = batch.schema.names
    if "text" not in mapped.columns:  # a text that is made of several columns
        return False
    if batch.nbytes > 2 * CHUNK_CHARACTERS:
        return False
    kinds = {target: batch.schema.field(name).type for target, (name, _) in mapped.columns.items() if name in names}
    if not all(_is_string(kind) or (t == "label" and pa.types.is_integer(kind)) for t, kind in kinds.items()):
        return False
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _meta(batch: pa.RecordBatch, mapped: Mapped) -> pa.Array:
    """The column `meta`. Raises RowError where a row has what JSON cannot hold."""
    language = mapped.columns.get("language", ("", False))[0]
    names = [name for name in dict.fromkeys([*mapped.meta, language]) if name in batch.schema.names]
    if not names:
        return pa.nulls(batch.num_rows, pa.string())
    return pa.array([mapped.kept(row) for row in batch.select(names).to_pylist()], pa.string())


def _documents(
    batch: pa.RecordBatch, numbers: pa.Array, meta: pa.Array, mapped: Mapped, collector: Collector
) -> pa.RecordBatch:
    rows = batch.num_rows

    def column(target: Column, kind: pa.DataType) -> pa.Array:
        name = mapped.columns[target][0] if target in mapped.columns else None
        return batch[name].cast(kind) if name in batch.schema.names else pa.nulls(rows, kind)

    licence, url = column("licence", pa.string()), column("url", pa.string())
    target = column("target", pa.large_string())
    licence = pc.if_else(pc.equal(licence, ""), pa.scalar(None, pa.string()), licence)
    known: dict[str, pa.Array] = {
        "meta": meta,
        "doc_id": pc.binary_join_element_wise(collector.prefix, numbers.cast(pa.string()), ""),
        "text": column("text", pa.large_string()),
        "source": pa.repeat(pa.scalar(collector.source, pa.string()), rows),
        "label": column("label", pa.string()),
        "target": pc.if_else(pc.equal(target, ""), pa.scalar(None, pa.large_string()), target),
        "licence": pc.fill_null(licence, collector.licence) if collector.licence else licence,
        "url": pc.if_else(pc.equal(url, ""), pa.scalar(None, pa.string()), url),
    }
    columns = [known[f.name] if f.name in known else pa.nulls(rows, f.type) for f in schema.DOCUMENT]
    return pa.record_batch(columns, schema=schema.DOCUMENT)


def _singly(batch: pa.RecordBatch, first: int, mapped: Mapped, collector: Collector) -> Iterator[Chunk]:
    for number, row in enumerate(_every(batch), first):
        collect(collector, number, row, mapped)
        if collector.full:
            yield from collector.take()
    yield from collector.take()


def _every(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | RowError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        yield from (_row(batch, index) for index in range(batch.num_rows))


def _row(batch: pa.RecordBatch, index: int) -> dict[str, Any] | RowError:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError("invalid_utf8", f"{error.reason} at byte {error.start}")
