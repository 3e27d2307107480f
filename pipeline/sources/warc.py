"""Web archives: WARC, WET and ARC files, plain or compressed (.gz, .zst): a record of a page is a document.

A row is a record, numbered from 0 in its file; a stretch of bytes that is no record has a number, too. HTML stays
HTML, as text: stage `html` makes plain text of it. `meta` has where the record lies (`offset`: in the file, that of
its gzip member where it is packed), its `date`, `content_type`, `charset`, `status`, and `truncated` where the
crawler says so. Parameters:

    paths                  globs, relative to the card; "{data}/..." is under the data folder
    types                  WARC record types that are documents: response, resource, conversion (WET). Others (request,
                           metadata, revisit ...) are no documents, and no rejects unless they are damaged
    content_types          what a document may be; others are rejects (not_text)
    statuses               of HTTP responses; others are rejects (http_status)
    verify_digests         a record whose block is not that of its digest is a reject (digest_mismatch)
    maximum_record_bytes   a longer record (or body, inflated) is rejected, not held

The law: every record of these types is a document or a reject, whatever the file has gone through: see `_records`
and `_salvage`. A file is an item. The number that matters: 140 MB of text from plain WARC that a core reads in a
second, 76 from .gz (`tests/bench/sources.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item, _charset, _http
from pipeline.sources._paths import wholes
from pipeline.sources._records import Damage, Reader, Record, verify
from pipeline.sources._rows import RowError
from pipeline.sources._salvage import Stream, salvage
from pipeline.sources._streams import raw

TYPES = ["response", "resource", "conversion"]
HTML = ["text/html", "application/xhtml+xml"]
CONTENT = [*HTML, "text/plain"]
LANGUAGES = "warc-identified-content-language"
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s;"',]+)""", re.IGNORECASE)


def survey(
    *,
    paths: list[str],
    types: list[str] = TYPES,
    content_types: list[str] = CONTENT,
    statuses: list[int] = [200],  # noqa: B006 (never changed)
    verify_digests: bool = True,
    maximum_record_bytes: int = 64 << 20,
) -> Iterator[Item]:
    """An item for each file that the globs match. Raises SourceError when one matches nothing or cannot be read."""
    yield from wholes(paths)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    types: list[str] = TYPES,
    content_types: list[str] = CONTENT,
    statuses: list[int] = [200],  # noqa: B006 (never changed)
    verify_digests: bool = True,
    maximum_record_bytes: int = 64 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one file. Raises SourceError for one that changed."""
    guard, collector = Guard(item), Collector(source, item.path, licence)
    stream, met = Stream(salvage(raw(item, guard), item.path.endswith(".gz"))), False
    for found in Reader(stream, maximum_record_bytes):
        record = found.short if isinstance(found, Damage) else found
        if isinstance(found, Damage) and not _complete(record, types):
            collector.reject(found.number, found.reason, found.message)
        elif record and record.kind in types:
            _collect(collector, record, content_types, statuses, verify_digests, maximum_record_bytes)
        else:
            continue
        met = True
        if collector.full:
            yield from collector.take()
    guard.finish()
    if not met:
        collector.reject(0, "empty_file", f"the file has no record of type {', '.join(types)}")
    yield from collector.take()


def _complete(record: Record | None, types: list[str]) -> bool:
    """Whether a record that is cut short holds a whole response all the same, by what its HTTP header says."""
    try:
        _, http, content = _http.response(record.block if record and record.kind in types else b"")
    except RowError:
        return False
    length = http.get("content-length", "")
    return (
        length.isdecimal()
        and "transfer-encoding" not in http
        and len(content.rstrip(b"\r\n")) <= int(length) <= len(content)
    )


def _collect(
    collector: Collector, record: Record, kinds: list[str], statuses: list[int], verified: bool, limit: int
) -> None:
    try:
        if verified:
            verify(record)
        collector.document(record.number, _document(record, kinds, statuses, limit))
    except RowError as error:
        collector.reject(record.number, error.reason, f"{record.fields.get('warc-target-uri', 'no URL')}: {error}")


def _document(record: Record, kinds: list[str], statuses: list[int], limit: int) -> dict[str, Any]:
    """The columns of a document. Raises RowError."""
    fields, content = record.fields, record.block
    meta: dict[str, Any] = {"offset": record.offset}
    stated = fields.get("content-type", "")
    if record.kind == "response" and (content.startswith(b"HTTP/") or stated.startswith("application/http")):
        status, http, content = _http.response(content)
        if status not in statuses:
            raise RowError("http_status", f"status {status}")
        content = _http.body(http, content, limit)
        stated, meta = http.get("content-type", ""), {**meta, "status": status}
    kind = stated.partition(";")[0].strip().lower() or fields.get("warc-identified-payload-type") or _sniffed(content)
    if kind not in kinds:
        raise RowError("not_text", f"content type {kind[:80]!r}")
    label = _CHARSET.search(stated)
    text, charset = _charset.text_of(content, label.group(1) if label else None, kind in HTML)
    if not text.strip():
        raise RowError("empty_text", "the page is empty")
    meta |= {"content_type": kind, "charset": charset}
    for name, field in (("date", "warc-date"), ("truncated", "warc-truncated"), ("languages", LANGUAGES)):
        if field in fields:
            meta[name] = fields[field]
    return {"text": text, "url": fields.get("warc-target-uri", "").strip("<>") or None, "meta": _json(meta)}


def _json(meta: dict[str, Any]) -> str:
    return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS).decode()


def _sniffed(content: bytes) -> str:
    """What a page is that does not say: HTML where it begins like it."""
    return "text/html" if content.lstrip()[:1] == b"<" else ""
