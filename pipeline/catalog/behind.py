"""What lies behind a token: the line of the document's text that holds it, and the row of the file that it came from.

Read from the store and the source's file as they are now; what is no longer there is left out, never guessed.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from pipeline import addresses
from pipeline.catalog.lookup import column_row, text_of
from pipeline.manifest import Version
from pipeline.store import Store

AROUND = 120


@dataclass
class Behind:
    """`file` and `row` are the source's (a line from 1, or a Parquet row from 0); `line` counts from 1 in the document.

    `text` is that line, at most 240 characters around the token, which is [start, end) of it; `token` says it in words
    where it is no text: the end-of-text before and behind a document.
    """

    doc_id: str
    file: str | None = None
    row: int | None = None
    line: int | None = None
    text: str | None = None
    start: int = 0
    end: int = 0
    token: str | None = None


def behind(store: Store, version: Version, doc_id: str, number: int) -> Behind:
    """The line behind a document's token `number` (from 0; its first and its last are end-of-text).

    Raises ConfigError where the version's books are not in this store, StoreError where one is damaged.
    """
    keys = addresses.books(store, version)
    found = Behind(doc_id)
    found.file, found.row = _source(store, keys.segments[0].parts, doc_id)
    for key in keys.segments[-1].parts:
        if (row := column_row(store, key, "documents.parquet", doc_id)) >= 0:
            _line(found, version, text_of(store, key, row), number)
            break
    return found


def _source(store: Store, parts: list[str], doc_id: str) -> tuple[str | None, int | None]:
    """The file of a document and its row there, as its id says and the plan of its partition knows."""
    for key in parts:
        if column_row(store, key, "entered.parquet", doc_id) >= 0:
            source = store.spec(key)["source"]
            path, _, row = doc_id.removeprefix(f"{source['card']['name']}:").rpartition(":")
            places = [item["location"] for item in source["items"] if item["path"] == path]
            return (places[0] if places else None), int(row) if row.isdigit() else None
    return None, None


def _line(found: Behind, version: Version, text: str, number: int) -> None:
    tokenizer = Tokenizer.from_file(str(Path(version.folder) / version.manifest["tokenizer"]["file"]))
    spans = tokenizer.encode(text, add_special_tokens=False).offsets
    if not 1 <= number <= len(spans):
        found.token = "end of text, before the document" if number < 1 else "end of text, behind the document"
        return
    start, end = spans[number - 1]
    begins = [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]
    found.line = bisect_right(begins, start)
    first = begins[found.line - 1]
    last = begins[found.line] - 1 if found.line < len(begins) else len(text)
    low, high = max(first, start - AROUND), max(min(last, end + AROUND), end)
    found.text, found.start, found.end = text[low:high], start - low, end - low
    found.token = text[start:end]
