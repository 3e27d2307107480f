"""Dumps of MediaWiki in XML (.xml, and .bz2, .gz, .xz, .zst of it), as the Wikimedia Foundation gives them: a page is a
document, its text that of its last revision in the file, as wikitext.

A row is a page, numbered from 0. `meta` has `title`, `page` and `revision` (numbers), `date` and `namespace`; the URL
is made of the dump's own address and the title. Parameters:

    paths               globs, relative to the card; "{data}/..." is under the data folder
    namespaces          numbers of the namespaces whose pages are documents: 0 are articles
    redirects           pages that only lead to another are documents, too; else they and other namespaces are none,
                        and no rejects
    maximum_page_bytes  a longer text is rejected, not held

The law: a dump that is cut or damaged gives the pages before that place, and a reject that says where; one with a
document type is refused. A file is an item. The number that matters: one page, what is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson

from pipeline.sources import Chunk, Collector, Guard, Item
from pipeline.sources._formats import plain
from pipeline.sources._xml import Made, collected, dumps, elements


def survey(
    *,
    paths: list[str],
    namespaces: list[int] = [0],  # noqa: B006 (never changed)
    redirects: bool = False,
    maximum_page_bytes: int = 64 << 20,
) -> Iterator[Item]:
    """An item for each file that the globs match. Raises SourceError: no match, or no XML by its name."""
    yield from dumps(paths)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    namespaces: list[int] = [0],  # noqa: B006 (never changed)
    redirects: bool = False,
    maximum_page_bytes: int = 64 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one file. Raises SourceError for one that changed."""
    guard, collector = Guard(item), Collector(source, item.path, licence)

    def made(page: dict[str, Any]) -> Made:
        if int(page["namespace"]) not in namespaces or ("redirect" in page and not redirects):
            return None
        return _wrong(page, maximum_page_bytes) or _document(page)

    found = map(made, _pages(item, guard, maximum_page_bytes))
    yield from collected(collector, guard, found, "the file has no page of these namespaces")


def _pages(item: Item, guard: Guard, limit: int) -> Iterator[dict[str, Any]]:
    """What a dump says of each page."""
    page: dict[str, Any] = {}
    base, parents = "", ["", ""]
    for element in elements(plain(item, guard), limit):
        name, depth = element.name, element.depth
        del parents[depth + 1 :]
        if element.attributes is not None:
            parents.append(name)
            if name == "page":
                page = {"base": base, "namespace": 0, "text": ""}
            elif name == "redirect":
                page["redirect"] = True
            continue
        parent = parents[depth]
        if name == "base":
            base = (element.text or "").strip()
        elif name == "page":
            yield page
        elif name == "text":
            page["text"] = element.text
        elif name in ("title", "timestamp"):
            page[name] = (element.text or "").strip()
        elif name == "ns" and parent == "page":
            page["namespace"] = _number(element.text)
        elif name == "id" and parent in ("page", "revision"):
            page[parent] = _number(element.text)


def _number(text: str | None) -> int:
    text = (text or "").strip()
    return int(text) if text.removeprefix("-").isdecimal() else -1


def _wrong(page: dict[str, Any], limit: int) -> tuple[str, str] | None:
    title = page.get("title", "no title")
    if page["text"] is None:
        return "page_too_long", f"{title}: more than maximum_page_bytes ({limit:,})"
    return None if page["text"].strip() else ("empty_text", f"{title}: the page has no text")


def _document(page: dict[str, Any]) -> dict[str, Any]:
    meta = {name: page.get(name) for name in ("title", "namespace", "page", "revision")}
    meta |= {"date": page.get("timestamp"), "content_type": "text/x-wiki"}
    title = quote(str(page.get("title", "")).replace(" ", "_"), safe="/:()!*,;@'~")
    url = f"{page['base'].rpartition('/')[0]}/{title}" if page["base"] else None
    return {"text": page["text"], "url": url, "meta": orjson.dumps(meta, option=orjson.OPT_SORT_KEYS).decode()}
