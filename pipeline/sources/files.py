"""Files of documents: JSON lines (.jsonl, .ndjson), Parquet, Arrow (.arrow, .feather), tables (.csv, .tsv, with a
header), and plain text and HTML (.txt, .md, .html: a file is a document; HTML stays HTML, see stage `html`).

All but Parquet and Arrow may be compressed (.gz, .bz2, .xz, .zst). A row is a line that is not blank, or a row of a
table, and its number is the line's or the row's (from 1; in Parquet and Arrow from 0). Parameters:

    paths               globs, relative to the card; "{data}/..." is under the data folder; or URLs (http, https; and
                        s3, gs, hf, wherever fsspec has the store's library, with wildcards). A URL is read twice:
                        hashed when it is surveyed, and again
    columns             which column becomes what: {text = "content", label = "stars", url = "link?"}; a trailing "?"
                        says that a row may lack it. Without an entry: text, and label, url, licence where present.
                        `target` is a text to be written from this one: examples are packed with it
    meta                columns to keep in `meta`; others are left behind
    private_addresses   a URL may lead to this machine or a private network; else that is refused, redirects too
    maximum_row_bytes   a longer line (or row of a .csv, or text file, inflated) is rejected unread

The law: rejects + documents = rows met, and memory stays within some blocks and a row. The number that matters:
how many MB of JSON lines a core reads in a second (about 90 with documents of 3 KB).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources import ATOM_BYTES, Chunk, Collector, Guard, Item, SourceError, _arrow, _columns, _parquet, _stores
from pipeline.sources._formats import COMPRESSED, LINES, STREAMED, Row, rows, split
from pipeline.sources._paths import find
from pipeline.sources._rows import Column, Mapped
from pipeline.sources._stores import Remote, is_url, place
from pipeline.sources._streams import cut_lines, raw, whole

PARQUET, ARROW = (".parquet",), (".arrow", ".feather", ".ipc")


def survey(
    *,
    paths: list[str],
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Item]:
    """Every file that the globs match, large plain ones cut into parts at line ends or between rows.

    Raises SourceError when a glob matches nothing, a format is unknown, or a Parquet file lacks a column.
    """
    mapped = Mapped.of(columns, meta)
    for logical, path in found(paths, private_addresses):
        yield from items(logical, path, mapped, ATOM_BYTES)


def items(logical: str, path: Path | Remote, mapped: Mapped, target: int) -> Iterator[Item]:
    """The items of one file, of about `target` bytes where it can be cut. Raises SourceError as `survey` does."""
    form, compression = _format(path, logical)
    try:
        yield from _cut(logical, path, form, compression, mapped, target)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def found(paths: list[str], private: bool) -> list[tuple[str, Path | Remote]]:
    """The files that globs and URLs match, with their logical names, sorted by them. Raises SourceError."""
    local, remote = [p for p in paths if not is_url(p)], [p for p in paths if is_url(p)]
    here: list[tuple[str, Path | Remote]] = [
        *(find(local) if local or not remote else []),
        *_stores.find(remote, private),
    ]
    for (logical, path), (again, other) in itertools.pairwise(here := sorted(here, key=lambda file: file[0])):
        if logical == again:
            raise SourceError(f"{path} and {other} would both be {logical!r} in doc_ids; rename one")
    return here


def _format(path: Path | Remote, logical: str) -> tuple[str, str]:
    """(".jsonl", ".gz") for a.jsonl.gz; judged by the logical name, since a link's target may have any."""
    form, compression = split(logical)
    if form in STREAMED or (form in PARQUET + ARROW and not compression):
        return form, compression
    raise SourceError(
        f"{path}: unknown format {form + compression!r}; has: {', '.join(STREAMED + PARQUET + ARROW)}, and all but "
        f"Parquet and Arrow with {' or '.join(COMPRESSED)}; narrow the glob or convert the file"
    )


def _cut(logical: str, path: Path | Remote, form: str, compression: str, mapped: Mapped, target: int) -> Iterator[Item]:
    if form in PARQUET:
        yield from _parquet.cut(logical, path, mapped, target)
    elif form in ARROW:
        yield _arrow.whole(logical, path, mapped)
    elif form in LINES and not compression:
        sha256, atoms = cut_lines(path, target)
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
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one item. Raises SourceError for a damaged Parquet file or a file that changed."""
    collector = Collector(source, item.path, licence)
    yield from chunks(item, Mapped.of(columns, meta), collector, private_addresses, maximum_row_bytes)


def chunks(item: Item, mapped: Mapped, collector: Collector, private: bool, limit: int) -> Iterator[Chunk]:
    """Documents and rejects of one item by a mapping. Raises SourceError as `read` does."""
    form, compression = _format(place(item.location), item.path)
    if form in PARQUET + ARROW:
        batches = (_parquet if form in PARQUET else _arrow).batches(item, mapped, private)
        given: Iterator[Chunk] = (
            chunk for number, batch in batches for chunk in _columns.chunks(batch, number, mapped, collector)
        )
    else:
        given = _from_rows(_rows(item, form, compression, private, limit), mapped, collector)
    empty = True
    for chunk in given:
        empty = False
        yield chunk
    if empty:
        collector.reject(0, "empty_file", "the file has no row")
        yield from collector.take()


def _from_rows(numbered: Iterator[tuple[int, Row]], mapped: Mapped, collector: Collector) -> Iterator[Chunk]:
    for number, row in numbered:
        _columns.collect(collector, number, row, mapped)
        if collector.full:
            yield from collector.take()
    yield from collector.take()


def _rows(item: Item, form: str, compression: str, private: bool, limit: int) -> Iterator[tuple[int, Row]]:
    """Numbered rows, or what is wrong with them; the bytes are those of the survey when they end."""
    guard = Guard(item)
    yield from rows(raw(item, guard, private), form, compression, limit, dict(item.part).get("row", 1))
    guard.finish()
