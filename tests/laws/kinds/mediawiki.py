"""A small input of kind `mediawiki`: whole, packed, cut, and one that declares entities."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

SITE = None
HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">\n<siteinfo>'
    "<base>https://de.wikipedia.org/wiki/Hauptseite</base><namespaces><namespace key='0' /></namespaces></siteinfo>\n"
)
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


def page(number: int, text: str, namespace: int = 0, more: str = "") -> str:
    return (
        f"<page><title>Mühle {number} &amp; Rad</title><ns>{namespace}</ns><id>{number}</id>{more}"
        f"<revision><id>{900 + number}</id>"
        f"<timestamp>2024-01-02T03:04:05Z</timestamp><contributor><username>M</username><id>7</id></contributor>"
        f'<text bytes="9" xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def dump(pages: int = 12) -> str:
    texts = [f"'''Mühle {n}''' mahlt <ref>x</ref> & dreht." for n in range(pages)]
    made = [page(n, text) for n, text in enumerate(texts)]
    made[3:6] = [page(3, "  "), page(4, "talk", 1), page(5, "#REDIRECT [[x]]", 0, '<redirect title="x" />')]
    return HEAD + "".join(made) + "</mediawiki>\n"


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    whole = dump().encode()
    half = len(whole) // 2
    (folder / "a.xml").write_bytes(whole)
    (folder / "deep" / "b.xml.bz2").write_bytes(bz2.compress(whole[:half]) + bz2.compress(whole[half:]))
    (folder / "cut.xml").write_bytes(whole[:-100])
    (folder / "entities.xml").write_bytes(ENTITIES.encode() + dump().replace("mahlt", "&b;").encode())
    (folder / "none.xml").write_bytes(b"<mediawiki/>")
    return {"params": {"paths": [f"{folder}/**/*"]}, "rows": 3 * 10 + 2, "rejects": 1 + 1 + 2 + 2, "cut": ()}


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "a.xml"
    path.write_bytes(path.read_bytes().replace(b"hle 9", b"hle 8"))
