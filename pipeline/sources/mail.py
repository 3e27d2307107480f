"""E-mail: a message a file (.eml, or no ending at all), and mailboxes (.mbox, mboxrd), packed or not: a message is a
document.

The text is the message's plain part, or its HTML where it has none (stage `html` makes plain text of it), in the
charset that it is in; attachments are left behind. A row is a message, numbered from 0 in its file. `meta` has
`subject`, `date` (ISO 8601), `list` (List-Id), `content_type` and `offset`; who wrote to whom stays out of it, unless
`people` asks for it. Parameters:

    paths                  globs, relative to the card; "{data}/..." is under the data folder
    people                 keep `from` and `to` in `meta`
    maximum_message_bytes  a longer message is rejected, not held

The law: a message without a readable part is a reject, and the mailbox goes on behind it; what says that it is in one
charset and is in another is read as what it is. A file is an item. The number that matters: one message, what is in
memory.
"""

from __future__ import annotations

import email
import email.policy
import email.utils
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from typing import Any

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item, _charset
from pipeline.sources._formats import plain, split
from pipeline.sources._paths import wholes
from pipeline.sources._rows import RowError
from pipeline.sources._streams import StreamError

BOXES = (".mbox", ".mbx")
# "From " and an address, then a date with a year: a line of a letter rarely goes on like that.
_FROM = re.compile(rb"From \S.*\d\d:\d\d.*\d{4}\s*$|From - .*\d{4}\s*$")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
LINE = 64 << 10
PARTS = 200


def survey(*, paths: list[str], people: bool = False, maximum_message_bytes: int = 32 << 20) -> Iterator[Item]:
    """An item for each file that the globs match. Raises SourceError when one matches nothing or cannot be read."""
    yield from wholes(paths)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    people: bool = False,
    maximum_message_bytes: int = 32 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one file. Raises SourceError for one that changed."""
    guard, collector, number = Guard(item), Collector(source, item.path, licence), 0
    try:
        for offset, data in _messages(plain(item, guard), split(item.path)[0] in BOXES, maximum_message_bytes):
            _collect(collector, number, offset, data, people, maximum_message_bytes)
            number += 1
            if collector.full:
                yield from collector.take()
    except StreamError as error:
        collector.reject(number, error.reason, str(error))
        number += 1
    guard.finish()
    if number == 0:
        collector.reject(0, "empty_file", "the file has no message")
    yield from collector.take()


def _messages(blocks: Iterator[bytes], box: bool, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(offset, bytes) of messages; None for one that is longer than the limit. A break ends the last one unread."""
    held: list[bytes] = []
    size = offset = start = 0
    blank, begun = True, not box
    for line in _lines(blocks):
        if box and blank and _FROM.match(line):
            if begun and size:
                yield start, _QUOTED.sub(rb"\1", b"".join(held)) if size <= limit else None
            held, size, begun, start = [], 0, True, offset
        elif begun or line.strip():
            size, begun = size + len(line), True
            held.append(line) if size <= limit else held.clear()
        blank, offset = not line.strip(b"\r\n"), offset + len(line)
    if size:
        joined = b"".join(held)
        yield start, (_QUOTED.sub(rb"\1", joined) if box else joined) if size <= limit else None


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their ends, long ones in pieces."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).splitlines(keepends=True) or [b""]
        yield from lines
        if rest.endswith(b"\n") or len(rest) > LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _collect(collector: Collector, number: int, offset: int, data: bytes | None, people: bool, limit: int) -> None:
    try:
        if data is None:
            raise RowError("message_too_long", f"more than maximum_message_bytes ({limit:,})")
        collector.document(number, _document(data, offset, people))
    except RowError as error:
        collector.reject(number, error.reason, f"at byte {offset:,}: {error}")


def _document(data: bytes, offset: int, people: bool) -> dict[str, Any]:
    try:
        message = email.message_from_bytes(data, policy=email.policy.compat32)
        text, kind, charset = _text(message)
    except (LookupError, ValueError, AssertionError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError("malformed_message", f"{type(error).__name__}: {error}") from error
    if not text.strip():
        raise RowError("empty_text", "the message has no text")
    meta = {"offset": offset, "content_type": kind, "charset": charset, "subject": _header(message, "Subject")}
    meta |= {"date": _date(message), "list": _header(message, "List-Id")}
    meta |= {"from": _header(message, "From"), "to": _header(message, "To")} if people else {}
    kept = {name: value for name, value in meta.items() if value is not None}
    return {"text": text, "meta": orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()}


def _text(message: Message) -> tuple[str, str, str]:
    """Text, content type and charset of the plain part, or of the HTML one. Raises RowError."""
    parts: dict[str, Message] = {}
    for number, part in enumerate(message.walk()):
        if number >= PARTS:
            break
        kind = part.get_content_type()
        attached = "attachment" in str(part.get("Content-Disposition", "")).lower()
        if kind in ("text/plain", "text/html") and not attached and not part.is_multipart():
            parts.setdefault(kind, part)
    found = parts.get("text/plain") or parts.get("text/html")
    if found is None:
        raise RowError("no_text_part", f"the message is {message.get_content_type()} and has no part of text")
    kind, payload = found.get_content_type(), found.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    text, charset = _charset.text_of(content, found.get_content_charset(), kind == "text/html")
    return text.replace("\r\n", "\n"), kind, charset


def _header(message: Message, name: str) -> str | None:
    """A header, its encoded words read, on one line; None where it is absent."""
    value = message.get(name)
    if value is None:
        return None
    try:
        pieces = [_word(piece, charset) for piece, charset in decode_header(str(value))]
    except (ValueError, LookupError):
        pieces = [str(value)]
    return " ".join("".join(pieces).split()).encode("utf-8", "replace").decode() or None


def _word(piece: bytes | str, charset: str | None) -> str:
    if isinstance(piece, str):
        return piece
    return piece.decode(_charset.codec(charset or "ascii") or "cp1252", "replace")


def _date(message: Message) -> str | None:
    try:
        return email.utils.parsedate_to_datetime(str(message.get("Date", ""))).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
