"""The sample corpus against its card: what it holds, which near duplicates it hides, and what the stages say of it."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import rules, run, sources, stage
from pipeline.catalog import cards
from pipeline.models import ModelError, language_model
from tests.pipeline import twins

FOLDER = Path(__file__).parents[2] / "catalogs" / "samples"
COUNTS = {"ar": 22, "de": 22, "en": 23, "es": 22, "fr": 22, "ja": 22, "ko": 22, "ru": 22, "zh": 23}
MARKED = {"de": 1, "en": 2, "ru": 1, "zh": 2}
SPACELESS = ("ja", "zh")
# What the names of a language's letters begin with.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "ar": ("ARABIC",),
    "ja": ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "zh": ("CJK UNIFIED",),
}
PAPER: dict[str, dict[str, float]] = {
    "word_count": {"below": 50},
    "mean_word_length": {"below": 3, "above": 10},
    "alphabetic_word_ratio": {"below": 0.8},
    "stop_word_count": {"below": 2},
}
Row = dict[str, Any]


def lines(language: str) -> list[Row]:
    """The objects of one file, read without the mill."""
    text = (FOLDER / f"{language}.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def everything() -> dict[str, Row]:
    """doc_id to line of the file, all of them."""
    return {f"samples:{lang}.jsonl:{n}": row for lang in COUNTS for n, row in enumerate(lines(lang), 1)}


@pytest.fixture(scope="module")
def chunks() -> list[sources.Chunk]:
    """What the mill reads by the card."""
    card = cards.load("samples")
    return [chunk for item in sources.survey(card) for chunk in sources.read(card, item)]


@pytest.fixture(scope="module")
def batch(chunks: list[sources.Chunk]) -> pa.RecordBatch:
    return pa.concat_batches([chunk.documents for chunk in chunks])


@pytest.mark.parametrize("language", COUNTS)
def test_a_file_is_written_one_way(language: str) -> None:
    """Keys in order, UTF-8 as it is, NFC, one object a line, a final newline: so a change shows as a change."""
    raw = (FOLDER / f"{language}.jsonl").read_bytes().decode("utf-8")
    rows = lines(language)
    assert raw == "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert raw == unicodedata.normalize("NFC", raw)
    assert {tuple(row) for row in rows} == {("text", "language", "title", "near_duplicate_of")}
    assert {row["language"] for row in rows} == {language} and len(rows) == COUNTS[language]
    for row in rows:
        assert row["text"] == row["text"].strip() and row["title"] == row["title"].strip() != ""
        assert "  " not in row["text"] and all(c.isprintable() or c == "\n" for c in row["text"] + row["title"])
        size = len(row["text"]) if language in SPACELESS else len(row["text"].split())
        assert size in (range(150, 301) if language in SPACELESS else range(70, 131)), row["title"]


@pytest.mark.parametrize("language", COUNTS)
def test_a_language_is_written_in_its_script(language: str) -> None:
    for row in lines(language):
        names = [unicodedata.name(char) for char in row["text"] if char.isalpha()]
        own = sum(name.startswith(SCRIPTS.get(language, ("LATIN",))) for name in names)
        assert own == len(names), row["title"]


def test_marks_name_an_earlier_text_of_the_same_file() -> None:
    for language in COUNTS:
        titles: list[str] = []
        for row in lines(language):
            assert row["near_duplicate_of"] in (None, *titles) and row["title"] not in titles
            titles.append(row["title"])
        marked = sum(row["near_duplicate_of"] is not None for row in lines(language))
        assert marked == MARKED.get(language, 0)


def test_the_mill_reads_every_line_and_the_card_says_what_it_finds(
    chunks: list[sources.Chunk], batch: pa.RecordBatch, everything: dict[str, Row]
) -> None:
    assert sum(chunk.rejects.num_rows for chunk in chunks) == 0 and batch.num_rows == len(everything) == 200
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{language}.jsonl" for language in COUNTS]
    card = cards.load("samples")
    assert card.languages == list(COUNTS) and card.licence == "CC0-1.0"
    assert len({row["text"] for row in everything.values()}) == 200
    for document in batch.to_pylist():
        row = everything[document["doc_id"]]
        assert document["text"] == row["text"] and document["licence"] == "CC0-1.0"
        said = {name: row[name] for name in ("language", "title", "near_duplicate_of") if row[name] is not None}
        assert json.loads(document["meta"]) == said


def test_only_marked_texts_are_alike_by_brute_force(everything: dict[str, Row]) -> None:
    """Every pair of documents, by plain sets of 5-grams: above .8 where marked, next to nothing elsewhere."""
    sets = {doc_id: twins.shingles(row["text"], 5) for doc_id, row in everything.items()}
    marked = pairs_marked(everything)
    assert len(marked) == 6
    for a, b in combinations(sorted(sets), 2):
        alike = twins.jaccard(sets[a], sets[b])
        assert alike > 0.8 if (a, b) in marked else alike < 0.02, (a, b, alike)


def pairs_marked(everything: dict[str, Row]) -> set[tuple[str, str]]:
    """(original, copy) as doc_ids."""
    titled = {(row["language"], row["title"]): doc_id for doc_id, row in everything.items()}
    copies = [(doc_id, row) for doc_id, row in everything.items() if row["near_duplicate_of"]]
    return {(titled[row["language"], row["near_duplicate_of"]], doc_id) for doc_id, row in copies}


def test_near_finds_the_marked_ones_and_nobody_else(batch: pa.RecordBatch, everything: dict[str, Row]) -> None:
    near = stage.load("near", {})
    place = {"part": pa.repeat(pa.scalar(0, pa.int32()), len(batch)), "row": pa.array(range(len(batch)), pa.int32())}
    sketch = pa.table({"doc_id": batch["doc_id"], **near(batch), **place})
    pairs = near.module.compare(iter([sketch]), lambda _, at: batch["text"].take(pa.array(at)), **near.params)
    met = sketch.select(["doc_id", "digest"]).sort_by("doc_id")
    found = near.module.cluster(met, pairs, **near.params).to_pylist()
    # The copy, which is the later line, is the one that goes.
    assert {(row["dup_of"], row["doc_id"]) for row in found if row["dup_rank"]} == pairs_marked(everything)
    assert Counter(row["cluster_size"] for row in found) == {1: 188, 2: 12}
    for row in found:
        if row["dup_rank"]:
            sets = [twins.shingles(everything[name]["text"], 5) for name in (row["dup_of"], row["doc_id"])]
            assert row["jaccard"] == twins.jaccard(*sets)


def test_each_document_is_taken_for_its_own_language(batch: pa.RecordBatch) -> None:
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))
    found = stage.load("language", {})(batch)
    written = [json.loads(meta)["language"] for meta in batch["meta"].to_pylist()]
    assert found["lang"].to_pylist() == written
    assert min(found["score"].to_pylist()) > 0.9


def test_english_passes_the_rules_of_gopher(chunks: list[sources.Chunk]) -> None:
    gopher = stage.load("gopher", {})
    english = [chunk for chunk in chunks if "en.jsonl" in chunk.documents["doc_id"][0].as_py()]
    signals = run.run(english, [gopher], [], 100).signals
    assert signals.num_rows == COUNTS["en"]
    assert rules.judge(signals, rules.parse("gopher", {"drop": PAPER}, gopher.signals, "here")).num_rows == 0
