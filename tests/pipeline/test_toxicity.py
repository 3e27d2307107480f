"""The stage `toxicity` against a twin that tries every entry at every place, and lists that cannot be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels import listed
from pipeline.kernels.unicode import MARK, SPACELESS, table
from tests.given import GIVEN
from tests.laws import nasty

ENTRIES = ["mill", "water wheel", "wheel", "mill stone", "磨坊", "磨坊主", "粮", "c++", "!x", "Ünsäglich", "กังหัน", "a"]


def joins(char: str) -> bool:
    return char.isalnum() and not table()[ord(char)] & SPACELESS


def twin(text: str, entries: list[str]) -> list[str]:
    """What is found from left to right, the longest of each place, by trying every entry there."""
    rows: list[str] = []
    for char in text:
        if not char.isspace():
            rows.append(char.lower()[0])
        elif rows[-1:] != [" "]:
            rows.append(" ")

    def inside(at: int) -> bool:
        """Whether a word is going on before this place; marks belong to the letter before them."""
        at -= 1
        while at >= 0 and table()[ord(rows[at])] & MARK:
            at -= 1
        return at >= 0 and joins(rows[at])

    def stands(entry: str, at: int) -> bool:
        plain = [char.lower()[0] for char in entry]
        end = at + len(plain)
        if rows[at:end] != plain or (joins(plain[0]) and inside(at)):
            return False
        marked = end < len(rows) and table()[ord(rows[end])] & MARK
        return not marked and not (end < len(rows) and joins(plain[-1]) and joins(rows[end]))

    found, at = [], 0
    while at < len(rows):
        here = [entry for entry in entries if stands(entry, at)]
        found += [max(here, key=len)] if here else []
        at += len(found[-1]) if here else 1
    return found


def count(texts: list[str], entries: list[str]) -> list[tuple[int, int]]:
    """(entries, their code points) of each text, by the kernel."""
    ours = listed.trie(entries, list(map(len, entries)))
    return list(zip(*(part.tolist() for part in listed.matches(pa.array(texts, pa.large_string()), ours)), strict=True))


PIECES = [
    *ENTRIES,
    " ",
    "\n\t ",
    "s",
    "Mill",
    "MILL\u0301",
    "\u0301",
    "磨",
    "主",
    "-",
    "7",
    "é",
    "\u3000",
    "水ab",
    "++",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_what_is_found_is_what_the_twin_finds(text):
    text = text.encode("utf-8", "ignore").decode()
    expected = twin(text, ENTRIES)
    assert count([text], ENTRIES) == [(len(expected), sum(map(len, expected)))]


def test_hostile_texts_too():
    texts = [text for text in nasty.TEXTS.values() if len(text) < 50_000]
    expected = [twin(text, ENTRIES) for text in texts]
    assert count(texts, ENTRIES) == [(len(found), sum(map(len, found))) for found in expected]
    assert sum(map(len, expected)) > 10


def measured(texts: list[str], folder: Path, rows: str) -> dict[str, list]:
    (folder / "words.txt").write_text(rows, "utf-8")
    bound = stage.load("toxicity", {"words": [str(folder / "words.txt")]}, "here")
    found = bound(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]))
    return {name: values.to_pylist() for name, values in found.items()}


def test_words_stand_alone_in_english_and_anywhere_in_chinese(tmp_path):
    texts = ["a mill, the MILL", "windmills milling", "water\n wheel turns", "旧磨坊里面", "", "..."]
    found = measured(texts, tmp_path, "mill\nwater wheel\n磨坊\n")
    assert found["listed"] == [2, 0, 1, 1, 0, 0]
    assert found["listed_share"] == [
        pytest.approx(x) if x is not None else None for x in (2 / 4, 0, 2 / 3, 2 / 5, None, 0)
    ]


def test_lists_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(stage.ConfigError, match="the list is empty"):
        measured([], tmp_path, "\n  \n")
    with pytest.raises(stage.ConfigError, match="give `words`, `model`, or both"):
        stage.load("toxicity", {}, "here")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(stage.ConfigError, match=r"latin\.txt: not UTF-8"):
        stage.load("toxicity", {"words": [str(tmp_path / "latin.txt")]}, "here")
    with pytest.raises(stage.ConfigError, match="no label 'toxic'"):
        stage.load("toxicity", {"model": GIVEN["classifier"]["model"]}, "here")
