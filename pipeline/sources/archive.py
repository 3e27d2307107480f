"""Archives of files: zip and whl, tar (.gz, .bz2, .xz, .zst), and Debian packages. Members are streamed, never
extracted: nothing is written, so no path can escape.

A member is a file as kind `files` reads it (JSON lines, tables, text, HTML, compressed or not), and `meta` has its
name as `member` and its own row number as `row`. A document's number counts the rows of the archive in the order that
they lie in. Links, folders and devices hold no text; members that no pattern matches are no documents and no rejects.
An archive within an archive is a member like any other, and is not opened. Parameters:

    paths               globs, relative to the card; "{data}/..." is under the data folder
    members             which members are read: wildcards over the whole name; others than the known forms are text
    columns, meta       as of kind `files`
    maximum_row_bytes   a longer line (or text member) is rejected unread
    maximum_ratio       plain bytes for one packed byte: more, of a member or of the whole after 16 MiB, is a bomb

The law: what is damaged, encrypted, a bomb, or named so that it would leave its folder is a reject, and as much as
lies behind it is read. An archive is an item. The number that matters: one block, what is in memory beside a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item, _columns
from pipeline.sources._formats import COMPRESSED, STREAMED, Row, rows, split
from pipeline.sources._members import KINDS, Member, kind_of, members_of
from pipeline.sources._paths import wholes
from pipeline.sources._rows import Column, Mapped, RowError
from pipeline.sources._streams import StreamError

MEMBERS = [f"*{form}{packed}" for form in STREAMED for packed in ("", *COMPRESSED)]


def survey(
    *,
    paths: list[str],
    members: list[str] = MEMBERS,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Item]:
    """An item for each archive that the globs match. Raises SourceError: no match, no archive by its name."""
    yield from wholes(paths, kind_of, f"no archive by its name; has: {', '.join(KINDS)}; narrow the glob")


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    members: list[str] = MEMBERS,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Chunk]:
    """Documents and rejects of one archive. Raises SourceError for one that changed."""
    mapped, collector = Mapped.of(columns, meta), Collector(source, item.path, licence)
    guard, number = Guard(item), -1
    for number, (name, own, row) in enumerate(_rows(item, guard, members, maximum_row_bytes, maximum_ratio)):
        _collect(collector, number, name, own, row, mapped)
        if collector.full:
            yield from collector.take()
    guard.finish()
    if number < 0:
        collector.reject(0, "empty_file", f"no member is named like {', '.join(members[:8])}")
    yield from collector.take()


def _rows(item: Item, guard: Guard, members: list[str], limit: int, ratio: int) -> Iterator[tuple[str, int, Row]]:
    """(member, number of the row in it, row) of all members that are asked for, and of what is wrong with others."""
    try:
        for member in members_of(item, guard, ratio):
            if member.error is not None:
                yield member.name, 0, RowError(member.error.reason, str(member.error))
            elif any(fnmatchcase(member.name, pattern) for pattern in members):
                yield from _rows_of(member, limit)
    except StreamError as error:
        yield "", 0, RowError(error.reason, str(error))


def _rows_of(member: Member, limit: int) -> Iterator[tuple[str, int, Row]]:
    empty = True
    for own, row in rows(member.blocks, *split(member.name), limit):
        empty = False
        yield member.name, own, row
    if empty:
        yield member.name, 0, RowError("empty_file", "the member has no row")


def _collect(collector: Collector, number: int, name: str, own: int, row: Row, mapped: Mapped) -> None:
    if isinstance(row, RowError):
        row = RowError(row.reason, f"{name} row {own}: {row}" if name else str(row))
        _columns.collect(collector, number, row, mapped)
        return
    try:
        fields = mapped.document(row)
    except RowError as error:
        collector.reject(number, error.reason, f"{name} row {own}: {error}")
        return
    place: dict[str, Any] = {"member": name, **({"row": own} if own else {})}
    kept = orjson.loads(fields["meta"]) if fields["meta"] else {}
    fields["meta"] = orjson.dumps({**kept, **place}, option=orjson.OPT_SORT_KEYS).decode()
    collector.document(number, fields)
