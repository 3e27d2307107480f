"""A small input of kind `stackexchange`: posts and comments, whole, packed and cut, and one that declares entities."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

SITE = None


def row(number: int, kind: int, body: str, more: str = "") -> str:
    return (
        f'  <row Id="{number}" PostTypeId="{kind}" CreationDate="2024-01-02T03:04:05.678" Score="{number - 2}" '
        f'Body={quoteattr(body)} ContentLicense="CC BY-SA 4.0" {more}/>\n'
    )


def posts() -> str:
    rows = [
        row(n, 1 + n % 2, f"<p>Wie mahlt die Mühle {n}?</p>\n", f'ParentId="{n - 1}" ' * (n % 2)) for n in range(10)
    ]
    rows[0] = row(0, 1, "<p>Mühle?</p>", 'Title="A &amp; B" Tags="&lt;mill&gt;&lt;wheel&gt;" ')
    rows[4:6] = [row(4, 5, "wiki"), row(5, 2, "")]
    return '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "".join(rows) + "</posts>"


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = posts().encode()
    (folder / "Posts.xml").write_bytes(whole)
    (folder / "packed.xml.gz").write_bytes(gzip.compress(whole, mtime=0))
    (folder / "cut.xml").write_bytes(whole[:-60])
    (folder / "entities.xml").write_bytes(b'<!DOCTYPE x [<!ENTITY a "aa">]><posts><row Id="1" Body="&a;"/></posts>')
    (folder / "Comments.xml").write_text('<comments><row Id="3" PostId="1" Text="Danke!" Score="0"/></comments>')
    return {
        "params": {"paths": [f"{folder}/*"], "site": "https://mills.example.org"},
        "rows": 3 * 9 + 1 + 1,
        "rejects": 3 + 1 + 1,
        "cut": (),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "Posts.xml"
    path.write_bytes(path.read_bytes().replace(b"hle 9", b"hle 8"))
