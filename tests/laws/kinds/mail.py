"""A small input of kind `mail`: messages and mailboxes, plain and packed, and what is no letter."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

SITE = None


def letter(number: int, body: bytes, kind: str = "text/plain; charset=utf-8", more: str = "") -> bytes:
    head = f"From: Jan <jan@mill.example>\nTo: all@mill.example\nSubject: =?utf-8?q?M=C3=BChle?= {number}\n"
    date = "Date: Tue, 02 Jan 2024 03:04:05 +0100\nMIME-Version: 1.0\n"
    return f"{head}{date}Content-Type: {kind}\n{more}\n".encode() + body + b"\n"


def box(count: int = 10) -> bytes:
    letters = [letter(n, f"Der Müller mahlt {n}.\n>From the mill\n".encode()) for n in range(count)]
    letters[3] = letter(3, b"\x89PNG", "image/png")
    letters[4] = letter(4, b"")
    return b"".join(b"From jan@mill.example Tue Jan  2 03:04:05 2024\n" + text + b"\n" for text in letters)


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    (folder / "a.mbox").write_bytes(box())
    (folder / "deep" / "b.mbox.gz").write_bytes(gzip.compress(box(), mtime=0))
    (folder / "deep" / "cut.mbox.gz").write_bytes(gzip.compress(box(), mtime=0)[:-4])
    (folder / "c.eml").write_bytes(letter(1, "Müller".encode("latin-1"), "text/plain; charset=iso-8859-1"))
    (folder / "00001.7c53336b37003a9286aba55d2945844c").write_bytes(letter(2, b"<p>Hi</p>", "text/html"))
    (folder / "empty.eml").write_bytes(b"")
    return {"params": {"paths": [f"{folder}/**/*"]}, "rows": 3 * 10 + 3, "rejects": 3 * 2 + 1 + 1, "cut": ()}


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "a.mbox"
    path.write_bytes(path.read_bytes().replace(b"mahlt 9", b"mahlt 8"))
