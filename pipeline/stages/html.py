"""HTML to text: the main text of a page, or all of it, by the library that the recipe names.

    extractor       trafilatura (the best), resiliparse (six times as fast), or plain (resiliparse's whole page)
    favour          of trafilatura alone: precision leaves more out, recall less
    maximum_depth   elements within elements: a page that lies deeper is quarantined before a library sees it
    seconds         CPU time of a page, beyond which it is quarantined. Only this can differ between machines

On 95 pages of scrapinghub's article benchmark, F1 of tokens (of 4-grams, as its authors count): trafilatura .961
(.955), with favour = "precision" .970 (.965), resiliparse .920 (.909), plain .70 (`tests/bench/extraction.py`).

The law: a document that its source does not call HTML (`content_type` in `meta`), or that no source judged and that has
no tag, stays as it is; a page without main text becomes empty, for a rule to judge. The number that matters: 52 pages
a CPU second for trafilatura, 345 for resiliparse.
"""

from __future__ import annotations

import re

import orjson
import pyarrow as pa

from pipeline.extraction import Extractor, Favour, extract
from pipeline.schema import replace
from pipeline.stage import rewrite

HTML = ("text/html", "application/xhtml+xml")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")
_LOOKS = re.compile(r"<(?:!doctype\s+html|/?(?:html|head|body|p|div|br|a|span|h[1-6]|li|table)\b)", re.IGNORECASE)
# Elements that have no end tag, or whose end tag may be left out.
_OPEN = frozenset(
    "area base br col embed hr img input link meta source track wbr p li dt dd rb rt rtc rp optgroup option thead "
    "tbody tfoot tr td th colgroup caption".split()
)


def check(**params: object) -> None:
    """Raise ValueError for limits that cannot be."""
    if not 0 < float(str(params["seconds"])) <= 3600 or int(str(params["maximum_depth"])) < 1:
        raise ValueError("`seconds` lies above 0 and at most at 3600, `maximum_depth` at 1 or more")
    if params["favour"] != "balance" and params["extractor"] != "trafilatura":
        raise ValueError("`favour` is of extractor trafilatura alone")


@rewrite
def html(
    batch: pa.RecordBatch,
    *,
    extractor: Extractor = "trafilatura",
    favour: Favour = "balance",
    maximum_depth: int = 1000,
    seconds: float = 20.0,
) -> pa.RecordBatch:
    """Rewrite HTML pages as their text."""
    metas = batch["meta"].to_pylist() if "meta" in batch.schema.names else [None] * batch.num_rows
    texts = batch["text"].to_pylist()
    for row, (text, meta) in enumerate(zip(texts, metas, strict=True)):
        if text and _is_html(text, meta):
            if (deep := depth(text, maximum_depth)) > maximum_depth:
                raise ValueError(f"elements lie {deep:,} deep or more, maximum_depth is {maximum_depth:,}")
            texts[row] = extract(text, extractor, favour, seconds)
    return replace(batch, text=pa.array(texts, batch.schema.field("text").type))


def _is_html(text: str, meta: str | None) -> bool:
    kind = orjson.loads(meta).get("content_type") if meta else None
    return kind in HTML if kind else _LOOKS.search(text, 0, 4096) is not None


def depth(text: str, limit: int) -> int:
    """How deep elements lie in elements, counted by start and end tags, up to just beyond the limit."""
    if text.count("<") <= limit:
        return 0
    deepest = now = 0
    for end, name in _TAG.findall(text):
        if name.lower() in _OPEN:
            continue
        now = max(0, now - 1) if end else now + 1
        if now > deepest:
            deepest = now
            if deepest > limit:
                break
    return deepest
