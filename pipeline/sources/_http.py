"""The body of an HTTP response as an archive holds it: its status, its fields, and its bytes without their codings.

The law: a body is undone as far as it keeps to what it says, and never swells beyond the limit. Bodies that were
undone before they were archived, though their header still says chunked or gzip, are taken as they are.
"""

from __future__ import annotations

import re
import zlib

from pipeline.sources._records import fields_of
from pipeline.sources._rows import RowError

_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]{0,1000})?\r?\n")


def response(block: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and raw body of a response. Raises RowError where it is none."""
    head, rest = _split(block)
    first, *lines = head.split(b"\n")
    words = first.split(None, 2)
    if not first.startswith(b"HTTP/") or len(words) < 2 or not words[1].isdigit():
        raise RowError("bad_http", "the record holds no HTTP response")
    return int(words[1]), fields_of(lines), rest


def _split(block: bytes) -> tuple[bytes, bytes]:
    found = re.search(rb"\r?\n\r?\n", block)
    return (block[: found.start()], block[found.end() :]) if found else (block.rstrip(b"\r\n"), b"")


def body(fields: dict[str, str], raw: bytes, limit: int) -> bytes:
    """The body without its transfer and content codings. Raises RowError: unknown, damaged, or more than `limit`."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        raw = _unchunked(raw)
    for coding in reversed(re.split(r"[,\s]+", fields.get("content-encoding", "").lower().strip())):
        if coding in ("gzip", "x-gzip", "deflate"):
            raw = _inflated(raw, coding, limit)
        elif coding not in ("", "identity", "none", "utf-8", "8bit", "binary"):
            raise RowError("unknown_coding", f"the body is in content coding {coding[:40]!r}")
    return raw


def _unchunked(raw: bytes) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while found := _SIZE.match(raw, at):
        size = int(found.group(1), 16)
        if size == 0:
            return b"".join(pieces)
        piece = raw[found.end() : found.end() + size]
        pieces.append(piece)
        at = found.end() + size
        if len(piece) < size:
            raise RowError("truncated_body", f"a chunk has {len(piece):,} bytes of {size:,}")
        at += 2 if raw[at : at + 2] == b"\r\n" else raw[at : at + 1] == b"\n"
    if not pieces:
        return raw
    raise RowError("truncated_body", "the last chunk is missing")


def _inflated(raw: bytes, coding: str, limit: int) -> bytes:
    if coding != "deflate" and raw[:2] != b"\x1f\x8b":
        return raw
    for bits in (31,) if coding != "deflate" else (15, -15):
        state = zlib.decompressobj(wbits=bits)
        try:
            plain = state.decompress(raw, limit + 1)
        except zlib.error as error:
            message = str(error)
            continue
        if len(plain) > limit:
            raise RowError("body_too_long", f"the body swells to more than maximum_record_bytes ({limit:,})")
        if not state.eof:
            raise RowError("truncated_body", f"the {coding} body ends early")
        return plain
    if coding == "deflate" and raw.lstrip()[:1] == b"<":
        return raw
    raise RowError("corrupt_body", f"damaged {coding} body: {message}")
