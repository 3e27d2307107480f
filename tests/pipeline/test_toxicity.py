"""The stage `toxicity` against a twin that tries every entry at every place, and lists that cannot be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import recipe, stage
from pipeline.build import Mill
from pipeline.kernels import listed
from pipeline.kernels.unicode import MARK, SPACELESS, table
from pipeline.runner import Local
from pipeline.store import Store
from tests import builds
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
    with pytest.raises(stage.ConfigError, match="give `words`, `by_language`, `model`"):
        stage.load("toxicity", {}, "here")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(stage.ConfigError, match=r"latin\.txt: not UTF-8"):
        stage.load("toxicity", {"words": [str(tmp_path / "latin.txt")]}, "here")
    with pytest.raises(stage.ConfigError, match="no label 'toxic'"):
        stage.load("toxicity", {"model": GIVEN["classifier"]["model"]}, "here")


def spoken(tmp_path: Path, texts: list[str], words: str = "", **columns: list[str | None]) -> list[int]:
    """What is listed of texts whose language columns say."""
    for name, row in (("en", "mill\ngift"), ("de", "gift"), ("zh", "磨坊"), ("all", words)):
        (tmp_path / f"{name}.txt").write_text(row, "utf-8")
    params = {"by_language": {name: str(tmp_path / f"{name}.txt") for name in ("en", "de", "zh")}}
    params |= {"words": [str(tmp_path / "all.txt")]} if words else {}
    bound = stage.load("toxicity", params, "here")
    arrays = [pa.array(texts, pa.large_string()), *(pa.array(values, pa.string()) for values in columns.values())]
    return bound(pa.record_batch(arrays, ["text", *columns]))["listed"].to_pylist()


def test_a_list_of_a_language_holds_for_its_documents_alone(tmp_path):
    texts = ["mill gift 磨坊"] * 6
    said = {"language": ["en", "de", "zh-Hant", "fr", None, "en"]}
    assert spoken(tmp_path, texts, **said) == [2, 1, 1, 0, 3, 2]
    assert spoken(tmp_path, texts, "mill", **said) == [2, 2, 2, 1, 3, 2]
    assert spoken(tmp_path, texts) == [3] * 6, "nobody says the language: all lists"


def test_what_was_measured_goes_before_what_the_source_states(tmp_path):
    texts = ["mill gift 磨坊"] * 3
    columns = {"language": ["en", "en", None], "language.lang": ["de", None, None]}
    assert spoken(tmp_path, texts, **columns) == [1, 2, 3]


def test_codes_that_are_none_and_empty_lists_are_refused(tmp_path):
    for name, row, said in (("English", "mill", "no code of a language"), ("en", " \n", "the list is empty")):
        (tmp_path / "list.txt").write_text(row, "utf-8")
        with pytest.raises(stage.ConfigError, match=said):
            stage.load("toxicity", {"by_language": {name: str(tmp_path / "list.txt")}}, "here")
    absent = stage.load("toxicity", {"by_language": {"en": str(tmp_path / "absent.txt")}}, "here")
    with pytest.raises(stage.ConfigError, match=r"by_language: there is no file .*absent\.txt"):
        assert absent.identity


def test_a_rule_over_lists_by_language_is_tried_with_the_language_measured(tmp_path):
    """A build whose canaries pass through `language` first."""
    for name, row in (("en", "zounds"), ("zh", "混账东西")):
        (tmp_path / f"{name}.txt").write_text(row, "utf-8")
    corpus = builds.write_corpus(tmp_path / "corpus")
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("en", "zh")}
    rules = {"listed": {"above": 3}, "listed_share": {"above": 0.2}}
    table = {
        "name": "spoken", "sources": ["grain.toml"], "tokens": {"vocab_size": 400, "sample": "1MB"},
        "stage": [{"use": "language"}, {"use": "toxicity", "by_language": lists, "drop": rules}],
        "pack": {"length": 64, "split": {"val": 0.1}},
    }  # fmt: skip
    version = Mill(Store(tmp_path / "store"), Local()).build(recipe.parse(table, "here", corpus))
    said = version.manifest["summaries"]["canaries"]["rules"]
    assert said.keys() == {"toxicity.listed.above", "toxicity.listed_share.above"} and "fires" in str(said)
