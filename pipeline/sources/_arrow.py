"""Arrow IPC files of either flavour (file or stream; Feather 2 is the first): their rows, some at a time.

The law: a file whose columns are not what the card says is refused by name, and one whose buffers do not fit is an
error before a value is looked at. A file is an item. The number that matters: none, the copies of what is mapped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.sources import Guard, Item, SourceError
from pipeline.sources._parquet import check
from pipeline.sources._rows import Mapped
from pipeline.sources._stores import Remote, place
from pipeline.sources._streams import raw
from pipeline.sources._streams import whole as digest

ROWS = 4096
MAGIC = b"ARROW1"


def whole(logical: str, path: Path | Remote, mapped: Mapped) -> Item:
    """The item of a file. Raises SourceError where it is none or lacks a column."""
    try:
        schema = _opened(path).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: not a readable Arrow file: {error}; copy the file again") from error
    check(path, schema, mapped)
    return Item(logical, str(path), path.stat().st_size, digest(path))


def batches(item: Item, mapped: Mapped, private: bool = False) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The wanted columns of the rows, with the number of the first. Raises SourceError: damaged, or changed."""
    guard = Guard(item)
    deque(raw(item, guard, private), maxlen=0)
    guard.finish()
    number = 0
    try:
        for batch in _every(_opened(place(item.location, private))):
            wanted = batch.select([name for name in mapped.wanted if name in batch.schema.names])
            _check(wanted)
            for start in range(0, wanted.num_rows, ROWS):
                yield number + start, wanted.slice(start, ROWS)
            number += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{item.location}: damaged near row {number}: {error}; copy the file again") from error


def _opened(path: Path | Remote) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    with path.open("rb") as file:
        flavour = pa.ipc.open_file if file.read(len(MAGIC)) == MAGIC else pa.ipc.open_stream
    return flavour(pa.memory_map(str(path)) if isinstance(path, Path) else pa.PythonFile(path.open(), mode="r"))


def _every(reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from reader


def _check(batch: pa.RecordBatch) -> None:
    """Raise ArrowInvalid where offsets or lengths do not fit. Text that is no UTF-8 is told row by row later."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
