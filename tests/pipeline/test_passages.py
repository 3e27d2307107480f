"""Lines and paragraphs: where they lie and what they say, against plain Python; what is cut, against counting."""

from __future__ import annotations

import itertools
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import cuts, stage
from pipeline.kernels import passages
from pipeline.limits import Workspace
from pipeline.spill import Spill
from tests.laws import nasty
from tests.pipeline import twins

PIECES = [
    *("a", "B", "7", "٣", "½", " ", "\t", "\u3000", "\n", "\n\n", "\r\n", "\x00", "-", "。", "é", "É", "磨", "ไ"),
    *("\u0301", "word", "ab"),
]
TEXTS = twins.long_lists(st.sampled_from(PIECES), 24).map("".join)


def said(unit: str, folded: bool) -> str:
    """What of a unit is compared."""
    unit = " ".join(unit.split())
    if not folded:
        return unit
    kept = ""
    for char in unit:
        if char.isalnum() and not char.isalpha():
            kept += "0"
        elif char == " " or not (punctuation(char) or unicodedata.category(char) == "Cc" or char == "\ufeff"):
            kept += char.lower()[0]
    return " ".join(kept.split())


def punctuation(char: str) -> bool:
    from datatrove.utils.text import PUNCTUATION_SET

    return char in PUNCTUATION_SET


def split(text: str, paragraphs: bool, folded: bool, least: int) -> list[tuple[int, int, str]]:
    """(start, end, what is compared) of every unit, in characters: the whole text is cut where units begin."""
    lines = text.split("\n")
    begins = list(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    inked = [number for number, line in enumerate(lines) if line.strip()]
    first = [n for n in inked if not paragraphs or n == 0 or n - 1 not in inked]
    edges = [0, *(begins[n] for n in first[1:]), len(text)] if first else []
    units = []
    for start, end in itertools.pairwise(edges):
        words = said(text[start:end], folded)
        if len(words) >= least:
            units.append((start, end, words))
    return units


@pytest.mark.parametrize("paragraphs", [False, True])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("least", [1, 3])
@given(texts=st.lists(TEXTS, max_size=4))
def test_units_are_those_of_plain_python(texts, paragraphs, folded, least):
    check(texts, paragraphs, folded, least)


@pytest.mark.parametrize("paragraphs", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_units_of_nasty_texts(paragraphs, folded):
    check(list(nasty.TEXTS.values()), paragraphs, folded, 1)
    check([text * 3 for text in nasty.TEXTS.values() if len(text) < 9999], paragraphs, folded, 5)


def check(texts: list[str], paragraphs: bool, folded: bool, least: int) -> None:
    column = pa.array(["before", *texts], pa.large_string()).slice(1)
    found = passages.units(column, paragraphs, folded, least)
    names: dict[str, tuple[int, ...]] = {}
    for number, text in enumerate(texts):
        mine = slice(found.bounds[number], found.bounds[number + 1])
        expected = split(text, paragraphs, folded, least)
        spans = [(len(text[:a].encode()), len(text[:b].encode())) for a, b, _ in expected]
        assert list(zip(found.starts[mine].tolist(), found.ends[mine].tolist(), strict=True)) == spans
        for hashed, (_, _, words) in zip(found.hashes[mine].tolist(), expected, strict=True):
            assert names.setdefault(words, tuple(hashed)) == tuple(hashed), "equal words, other hashes"
    assert len(set(names.values())) == len(names), "other words, equal hashes"
    halves = [{value[lane] for value in names.values()} for lane in (0, 1)]
    assert all(len(half) == len(names) for half in halves)


def test_a_million_units_have_a_million_hashes_in_each_lane():
    """Numbers in words of every length that the kernel packs, ASCII and not."""
    lines = "\n".join(f"{n:x}{'磨é'[n % 2] * (n % 5)}" for n in range(1_000_000))
    found = passages.units(pa.array([lines], pa.large_string()), False, False, 1)
    assert all(len(set(found.hashes[:, lane].tolist())) == 1_000_000 for lane in (0, 1))


def cut(use: str, texts: list[str], parts: int, **params: Any) -> list[str]:
    """What is left of each text of a corpus, through the stage."""
    bound = stage.load(use, params)
    sketches, met = [], []
    for part in range(parts):
        mine = list(range(part, len(texts), parts))
        ids = pa.array([f"d{number:05}" for number in mine], pa.string())
        place = {"doc_id": ids, "part": pa.array([part] * len(mine), pa.int32())}
        place["row"] = pa.array(range(len(mine)), pa.int64())
        column = pa.array([texts[number] for number in mine], pa.large_string())
        sketches.append(pa.table({**place, **bound(pa.record_batch([column], names=["text"]))}))
        met.append(pa.table(place))
    documents = pa.concat_tables(met).sort_by("doc_id")
    left = list(texts)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), 1024)

        def column(part: int, rows: list[int]) -> pa.Array:
            return pa.array([texts[part + row * parts] for row in rows], pa.large_string())

        found = bound.compare(iter(sketches), column, workspace)
        spans = bound.module.spans(documents, found, **bound.params)
        for _, table in cuts.gather(documents, parts, spans, workspace):
            for row in table.to_pylist():
                raw = texts[int(row["doc_id"][1:])].encode()
                for start, end in zip(reversed(row["start"]), reversed(row["end"]), strict=True):
                    raw = raw[:start] + raw[end:]
                left[int(row["doc_id"][1:])] = raw.decode()
    return left


def counted(texts: list[str], unit: str, match: str, min_characters: int, most_documents: int, keep: str) -> list[str]:
    """The same by holding everything."""
    units = [split(text, unit == "paragraph", match == "folded", min_characters) for text in texts]
    left = []
    for number, mine in enumerate(units):
        gone = set()
        for start, end, words in mine:
            holders = [other for other, theirs in enumerate(units) if words in {w for _, _, w in theirs}]
            if len(holders) > most_documents and (keep == "none" or number != holders[0]):
                gone.update(range(start, end))
        left.append("".join(char for place, char in enumerate(texts[number]) if place not in gone))
    return left


LINES = st.sampled_from(["a b", "A  b", "c1", "C2", "", " ", "磨坊。", "磨坊", "x"])


@settings(max_examples=60)
@given(
    texts=st.lists(twins.long_lists(LINES, 6).map("\n".join), max_size=7),
    unit=st.sampled_from(["line", "paragraph"]),
    match=st.sampled_from(["folded", "exact"]),
    least=st.integers(1, 3),
    most=st.integers(1, 3),
    keep=st.sampled_from(["first", "none"]),
    parts=st.integers(1, 3),
)
def test_what_is_left_is_what_counting_leaves(texts, unit, match, least, most, keep, parts):
    params = {"unit": unit, "match": match, "min_characters": least, "most_documents": most, "keep": keep}
    assert cut("paragraphs", texts, parts, **params) == counted(texts, **params)


@pytest.mark.parametrize(("keep", "left"), [("first", 1), ("none", 0)])
def test_all_documents_alike(keep, left):
    """A corpus of one page: one is left of it, or nothing at all."""
    page = "one line of the page\n\nanother line of it\n"
    assert sorted(cut("paragraphs", [page] * 40, 3, keep=keep, min_characters=1))[-1:] == [page if left else ""]
    assert sum(map(bool, cut("paragraphs", [page] * 40, 3, keep=keep, min_characters=1))) == left


def test_a_megabyte_line_in_two_documents():
    line = "磨坊 stone " * 70_000
    assert cut("paragraphs", [line, "x", "before\n" + line + "\nbehind"], 2) == [line, "x", "before\nbehind"]


def test_real_pages_lose_the_lines_that_others_have(shared_data):
    """Every fortieth page, by a dictionary of lines."""
    texts = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])["text"].to_pylist()[::40]
    units = [split(text, False, True, 20) for text in texts]
    holders: dict[str, set[int]] = {}
    for number, mine in enumerate(units):
        for _, _, words in mine:
            holders.setdefault(words, set()).add(number)
    expected = []
    for number, (text, mine) in enumerate(zip(texts, units, strict=True)):
        for start, end, words in reversed(mine):
            if len(holders[words]) > 2 and number != min(holders[words]):
                text = text[:start] + text[end:]
        expected.append(text)
    assert cut("paragraphs", texts, 4, most_documents=2) == expected
    assert sum(map(len, expected)) < 0.99 * sum(map(len, texts))


@given(
    records=st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), max_size=9), max_size=9),
    memory=st.integers(0, 800),
)
def test_a_spill_gives_back_what_it_was_given_in_order(records, memory):
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Workspace(Path(folder), memory), "x", "i8", 5)
        for some in records:
            buckets, values = (np_array([pair[k] for pair in some]) for k in (0, 1))
            spill.add(buckets, values)
        for bucket in range(5):
            expected = [value for some in records for number, value in some if number == bucket]
            assert spill.take(bucket).tolist() == expected
            assert spill.take(bucket).size == 0
        assert not list(Path(folder).iterdir())


def np_array(values: list[int]) -> Any:
    return pa.array(values, pa.int64()).to_numpy()
