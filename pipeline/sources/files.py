"""Files of documents: JSON lines (.jsonl, .ndjson), Parquet, and plain text (.txt, .md: a file is a document).

JSON lines and text may be compressed (.gz, .zst). A row is a line that is not blank, or a Parquet row, and its
number is the line's (from 1) or the row's (from 0). Parameters:

    paths               globs, relative to the card; "{data}/..." is under the data folder
    columns             which column becomes what: {text = "content", label = "stars", url = "link?"}; a trailing "?"
                        says that a row may lack it. Without an entry: text, and label, url, licence where present.
                        `target` is a text to be written from this one: examples are packed with it
    meta                columns to keep in `meta`; others are left behind
    maximum_row_bytes   a longer line (or text file, inflated) is rejected unread

The law: rejects + documents = rows met, and memory stays within some blocks and a row. The number that matters:
how many MB of JSON lines a core reads in a second (about 90 with documents of 3 KB).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pipeline.sources import ATOM_BYTES, Chunk, Collector, Guard, Item, SourceError, _columns, _parquet
from pipeline.sources._paths import find
from pipeline.sources._rows import Column, Mapped, RowError
from pipeline.sources._streams import StreamError, cut_lines, inflate, lines, raw, whole

LINES, TEXT, PARQUET = (".jsonl", ".ndjson"), (".txt", ".md"), (".parquet",)
COMPRESSED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"


def survey(
    *,
    paths: list[str],
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Item]:
    """Every file that the globs match, large plain ones cut into parts at line ends or between rows.

    Raises SourceError when a glob matches nothing, a format is unknown, or a Parquet file lacks a column.
    """
    mapped = Mapped.of(columns, meta)
    for logical, path in find(paths):
        form, compression = _format(path, logical)
        try:
            yield from _cut(logical, path, form, compression, mapped)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error


def _format(path: Path, logical: str) -> tuple[str, str]:
    """(".jsonl", ".gz") for a.jsonl.gz; judged by the logical name, since a link's target may have any."""
    *_, before, last = ["", "", *Path(logical).suffixes]
    form, compression = (before, last) if last in COMPRESSED else (last, "")
    if form in LINES + TEXT or (form in PARQUET and not compression):
        return form, compression
    raise SourceError(
        f"{path}: unknown format {before * bool(compression) + last!r}; has: {', '.join(LINES + TEXT + PARQUET)}, "
        f"and all but Parquet with {' or '.join(COMPRESSED)}; narrow the glob or convert the file"
    )


def _cut(logical: str, path: Path, form: str, compression: str, mapped: Mapped) -> Iterator[Item]:
    if form in PARQUET:
        yield from _parquet.cut(logical, path, mapped, ATOM_BYTES)
    elif form in LINES and not compression:
        sha256, atoms = cut_lines(path, ATOM_BYTES)
        for atom in atoms:
            yield Item(logical, str(path), atom.size, sha256, atom.part if len(atoms) > 1 else ())
    else:
        yield Item(logical, str(path), path.stat().st_size, whole(path))


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one item. Raises SourceError for a damaged Parquet file or a file that changed."""
    form, compression = _format(Path(item.location), item.path)
    mapped, collector = Mapped.of(columns, meta), Collector(source, item.path, licence)
    if form in PARQUET:
        chunks = _from_columns(item, mapped, collector)
    else:
        chunks = _from_rows(_rows(item, form, compression, maximum_row_bytes), mapped, collector)
    empty = True
    for chunk in chunks:
        empty = False
        yield chunk
    if empty:
        collector.reject(0, "empty_file", "the file has no row")
        yield from collector.take()


def _from_columns(item: Item, mapped: Mapped, collector: Collector) -> Iterator[Chunk]:
    for number, batch in _parquet.batches(item, mapped):
        yield from _columns.chunks(batch, number, mapped, collector)


def _from_rows(
    rows: Iterator[tuple[int, dict[str, Any] | RowError]], mapped: Mapped, collector: Collector
) -> Iterator[Chunk]:
    for number, row in rows:
        _columns.collect(collector, number, row, mapped)
        if collector.full:
            yield from collector.take()
    yield from collector.take()


def _rows(item: Item, form: str, compression: str, limit: int) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Numbered rows, or what is wrong with them; the bytes are those of the survey when they end."""
    guard = Guard(item)
    blocks = raw(item, guard)
    plain = inflate(blocks, compression) if compression else blocks
    yield from _json_lines(plain, item, limit) if form in LINES else _text(plain, limit)
    guard.finish()


def _json_lines(plain: Iterator[bytes], item: Item, limit: int) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    first = dict(item.part).get("row", 1)
    number = first - 1
    try:
        for number, line in lines(plain, first, limit):
            if line is None:
                yield number, RowError("line_too_long", f"longer than maximum_row_bytes ({limit:,})")
            elif line and not line.isspace():
                yield number, _object(line.removeprefix(BOM) if number == 1 else line)
    except StreamError as error:
        yield number + 1, RowError(error.reason, str(error))


def _object(line: bytes) -> dict[str, Any] | RowError:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _accuse(line, str(error))
    return row if isinstance(row, dict) else RowError("not_an_object", f"the line is a JSON {type(row).__name__}")


def _accuse(line: bytes, message: str) -> RowError:
    """Say what is wrong with a line that is no JSON."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return RowError("invalid_utf8", f"{error.reason} at byte {error.start} of the line")
    return RowError("lone_surrogate" if "surrogate" in message else "malformed_json", message)


def _text(plain: Iterator[bytes], limit: int) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """A file that is one document: row 0."""
    pieces: list[bytes] = []
    size = 0
    try:
        for block in plain:
            size += len(block)
            pieces.append(block) if size <= limit else pieces.clear()
        if size > limit:
            yield 0, RowError("file_too_long", f"{size:,} bytes, more than maximum_row_bytes ({limit:,})")
        elif size:
            yield 0, {"text": b"".join(pieces).removeprefix(BOM).decode()}
    except StreamError as error:
        yield 0, RowError(error.reason, str(error))
    except UnicodeDecodeError as error:
        yield 0, RowError("invalid_utf8", f"{error.reason} at byte {error.start}")
