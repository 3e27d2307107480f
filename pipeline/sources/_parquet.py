"""Parquet files: what they hold, where to cut them, and their rows, some at a time.

The law: a file whose columns are not what the card says is refused by name before a row is read. A row group of
more than an atom's bytes is cut into ranges of rows; Parquet can only be decoded from a group's start, so a reader
that stopped where the next range begins is kept and goes on. The number that matters: one, the times that a process
decodes a row group, whatever it was cut into.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources import Guard, Item, SourceError
from pipeline.sources._rows import Mapped
from pipeline.sources._stores import Remote, place
from pipeline.sources._streams import Part, cut_ranges, raw

BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Groups:
    """Adjacent row groups: the first and how many, their byte range, the number of their first row, and how many.

    `plain` counts the bytes of their values, decoded.
    """

    first: int
    count: int
    offset: int
    bytes: int
    row: int
    rows: int
    plain: int


def cut(logical: str, path: Path | Remote, mapped: Mapped, target: int) -> Iterator[Item]:
    """Items of about `target` plain bytes that tile the file: adjacent row groups, or rows of a large one."""
    runs = groups(path, mapped, target)
    sha256, atoms = cut_ranges(path, [(g.offset, g.bytes, g.row) for g in runs])
    whole = Item(logical, str(path), path.stat().st_size, sha256, (), sum(g.plain for g in runs))
    if len(runs) == 1 and _pieces(runs[0], target) == 1:
        yield whole
        return
    for group, atom in zip(runs, atoms, strict=True):
        part: Part = (*atom.part, ("group", group.first), ("groups", group.count))
        for first, rows in _ranges(group.rows, _pieces(group, target)):
            size, plain = (_share(total, first, rows, group.rows) for total in (group.bytes, group.plain))
            piece: Part = (("skip", first), ("rows", rows)) if rows != group.rows else ()
            yield Item(logical, str(path), size, sha256, (*part, *piece), plain)


def groups(path: Path | Remote, mapped: Mapped, target: int) -> list[Groups]:
    """Runs of row groups of about `target` plain bytes that tile the file (one where it is laid out in disorder)."""
    with _opened(path, mapped) as file:
        meta = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    starts = [_start(group) for group in meta]
    plain, rows = [group.total_byte_size for group in meta], [group.num_rows for group in meta]
    firsts = [0]
    for index in range(1, len(starts) if starts == sorted(starts) else 0):
        if rows[index] and sum(plain[firsts[-1] : index]) >= target:
            firsts.append(index)
    ends = [*firsts[1:], len(starts)]
    offsets = [0, *(starts[first] for first in firsts[1:]), path.stat().st_size]
    return [
        Groups(
            first, end - first, offsets[i], offsets[i + 1] - offsets[i],
            sum(rows[:first]), sum(rows[first:end]), sum(plain[first:end]),
        )
        for i, (first, end) in enumerate(zip(firsts, ends, strict=True))
    ]  # fmt: skip


def _start(group: Any) -> int:
    columns = [group.column(index) for index in range(group.num_columns)]
    return min(c.dictionary_page_offset or c.data_page_offset for c in columns)


def _pieces(group: Groups, target: int) -> int:
    return max(1, min(group.plain // target, group.rows))


def _ranges(rows: int, pieces: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of `pieces` nearly equal ranges of rows."""
    for piece in range(pieces):
        first = piece * rows // pieces
        yield first, (piece + 1) * rows // pieces - first


def _share(total: int, first: int, rows: int, of: int) -> int:
    """The part of `total` that falls to a range of rows; the parts of ranges that tile add up to it."""
    return total * (first + rows) // max(of, 1) - total * first // max(of, 1) if rows != of else total


@dataclass
class Reader:
    """The batches of some row groups, and how many of their rows have been given."""

    known: tuple[Any, ...]
    file: pq.ParquetFile
    source: Iterator[pa.RecordBatch]
    at: int = 0
    rest: pa.RecordBatch | None = None

    def batches(self, first: int, rows: int | None) -> Iterator[pa.RecordBatch]:
        """Rows `first` and after, `rows` of them or all; what was decoded beyond is kept for the next range."""
        end = None if rows is None else first + rows
        while end is None or self.at < end:
            batch = self.rest if self.rest is not None else next(self.source, None)
            self.rest = None
            if batch is None:
                return
            skipped = min(max(first - self.at, 0), batch.num_rows)
            taken = batch.num_rows if end is None else min(batch.num_rows, end - self.at)
            self.rest = batch.slice(taken) if taken < batch.num_rows else None
            self.at += taken
            if taken > skipped:
                yield batch.slice(skipped, taken - skipped)


# The reader of the range that this process read last.
_kept: deque[Reader] = deque(maxlen=1)


def batches(item: Item, mapped: Mapped, private: bool = False) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The wanted columns of an item's rows, each batch with the number of its first row.

    Raises SourceError when the file is damaged or changed since the survey.
    """
    parts = dict(item.part)
    first, number = parts.get("skip", 0), parts.get("row", 0) + parts.get("skip", 0)
    reader = _reader(item, parts, mapped, first, private)
    try:
        for batch in reader.batches(first, parts.get("rows")):
            yield number, batch
            number += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{item.location}: damaged near row {number}: {error}; copy the file again") from error
    if "rows" in parts:
        _kept.append(reader)


def _reader(item: Item, parts: dict[str, int], mapped: Mapped, first: int, private: bool) -> Reader:
    """One that stands at or before `first`, its bytes checked: the kept one, or a new one."""
    path = place(item.location, private)
    known = (item.location, item.sha256, parts.get("group"), mapped, _state(path))
    with contextlib.suppress(IndexError):
        kept = _kept.pop()
        if kept.known == known and kept.at <= first:
            return kept
        kept.file.close()
    guard = Guard(item)
    deque(raw(item, guard, private), maxlen=0)
    guard.finish()
    file = _opened(path, mapped)
    start = parts.get("group", 0)
    chosen = list(range(start, start + parts.get("groups", file.metadata.num_row_groups)))
    names = [name for name in mapped.wanted if name in file.schema_arrow.names]
    return Reader(known, file, file.iter_batches(_batch_rows(file), chosen, names, use_threads=False))


def _state(path: Path | Remote) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    try:
        stat = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows to decode at once, so that a batch takes about BATCH_BYTES."""
    meta = file.metadata
    size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    return max(1, min(4096, BATCH_BYTES * meta.num_rows // max(size, 1)))


def _opened(path: Path | Remote, mapped: Mapped) -> pq.ParquetFile:
    """The file, its columns checked. Raises SourceError naming the file and what it has."""
    try:
        file = pq.ParquetFile(path if isinstance(path, Path) else path.open(), buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file: {error}; copy the file again") from error
    check(path, file.schema_arrow, mapped)
    return file


def check(path: Path | Remote, schema: pa.Schema, mapped: Mapped) -> None:
    """Raise SourceError naming the file and what it has, where its columns are not what the card says."""
    names = schema.names
    for name in [*mapped.required, *mapped.meta]:
        if name not in names:
            raise SourceError(
                f"{path}: no column {name!r}; has: {', '.join(names) or 'nothing'}; see `columns` and `meta`"
            )
    for name in mapped.wanted:
        if names.count(name) > 1:
            raise SourceError(f"{path}: has {names.count(name)} columns named {name!r}; rename all but one")
    if "text" in mapped.columns and not is_text(text := schema.field(mapped.columns["text"][0]).type):
        raise SourceError(f"{path}: column {mapped.columns['text'][0]!r} is {text}, not text; see `columns`")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings (or nothing)."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )
