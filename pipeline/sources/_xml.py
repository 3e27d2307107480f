"""Elements of large XML files as they come, by expat, in constant memory.

The law: a document type is refused before it can declare an entity, nothing is fetched, and nothing is held beyond
the limit: a text that is longer comes as None, a tag that is longer is an error. What is not well-formed ends the
file at that place, and says so. The number that matters: 117 MB of XML that a core reads in a second
(`tests/bench/sources.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.parsers import expat

from pipeline.sources import Chunk, Collector, Guard, Item
from pipeline.sources._formats import COMPRESSED, split
from pipeline.sources._paths import wholes
from pipeline.sources._streams import StreamError

DEPTH = 64
STEP = 64 << 10


def dumps(patterns: list[str]) -> Iterator[Item]:
    """An item for each dump that the globs match. Raises SourceError as `wholes`, and where one is none by its name."""
    said = f"no dump by its name; has: .xml, with or without {', '.join(COMPRESSED)}"
    return wholes(patterns, lambda logical: split(logical)[0] == ".xml", said)


# A document, the reason and the words of a reject, or nothing where a page was not asked for.
Made = dict[str, Any] | tuple[str, str] | None


def collected(collector: Collector, guard: Guard, found: Iterator[Made], nothing: str) -> Iterator[Chunk]:
    """What the pages of one dump come to, up to where it is damaged; one without any that was asked for is a reject."""
    number, met = -1, False
    try:
        for number, made in enumerate(found):
            if made is None:
                continue
            met = True
            if isinstance(made, tuple):
                collector.reject(number, *made)
            else:
                collector.document(number, made)
            if collector.full:
                yield from collector.take()
    except StreamError as error:
        met = True
        collector.reject(number + 1, error.reason, str(error))
    guard.finish()
    if not met:
        collector.reject(0, "empty_file", nothing)
    yield from collector.take()


class Element(NamedTuple):
    """An element at its start (`attributes`, no text) or at its end: `text` is its own, None where it is too long."""

    name: str
    depth: int
    attributes: dict[str, str] | None
    text: str | None


class _Parser:
    def __init__(self, limit: int) -> None:
        self.found: list[Element] = []
        self.limit, self._depth, self._fed = limit, 0, 0
        self._text: list[str] = []
        self._size = 0
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._data
        self._expat.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes, final: bool = False) -> None:
        self._fed += len(data)
        try:
            self._expat.Parse(data, final)
        except expat.ExpatError as error:
            raise StreamError("malformed_xml", f"{error} (byte {self._expat.ErrorByteIndex:,})") from error
        if self._fed - self._expat.CurrentByteIndex > self.limit + STEP:
            raise StreamError("record_too_long", f"a tag of more than {self.limit:,} bytes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise StreamError("malformed_xml", f"elements lie more than {DEPTH} deep")
        self._text, self._size = [], 0
        self.found.append(Element(name, self._depth, attributes, None))

    def _end(self, name: str) -> None:
        text = "".join(self._text) if self._size <= self.limit else None
        self.found.append(Element(name, self._depth, None, text))
        self._depth -= 1
        self._text, self._size = [], 0

    def _data(self, data: str) -> None:
        self._size += len(data)
        if self._size <= self.limit:
            self._text.append(data)
        else:
            self._text.clear()

    def _doctype(self, *_: Any) -> None:
        raise StreamError("document_type", "the file has a document type, which could declare entities: refused")


def elements(blocks: Iterator[bytes], limit: int) -> Iterator[Element]:
    """Starts and ends of elements in order. Raises StreamError; the blocks are used up all the same."""
    parser = _Parser(limit)
    try:
        for block in blocks:
            for start in range(0, len(block), STEP):
                parser.feed(block[start : start + STEP])
                yield from parser.found
                parser.found.clear()
        parser.feed(b"", final=True)
        yield from parser.found
    except StreamError:
        yield from parser.found
        for _ in blocks:
            pass
        raise
