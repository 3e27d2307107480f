"""Parquet files: what they hold, where to cut them, and their rows one by one.

The law: a file whose columns are not what the card says is refused by name before a row is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources import Item, SourceError
from pipeline.sources._rows import Mapped, RowError

BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Groups:
    """Adjacent row groups: the first and how many, their byte range, and the number of their first row."""

    first: int
    count: int
    offset: int
    bytes: int
    row: int


def groups(path: Path, mapped: Mapped, target: int) -> list[Groups]:
    """Ranges of about `target` bytes that tile the file, none cutting a row group (nor a file laid out in disorder)."""
    with _opened(path, mapped) as file:
        meta = file.metadata
        starts = [_start(meta.row_group(index)) for index in range(meta.num_row_groups)]
        rows = [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]
    size = path.stat().st_size
    firsts = [0]
    for index in range(1, len(starts) if starts == sorted(starts) else 0):
        if starts[index] - (starts[firsts[-1]] if firsts[-1] else 0) >= target:
            firsts.append(index)
    ends = [*firsts[1:], len(starts)]
    offsets = [0, *(starts[first] for first in firsts[1:]), size]
    return [
        Groups(first, end - first, offsets[i], offsets[i + 1] - offsets[i], sum(rows[:first]))
        for i, (first, end) in enumerate(zip(firsts, ends, strict=True))
    ]


def _start(group: Any) -> int:
    columns = [group.column(index) for index in range(group.num_columns)]
    return min(c.dictionary_page_offset or c.data_page_offset for c in columns)


def rows(item: Item, mapped: Mapped) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Numbered rows of an item. Raises SourceError when the file is damaged."""
    parts = dict(item.part)
    with _opened(Path(item.location), mapped) as file:
        number = parts.get("row", 0)
        first = parts.get("group", 0)
        chosen = list(range(first, first + parts.get("groups", file.metadata.num_row_groups)))
        names = [name for name in mapped.wanted if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(_batch_rows(file), chosen, names, use_threads=False):
                for row in _plain(batch):
                    yield number, row
                    number += 1
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{item.location}: damaged near row {number}: {error}; copy the file again") from error


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows to decode at once, so that a batch takes about BATCH_BYTES."""
    meta = file.metadata
    size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    return max(1, min(4096, BATCH_BYTES * meta.num_rows // max(size, 1)))


def _plain(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | RowError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            yield _one(batch.slice(index, 1))


def _one(batch: pa.RecordBatch) -> dict[str, Any] | RowError:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError("invalid_utf8", f"{error.reason} at byte {error.start}")


def _opened(path: Path, mapped: Mapped) -> pq.ParquetFile:
    """The file, its columns checked. Raises SourceError naming the file and what it has."""
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file: {error}; copy the file again") from error
    names = file.schema_arrow.names
    for name in [*mapped.required, *mapped.meta]:
        if name not in names:
            raise SourceError(
                f"{path}: no column {name!r}; has: {', '.join(names) or 'nothing'}; see `columns` and `meta`"
            )
    for name in mapped.wanted:
        if names.count(name) > 1:
            raise SourceError(f"{path}: has {names.count(name)} columns named {name!r}; rename all but one")
    text = file.schema_arrow.field(mapped.columns["text"][0]).type
    if not _is_text(text):
        raise SourceError(f"{path}: column {mapped.columns['text'][0]!r} is {text}, not text; see `columns`")
    return file


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )
