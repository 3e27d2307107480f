"""Rows of files by their format: JSON lines, delimited tables, plain text and HTML, compressed or not.

The law: what is no row says why, and the rest of the file is read; a line, a table row or a text file that is longer
than the limit is passed, not held. The number that matters: one row and one block, what is in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import orjson

from pipeline.sources import Guard, Item, _charset
from pipeline.sources._rows import RowError
from pipeline.sources._streams import StreamError, inflate, lines, raw

LINES, TABLES, TEXT, HTML = (".jsonl", ".ndjson"), (".csv", ".tsv"), (".txt", ".md"), (".html", ".htm", ".xhtml")
STREAMED = LINES + TABLES + TEXT + HTML
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
BOM = b"\xef\xbb\xbf"
Row = dict[str, Any] | RowError


def split(name: str) -> tuple[str, str]:
    """(".jsonl", ".gz") for a.jsonl.gz."""
    *_, before, last = ["", "", *PurePosixPath(name).suffixes]
    return (before.lower(), last.lower()) if last.lower() in COMPRESSED else (last.lower(), "")


def plain(item: Item, guard: Guard) -> Iterator[bytes]:
    """The blocks of an item's file as they were before it was packed."""
    blocks, compression = raw(item, guard), split(item.path)[1]
    return inflate(blocks, compression) if compression else blocks


def rows(blocks: Iterator[bytes], form: str, compression: str, limit: int, first: int = 1) -> Iterator[tuple[int, Row]]:
    """Numbered rows, or what is wrong with them. A form that is none of STREAMED is read as plain text."""
    unpacked = inflate(blocks, compression) if compression else blocks
    if form in LINES:
        yield from _json_lines(unpacked, limit, first)
    elif form in TABLES:
        yield from _table(unpacked, limit, "\t" if form == ".tsv" else ",")
    else:
        yield from _text(unpacked, limit, form in HTML)


def _json_lines(plain: Iterator[bytes], limit: int, first: int) -> Iterator[tuple[int, Row]]:
    number = first - 1
    try:
        for number, line in lines(plain, first, limit):
            if line is None:
                yield number, _too_long(limit)
            elif line and not line.isspace():
                yield number, _object(line.removeprefix(BOM) if number == 1 else line)
    except StreamError as error:
        yield number + 1, RowError(error.reason, str(error))


def _too_long(limit: int) -> RowError:
    return RowError("line_too_long", f"longer than maximum_row_bytes ({limit:,})")


def _object(line: bytes) -> Row:
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


class _Lines:
    """Lines of a table for `csv`, which asks for as many as a row has. The bytes that are no UTF-8 stay told apart."""

    def __init__(self, plain: Iterator[bytes], limit: int) -> None:
        self._lines, self._limit = lines(plain, 1, limit), limit
        self.size, self.first = 0, True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        self.size += len(line or b"")
        if line is None or self.size > self._limit:
            raise _too_long(self._limit)
        line, self.first = line.removeprefix(BOM) if self.first else line, False
        return line.decode("utf-8", "surrogateescape") + "\n"


def _table(plain: Iterator[bytes], limit: int, delimiter: str) -> Iterator[tuple[int, Row]]:
    """Rows of RFC 4180, numbered from 1 behind the header. A row ends at the line that ends its last quotes."""
    csv.field_size_limit(2 * limit)
    source = _Lines(plain, limit)
    reader, names, number = csv.reader(source, delimiter=delimiter, strict=True), None, -1
    while True:
        source.size = 0
        try:
            values = next(reader)
            if not values:
                continue
            number += 1
            row = _columns(names, values) if names is not None else None
        except StopIteration:
            return
        except StreamError as error:
            yield number + 1, RowError(error.reason, str(error))
            return
        except csv.Error as error:
            number += 1
            row = RowError("malformed_row", str(error))
        except RowError as error:
            number += 1
            row = error
        if row is not None:
            yield number, row
        elif names is None:
            names = values


def _columns(names: list[str], values: list[str]) -> Row:
    if len(values) != len(names):
        return RowError("wrong_columns", f"{len(values)} values in {len(names)} columns")
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        return RowError("invalid_utf8", f"byte {error.object[error.start]!a} of the row is no UTF-8")
    return dict(zip(names, values, strict=True))


def _text(plain: Iterator[bytes], limit: int, html: bool) -> Iterator[tuple[int, Row]]:
    """A file that is one document: row 0. Plain text is UTF-8; HTML is in the charset that `_charset` finds."""
    pieces: list[bytes] = []
    size = 0
    try:
        for block in plain:
            size += len(block)
            pieces.append(block) if size <= limit else pieces.clear()
        if size > limit:
            yield 0, RowError("file_too_long", f"{size:,} bytes, more than maximum_row_bytes ({limit:,})")
        elif size and html:
            yield 0, {"text": _charset.text_of(b"".join(pieces))[0]}
        elif size:
            yield 0, {"text": b"".join(pieces).removeprefix(BOM).decode()}
    except (StreamError, RowError) as error:
        yield 0, RowError(error.reason, str(error))
    except UnicodeDecodeError as error:
        yield 0, RowError("invalid_utf8", f"{error.reason} at byte {error.start}")
