"""A small input of kind `warc`: WARC, WET and ARC, plain and packed, whole and damaged."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

SITE = None


def record(kind: str, uri: str, content: bytes, mime: str) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nContent-Type: {mime}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n\r\n"


def response(number: int, body: bytes, head: str = "200 OK\r\nContent-Type: text/html; charset=utf-8") -> bytes:
    content = f"HTTP/1.1 {head}\r\n\r\n".encode() + body
    return record("response", f"https://example.org/{number}", content, "application/http; msgtype=response")


def records() -> list[bytes]:
    pages = [response(n, f"<p>Seite {n}: der Müller mahlt.</p>".encode()) for n in range(12)]
    pages[2] = response(2, b"gone", "404 Not Found\r\nContent-Type: text/html")
    pages[5] = response(5, b"\x89PNG", "200 OK\r\nContent-Type: image/png")
    pages[7] = response(7, b"")
    return [record("warcinfo", "", b"software: none\r\n", "application/warc-fields"), *pages]


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    whole, members = records(), [gzip.compress(r, mtime=0) for r in records()]
    (folder / "plain.warc").write_bytes(b"".join(whole))
    (folder / "members.warc.gz").write_bytes(b"".join(members))
    (folder / "rubbish.warc.gz").write_bytes(b"".join(members) + b"rubbish")
    members[4] = members[4][:40] + b"\xff" * 8 + members[4][48:]
    (folder / "deep" / "damaged.warc.gz").write_bytes(b"".join(members))
    (folder / "cut.warc").write_bytes(b"".join(whole)[:-20])
    (folder / "empty.warc").write_bytes(b"")
    text = record("conversion", "https://example.org/", "Der Müller mahlt.".encode(), "text/plain")
    (folder / "page.warc.wet").write_bytes(text)
    (folder / "old.arc").write_bytes(
        b"filedesc://old.arc 0.0.0.0 20140216050221 text/plain 4\n1 0\n\n"
        b"http://example.org/a b 0.0.0.0 20140216050221 text/html 43\nHTTP/1.1 200 OK\r\n\r\n<p>The miller grinds</p>\n"
    )
    return {
        "params": {"paths": [f"{folder}/**/*"]},
        "rows": 4 * 12 + 13 + 1 + 1 + 1,
        "rejects": 3 * 5 + 1 + 1 + 1 + 1,
        "cut": (),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "plain.warc"
    path.write_bytes(path.read_bytes().replace(b"Seite 9", b"Seide 9"))
