"""Dumps of Stack Exchange (Posts.xml, Comments.xml; also .gz, .bz2, .xz, .zst): a post or a comment is a document.

The text is the body as it lies in the dump: HTML for posts (stage `html` makes plain text of it), Markdown for
comments. A row is a `<row>`, numbered from 0. `meta` has `id`, `kind` (question, answer, or the number of another
kind; comment), `parent` (the question of an answer, the post of a comment), `title`, `tags`, `score`, `date` and
`content_type`; the licence is what the row states. Parameters:

    paths              globs, relative to the card; "{data}/..." is under the data folder
    kinds              which are documents: question, answer, comment. Others are none, and no rejects
    site               the site's address for URLs: "https://cooking.stackexchange.com"
    minimum_score      posts below it are no documents, and no rejects
    maximum_row_bytes  a longer row ends the file with a reject

The law: as of `mediawiki`. A file is an item. The number that matters: one row, what is in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item
from pipeline.sources._formats import plain
from pipeline.sources._xml import Made, collected, dumps, elements

Kind = Literal["question", "answer", "comment"]
KINDS: list[Kind] = ["question", "answer", "comment"]
_POSTS = {"1": "question", "2": "answer"}
_LICENCE = re.compile(r"CC BY-SA (\d\.\d)")


def survey(
    *,
    paths: list[str],
    kinds: list[Kind] = KINDS,
    site: str | None = None,
    minimum_score: int | None = None,
    maximum_row_bytes: int = 16 << 20,
) -> Iterator[Item]:
    """An item for each file that the globs match. Raises SourceError: no match, or no XML by its name."""
    yield from dumps(paths)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    kinds: list[Kind] = KINDS,
    site: str | None = None,
    minimum_score: int | None = None,
    maximum_row_bytes: int = 16 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one file. Raises SourceError for one that changed."""
    guard, collector = Guard(item), Collector(source, item.path, licence)

    def made(row: dict[str, str]) -> Made:
        kind = _POSTS.get(row.get("PostTypeId", ""), row.get("PostTypeId", "comment"))
        if kind not in kinds or (minimum_score is not None and _number(row, "Score", 0) < minimum_score):
            return None
        text = row.get("Text" if kind == "comment" else "Body", "")
        if text.strip():
            return _document(row, kind, text, site)
        return "empty_text", f"{kind} {row.get('Id', '')} has no text"

    found = map(made, _rows(item, guard, maximum_row_bytes))
    yield from collected(collector, guard, found, f"the file has no {', '.join(kinds)}")


def _rows(item: Item, guard: Guard, limit: int) -> Iterator[dict[str, str]]:
    for element in elements(plain(item, guard), limit):
        if element.name == "row" and element.attributes is not None:
            yield element.attributes


def _number(row: dict[str, str], name: str, missing: int | None = None) -> Any:
    value = row.get(name, "")
    return int(value) if value.removeprefix("-").isdecimal() else missing


def _document(row: dict[str, str], kind: str, text: str, site: str | None) -> dict[str, Any]:
    own = _number(row, "Id")
    parent = _number(row, "PostId" if kind == "comment" else "ParentId")
    meta = {
        "id": own,
        "kind": kind,
        "parent": parent,
        "title": row.get("Title"),
        "tags": [tag for tag in re.split(r"[<>|]+", row.get("Tags", "")) if tag] or None,
        "score": _number(row, "Score"),
        "date": row.get("CreationDate"),
        "content_type": "text/markdown" if kind == "comment" else "text/html",
    }
    place = {"question": f"q/{own}", "answer": f"a/{own}"}.get(kind, f"posts/comments/{own}")
    stated = _LICENCE.fullmatch(row.get("ContentLicense", ""))
    return {
        "text": text,
        "url": f"{site.rstrip('/')}/{place}" if site and own is not None else None,
        "licence": f"CC-BY-SA-{stated.group(1)}" if stated else row.get("ContentLicense"),
        "meta": orjson.dumps({k: v for k, v in meta.items() if v is not None}, option=orjson.OPT_SORT_KEYS).decode(),
    }
