"""Two texts side by side: which lines they share, which only one has, and the words in which two lines differ.

Long lines are taken apart behind sentences first, so that one changed word does not make a whole page differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import islice, takewhile

ROWS, CHARACTERS, LINES = 40, 300, 1000
AROUND, LEAD = 1, 40
BREAKS = re.compile(r"\n|(?<=[.!?])\s+|(?<=[。！？])")
Spans = list[tuple[int, int]]


@dataclass
class Row:
    """A line of either text. `kind`: equal, changed, left (only in the first), right, or skipped (`left` says what).

    `left_marks` and `right_marks` are [start, end) of the characters in which a changed row differs.
    """

    kind: str
    left: str | None = None
    right: str | None = None
    left_marks: Spans = field(default_factory=list)
    right_marks: Spans = field(default_factory=list)


def side_by_side(a: str, b: str) -> list[Row]:
    """At most 40 rows: what differs, with a line around it; what is left out is said."""
    rows = list(islice(_rows(*(_lines(text) for text in (a, b))), ROWS + 1))
    return [*rows[:ROWS], Row("skipped", "and more")] if len(rows) > ROWS else rows


def _rows(left: list[str], right: list[str]) -> Iterator[Row]:
    for tag, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from _equal(left[i:j], first=i == 0, last=j == len(left))
        else:
            yield from _differing(left[i:j], right[k:m])


def _lines(text: str) -> list[str]:
    found = [piece.strip() for piece in BREAKS.split(text)]
    return [piece for piece in found if piece][:LINES]


def _equal(lines: list[str], first: bool, last: bool) -> Iterator[Row]:
    head, tail = 0 if first else AROUND, 0 if last else AROUND
    if len(lines) <= head + tail + 1:
        yield from (Row("equal", _cut(line), _cut(line)) for line in lines)
        return
    yield from (Row("equal", _cut(line), _cut(line)) for line in lines[:head])
    yield Row("skipped", f"{len(lines) - head - tail:,} equal lines")
    yield from (Row("equal", _cut(line), _cut(line)) for line in lines[len(lines) - tail :])


def _differing(left: list[str], right: list[str]) -> Iterator[Row]:
    for a, b in zip(left, right, strict=False):
        same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)))
        start = max(0, same - LEAD) if max(len(a), len(b)) > CHARACTERS else 0
        a, b = _cut(a, start), _cut(b, start)
        yield Row("changed", a, b, *_marks(a, b))
    yield from (Row("left", _cut(line)) for line in left[len(right) :])
    yield from (Row("right", None, _cut(line)) for line in right[len(left) :])


def _cut(line: str, start: int = 0) -> str:
    """At most 300 characters from `start` on; an ellipsis says that there is more."""
    cut = ("…" if start else "") + line[start:]
    return cut if len(cut) <= CHARACTERS else cut[: CHARACTERS - 1] + "…"


def _marks(a: str, b: str) -> tuple[Spans, Spans]:
    """The words that differ; of lines with very many, or without spaces, the characters."""
    parts = [re.findall(r"\s+|\w+|[^\w\s]", line) for line in (a, b)]
    if min(map(len, parts)) < 3:
        parts = [list(line) for line in (a, b)]
    found: tuple[Spans, Spans] = ([], [])
    ends = [[0, *_ends(part)] for part in parts]
    for tag, i, j, k, m in SequenceMatcher(None, parts[0], parts[1], autojunk=False).get_opcodes():
        for marks, end, first, last in zip(found, ends, (i, k), (j, m), strict=True):
            if tag != "equal" and first < last:
                marks.append((end[first], end[last]))
    return found


def _ends(parts: list[str]) -> Iterator[int]:
    total = 0
    for part in parts:
        total += len(part)
        yield total
