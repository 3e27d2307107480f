"""Records of web archives, WARC (ISO 28500) and ARC (Internet Archive, 1996), and what lies between them that is none.

The law: a damaged record costs itself alone, and every stretch of bytes is either a record or a damage that says
where it begins and what is wrong. fastwarc 2.0 and warcio 1.8 both end at the first damage, take a record that is
cut short for whole, and one of them reads no ARC; so the framing is ours. What tells a record's end is its length;
where no record and no end of file follows, the length is wrong: the record is given up, and searched for others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.sources._rows import RowError
from pipeline.sources._salvage import Break, Stream

_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_WARC = re.compile(rb"WARC/\d\.\d+\s*")
_INSIDE = re.compile(rb"\nWARC/\d\.\d+\r?\n")
_AHEAD = re.compile(rb"WARC/|[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_HEADER_BYTES = 256 << 10
TYPES = "warcinfo response resource request metadata revisit conversion continuation filedesc dns".split()
RESCUES = 100


@dataclass(frozen=True)
class Record:
    """A whole record: its number in the file, where it begins, its fields (names in lower case), and its block."""

    number: int
    offset: int
    fields: dict[str, str]
    block: bytes

    @property
    def kind(self) -> str:
        return self.fields.get("warc-type", "").lower()


@dataclass(frozen=True)
class Damage:
    """Bytes that are no whole record. Of one that the end of the file cuts short, what there is."""

    number: int
    offset: int
    reason: str
    message: str
    short: Record | None = None


class _Bad(ValueError):
    def __init__(self, reason: str, message: str, short: tuple[dict[str, str], bytes] | None = None) -> None:
        super().__init__(message)
        self.reason, self.short = reason, short


class Reader:
    """Records and damages of one file, in order."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self._rescues = RESCUES
        self._said: Break | None = None

    def __iter__(self) -> Iterator[Record | Damage]:
        stream, number, doubtful = self._stream, 0, False
        while True:
            start, passed, offset, line = self._header()
            if passed and not doubtful and (line or stream.error is None):
                yield Damage(number, start, "no_record", f"at byte {start:,}: {passed:,} bytes that are no record")
                number += 1
            doubtful = False
            if not line and stream.error is None:
                return
            try:
                if stream.error is not None and not line:
                    offset = stream.error.offset
                    raise self._broken("")
                fields, block = self._record(line)
                yield Record(number, offset, fields, block)
            except _Bad as error:
                short = Record(number, offset, *error.short) if error.short else None
                yield Damage(number, offset, error.reason, f"at byte {offset:,}: {error}", short)
                doubtful = error.reason in ("bad_length", "bad_header")
            number += 1

    def _header(self) -> tuple[int, int, int, bytes]:
        """Where the search for a record began, the bytes passed, where it begins, and its first line."""
        stream, passed = self._stream, 0
        stream.blanks()
        if self._said is not None and stream.error is self._said:
            stream.mend()
            stream.blanks()
        start = offset = stream.offset
        while (line := stream.line()) and not (_WARC.fullmatch(line) or _arc(line)):
            passed += len(line)
            offset = stream.offset
        return start, passed, offset, line

    def _record(self, line: bytes) -> tuple[dict[str, str], bytes]:
        warc = line.startswith(b"WARC/")
        fields = self._fields() if warc else _arc(line) or {}
        length = fields.get("content-length", "")
        if fields.get("warc-type") == "filedesc" and length.startswith("-"):
            while (line := self._stream.line()).strip():
                pass
            return fields, b""
        if not length.isascii() or not length.isdigit():
            raise _Bad("bad_header", f"the length of the record is {length!r}, no number")
        if fields.get("warc-type", "").lower() not in TYPES:
            raise _Bad("bad_header", f"the type of the record is {fields.get('warc-type', '')[:40]!r}")
        size = int(length)
        if size > self._limit:
            if self._stream.skip(size) < size:
                raise self._cut(fields, b"", f"the record claims {size:,} bytes, and the file has fewer")
            raise _Bad("record_too_long", f"{size:,} bytes, more than maximum_record_bytes ({self._limit:,})")
        block = self._stream.take(size)
        if len(block) < size:
            raise self._cut(fields, block, f"the record has {len(block):,} bytes of {size:,}")
        blank = self._stream.blanks()
        ahead = self._stream.peek(80)
        if self._stream.broken:
            raise self._broken("the record cannot be checked; ")
        if ahead and not _AHEAD.match(ahead) and blank < (4 if warc else 1):
            if _INSIDE.search(block):
                self._rescue(block, blank)
            raise _Bad("bad_length", f"the record claims {size:,} bytes, and other bytes than a record follow")
        return fields, block

    def _fields(self) -> dict[str, str]:
        lines, size = [], 0
        while (line := self._stream.line()).strip():
            size += len(line)
            if size > _HEADER_BYTES:
                raise _Bad("bad_header", f"the header has more than {_HEADER_BYTES:,} bytes")
            lines.append(line)
        if not line:
            raise self._cut({}, b"", "the header ends early")
        return fields_of(lines)

    def _cut(self, fields: dict[str, str], block: bytes, message: str) -> _Bad:
        """What ends early: with the file, with a break in its stream, or because its length is wrong."""
        if _INSIDE.search(block) and self._rescue(block, 0):
            return _Bad("bad_length", f"{message}; it runs into other records")
        if self._stream.error:
            return self._broken(f"{message}; ")
        return _Bad("truncated_record", message, (fields, block))

    def _broken(self, message: str) -> _Bad:
        """What the break in the stream is; it is told once."""
        self._said = self._stream.error
        return _Bad(self._said.reason if self._said else "truncated_stream", f"{message}{self._said}")

    def _rescue(self, block: bytes, blank: int) -> bool:
        """Search what was taken for a record once more for others."""
        self._rescues -= 1
        if self._rescues >= 0:
            self._stream.unread(block + b"\r\n" * (blank // 2))
        return self._rescues >= 0


def fields_of(lines: list[bytes]) -> dict[str, str]:
    """Fields of a WARC or HTTP header, names in lower case, folded lines joined; the first of a name counts."""
    fields: dict[str, str] = {}
    last = ""
    for line in lines:
        text = line.decode("utf-8", "replace").strip("\r\n")
        if text[:1] in " \t" and last:
            fields[last] = f"{fields[last]} {text.strip()}"
            continue
        name, colon, value = text.partition(":")
        last = name.strip().lower() if colon else ""
        if last:
            fields.setdefault(last, value.strip())
    return fields


def _arc(line: bytes) -> dict[str, str] | None:
    """The fields of an ARC header under their WARC names: URL (with spaces, maybe), IP, date, type, length.

    ARC 2 has five more before the length.
    """
    if not _SCHEME.match(line):
        return None
    for count in (4, 9):
        parts = [part.decode("utf-8", "replace") for part in line.strip().rsplit(b" ", count)]
        if len(parts) == count + 1 and parts[2].isdigit() and 8 <= len(parts[2]) <= 18:
            break
    else:
        return None
    url, address, date, kind = parts[:4]
    scheme = url.partition(":")[0].lower()
    stamp = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z" if len(date) >= 14 else date
    return {
        "warc-type": scheme if scheme in ("filedesc", "dns") else "response",
        "warc-target-uri": url,
        "warc-ip-address": address,
        "warc-date": stamp,
        "content-type": kind,
        "content-length": parts[-1],
    }


def verify(record: Record) -> None:
    """Raise RowError where the block is not what its digest says: hexadecimal, base32 or base64; sha1, sha256 or md5.

    The payload's digest is left alone: archives disagree on what it is taken of.
    """
    algorithm, _, stated = record.fields.get("warc-block-digest", "").partition(":")
    if not stated or algorithm.lower() not in ("sha1", "sha256", "md5"):
        return
    digest = hashlib.new(algorithm.lower(), record.block, usedforsecurity=False).digest()
    if digest not in _spelt(stated, len(digest)):
        raise RowError("digest_mismatch", f"the block is not that of its digest {algorithm}:{stated}")


def _spelt(stated: str, size: int) -> list[bytes]:
    found = []
    for decode in (
        bytes.fromhex,
        lambda text: base64.b32decode(text.upper() + "=" * (-len(text) % 8)),
        lambda text: base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)),
    ):
        try:
            digest = decode(stated.strip())
        except (ValueError, binascii.Error):
            continue
        if len(digest) == size:
            found.append(digest)
    return found
