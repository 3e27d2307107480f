"""Exact substrings: tokens, anchors and windows against plain Python, and what is cut against a suffix array."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import windows as kernel
from tests.laws import nasty
from tests.pipeline import twins
from tests.pipeline.test_passages import cut

PIECES = st.sampled_from(
    ["a ", "b ", "c", " ", "1.", "磨", "坊", "。", "é", "é\u0301", "\u0301", "\n", "\x00", "ไ", "A "]
)
# Few tokens, so that they repeat; many repeats of a few runs, so that long windows do.
RUNS = st.lists(st.sampled_from(["a b a ", "b a a b ", "磨坊", "a ", "b ", "c. "]), max_size=14).map("".join)


def tokens(text: str) -> list[str]:
    """The text cut before each unit but the first."""
    begins, inside, alone = [], False, False
    for place, char in enumerate(text):
        if twins.is_mark(char):
            continue
        letter = twins.spaceless(char)
        wordly = letter or char.isalnum()
        if wordly and (not inside or letter or alone):
            begins.append(place)
        inside, alone = wordly, letter
    edges = [0, *begins[1:], len(text)] if begins else []
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def column(texts: list[str]) -> pa.Array:
    return pa.array(["before", *texts], pa.large_string()).slice(1)


def every(texts: list[str], length: int) -> kernel.Windows:
    """The windows of all anchors."""
    found = kernel.anchors(column(texts), length)
    return kernel.windows(column(texts), length, found.at, found.bounds)


def check(texts: list[str], length: int) -> None:
    found, anchored = every(texts, length), kernel.anchors(column(texts), length)
    names: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for number, text in enumerate(texts):
        parts = tokens(text)
        assert "".join(parts) in (text, "")
        edges = [0, *itertools.accumulate(len(part.encode()) for part in parts)]
        mine = slice(found.bounds[number], found.bounds[number + 1])
        spans = [(edges[i], edges[i + length]) for i in range(len(parts) - length + 1)]
        assert list(zip(found.starts[mine].tolist(), found.ends[mine].tolist(), strict=True)) == spans
        at = anchored.at[anchored.bounds[number] : anchored.bounds[number + 1]].tolist()
        assert at == sorted(set(at))
        for i, hashed in enumerate(found.hashes[mine].tolist()):
            inside = [place - i for place in at if 0 <= place - i <= length - (length + 1) // 2]
            assert inside, "a window without an anchor"
            window = tuple(parts[i : i + length])
            known = names.setdefault(window, (hashed, tuple(inside)))
            assert known[0] == hashed, "equal windows, other hashes"
            assert set(known[1]) & set(inside), "equal windows, no anchor in common"
    assert len({tuple(hashed) for hashed, _ in names.values()}) == len(names), "other windows, equal hashes"
    for lane in (0, 1):
        assert len({hashed[lane] for hashed, _ in names.values()}) == len(names)


@pytest.mark.parametrize("length", [2, 3, 5])
@given(texts=st.lists(twins.long_lists(PIECES, 20).map("".join) | RUNS, max_size=4))
def test_windows_are_those_of_plain_python(texts, length):
    check(texts, length)


@pytest.mark.parametrize("length", [2, 9, 50])
def test_windows_of_nasty_texts(length):
    check([text for text in nasty.TEXTS.values() if len(text) < 99_999], length)


def test_windows_of_a_long_text_have_their_own_hashes():
    """300,000 windows of two words only, and the words of Thue and Morse at the greatest length."""
    draw = np.random.default_rng(3).integers(0, 2, 300_000)
    found = every([" ".join("ab"[bit] for bit in draw)], 50)
    assert len(found.starts) == 300_000 - 49 == len(set(found.hashes[:, 0].tolist())) == len(set(found.hashes[:, 1]))
    morse = ["ab"[bin(n).count("1") % 2] for n in range(512)]
    other = [{"a": "b", "b": "a"}[word] for word in morse]
    pair = every([" ".join(morse), " ".join(other)], 512)
    assert pair.hashes.shape == (2, 2) and (pair.hashes[0] != pair.hashes[1]).all()


def test_about_one_token_in_thirteen_is_an_anchor():
    draw = np.random.default_rng(3).integers(0, 10_000, 200_000)
    found = kernel.anchors(column([" ".join(map(str, draw))]), 50)
    assert abs(len(found.at) / 200_000 / (2 / 27) - 1) < 0.03


def suffix_array(texts: list[list[str]]) -> list[tuple[int, int]]:
    """Every (document, token), in order of what follows up to the document's end."""
    places = [(d, i) for d, parts in enumerate(texts) for i in range(len(parts))]
    return sorted(places, key=lambda place: texts[place[0]][place[1] :])


def left(texts: list[str], length: int) -> list[str]:
    """What Lee et al. leave: neighbours of a suffix array that share `length` tokens are repeats of each other."""
    parts = [tokens(text) for text in texts]
    array = suffix_array(parts)
    gone: list[set[int]] = [set() for _ in texts]
    run: list[tuple[int, int]] = []
    for before, place in zip([None, *array], [*array, None], strict=True):
        if before and len(window(parts, before, length)) == length:
            run.append(before)
        if not place or (run and window(parts, place, length) != window(parts, run[0], length)):
            first = min(run, default=(0, 0))
            for d, i in run:
                if d != first[0] or i >= first[1] + length:
                    gone[d].update(range(i, i + length))
            run = []
    return [
        "".join(part for i, part in enumerate(mine) if i not in cut) if mine else text
        for text, mine, cut in zip(texts, parts, gone, strict=True)
    ]


def window(parts: list[list[str]], place: tuple[int, int], length: int) -> list[str]:
    return parts[place[0]][place[1] : place[1] + length]


@settings(max_examples=50)
@given(texts=st.lists(RUNS, max_size=6), length=st.integers(2, 9), parts=st.integers(1, 3))
def test_what_is_left_is_what_a_suffix_array_leaves(texts, length, parts):
    assert cut("substring", texts, parts, length=length) == left(texts, length)


def test_all_documents_alike_and_one_word_for_ever():
    page = "".join(f"word{n} " for n in range(80))
    assert cut("substring", [page] * 30, 3) == [page, *[""] * 29]
    assert cut("substring", ["again " * 5_000], 1) == ["again " * 50]
    assert cut("substring", ["x", "", "x", " ", "x"], 2) == ["x", "", "x", " ", "x"]


def test_a_megabyte_line_in_two_documents():
    line = "".join(f"磨坊{n} stone " for n in range(50_000))
    assert cut("substring", [line, "before \n" + line + "\nbehind"], 2) == [line, "before \nstone \nbehind"]


def test_real_pages_lose_what_a_table_of_all_windows_says(shared_data):
    """Every fortieth page; windows held whole, as bytes, and what is cut has a place further up that is kept."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = table["text"].to_pylist()[::40]
    parts = [tokens(text) for text in texts]
    first: dict[bytes, tuple[int, int]] = {}
    gone: list[dict[int, tuple[int, int]]] = [{} for _ in texts]
    for d, mine in enumerate(parts):
        for i in range(len(mine) - 49):
            window = "\0".join(mine[i : i + 50]).encode()
            where, at = first.setdefault(window, (d, i))
            if where != d or i >= at + 50:
                gone[d].update({i + k: (where, at + k) for k in range(50)})
    expected = [
        "".join(t for i, t in enumerate(p) if i not in cut) if p else x
        for x, p, cut in zip(texts, parts, gone, strict=True)
    ]
    found = cut("substring", texts, 4)
    assert found == expected and sum(map(len, gone)) > 5_000
    for d, lost in enumerate(gone):
        for i in list(lost)[::97]:
            here = (d, i)
            while here[1] in gone[here[0]]:
                before = gone[here[0]][here[1]]
                assert before < here and parts[before[0]][before[1]] == parts[d][i]
                here = before
