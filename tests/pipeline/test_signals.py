"""The stages `repetition` and `fineweb` against datatrove's own functions, over words split at white space.

The twin below calls datatrove's find_duplicates, get_n_grams, find_top_duplicate and find_all_duplicate and divides as
its filters do; the filters themselves are then asked for their verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from tests.laws import nasty
from tests.pipeline import twins
from tests.pipeline.test_gopher import PIECES, names

repeats = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters import fineweb_quality_filter as lines  # noqa: E402

WORDS = ("a", "b", "ab", "bc", "c", "abcabc", "the", "millstone", "x" * 17, "x" * 16, "é", "磨")
SPACELESS = (*"的中䷀。ー、3\n", *"磨坊 水轮 ก็ ไทย กรุง カタ ひらがな ab 한국".split())
TEXTS = twins.long_lists(st.sampled_from((*PIECES, "\n\n", "\n\n\n", "line\n", "line two\n", "part\n\n")), 60).map(
    "".join
) | twins.long_lists(st.sampled_from(WORDS), 120).map(" ".join)
TEXTS |= twins.long_lists(st.sampled_from(SPACELESS), 120).map("".join)
UNITS = {"whitespace": str.split, "script": twins.by_script}


def repetition_of(text: str, units: str) -> dict[str, float | None]:
    """What GopherRepetitionFilter compares with its bounds."""
    pieces = {"lines": re.split("\n+", text), "paragraphs": re.split(r"\n{2,}", text.strip())}
    found: dict[str, float | None] = {}
    for name, parts in pieces.items():
        count, size = repeats.find_duplicates(parts)
        found[f"duplicate_{name}"] = count / len(parts) if text else None
        found[f"duplicate_{name[:-1]}_characters"] = size / len(text) if text else None
    words = UNITS[units](text)
    for n in (2, 3, 4):
        grams = repeats.get_n_grams(words, n)
        found[f"top_{n}gram_characters"] = (repeats.find_top_duplicate(grams) if grams else 0) / (len(text) or 1)
    for n in range(5, 11):
        found[f"duplicate_{n}gram_characters"] = repeats.find_all_duplicate(words, n) / (len(text) or 1)
    return found if text else dict.fromkeys(found)


def fineweb_of(text: str, units: str, short: int = 30) -> dict[str, float | None]:
    """What FineWebQualityFilter compares with its bounds."""
    rows = [row for row in text.split("\n") if row.strip() != ""]
    words, count = len(UNITS[units](text)), len(rows) or 1
    found: dict[str, float | None] = {
        "punctuated_line_ratio": sum(row.endswith(tuple(lines.TERMINAL_PUNCTUATION)) for row in rows) / count,
        "short_line_ratio": sum(len(row) <= short for row in rows) / count,
        "duplicate_line_characters": repeats.find_duplicates(rows)[1] / (len(text.replace("\n", "")) or 1),
        "newline_ratio": text.count("\n") / (words or 1),
    }
    return found if rows else dict.fromkeys(found)


def measured(use: str, texts: Sequence[str], **params: Any) -> list[dict[str, float | None]]:
    return pa.table(stage.load(use, params)(pa.record_batch({"text": pa.array(texts, pa.string())}))).to_pylist()


def agree(texts: Sequence[str], units: str) -> None:
    """Every signal of every text, to the bit."""
    for text, repeated, lined in zip(
        texts, measured("repetition", texts, units=units), measured("fineweb", texts, units=units), strict=True
    ):
        assert repeated == repetition_of(text, units), text[:500]
        assert lined == fineweb_of(text, units), text[:500]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", names())
def test_every_signal_of_a_nasty_text(name, units):
    agree([nasty.TEXTS[name]], units)


@pytest.mark.parametrize("units", UNITS)
@given(texts=st.lists(TEXTS, max_size=4))
def test_every_signal_of_any_text(units, texts):
    agree(texts, units)


@given(text=twins.long_lists(st.sampled_from(("a", "b", "ab", "ba")), 200).map(" ".join))
def test_other_words_that_join_to_the_same_letters(text):
    """ "a bc" and "ab c" are one n-gram to datatrove, from five words on."""
    agree([text], "whitespace")


def test_the_paper_counts_lines_of_fewer_than_thirty_characters():
    text = f"{'x' * 29}\n{'x' * 30}\n{'x' * 31}"
    assert [measured("fineweb", [text], dialect=d)[0]["short_line_ratio"] for d in ("paper", "datatrove")] == [
        1 / 3,
        2 / 3,
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "alpha beta gamma\nunique line one here\nalpha beta gamma\nanother unique line two\n"
            "third unique line now\nfourth unique line too",
            {"duplicate_lines": 0.1667, "duplicate_line_characters": 0.1301},
        ),
        ("T2", {"duplicate_5gram_characters": 0.0378}),
        ("T3", {"duplicate_5gram_characters": 0.1087}),
    ],
)
def test_conformance_vectors(text, expected):
    counts = {"T2": (60, 6, 40), "T3": (20, 5, 12)}.get(text)
    if counts:
        text = " ".join(f"{letter}{k:03}" for letter, n in zip("wwx", counts, strict=True) for k in range(n))
    found = measured("repetition", [text])[0]
    assert {name: round(found[name] or 0, 4) for name in expected} == expected


REPETITION = {
    "duplicate_paragraphs": 0.3,
    "duplicate_paragraph_characters": 0.2,
    "duplicate_lines": 0.3,
    "duplicate_line_characters": 0.2,
    **{f"top_{n}gram_characters": bound for n, bound in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"duplicate_{n}gram_characters": round(0.2 - n / 100, 2) for n in range(5, 11)},
}


def test_verdicts_of_the_filters_themselves(real, monkeypatch):
    """The published bounds over our signals say of every document what datatrove's filters say."""
    for module in (repeats, lines):
        monkeypatch.setattr(module, "split_into_words", lambda text, _: text.split())
    texts = [*real[::5], *(nasty.TEXTS[name] for name in names() if nasty.TEXTS[name].strip())]
    dropped = 0
    for text, found, lined in zip(texts, measured("repetition", texts), measured("fineweb", texts), strict=True):
        kept = not any((found[name] or 0) > bound for name, bound in REPETITION.items())
        assert kept == (repeats.GopherRepetitionFilter().filter(Document(text=text, id="")) is True), text[:300]
        punctuated, short, again, feeds = (value or 0 for value in lined.values())
        fine = punctuated >= 0.12 and short <= 0.67 and again <= 0.01 and feeds <= 0.3
        assert fine == (lines.FineWebQualityFilter().filter(Document(text=text, id="")) is True), text[:300]
        dropped += not kept
    assert 0 < dropped < len(texts)


@pytest.mark.parametrize("units", UNITS)
def test_every_signal_of_real_documents(real, units):
    agree([text[:20_000] for text in real[::25]], units)


@pytest.mark.slow
def test_every_signal_of_every_real_document(real):
    agree(real, "whitespace")


@pytest.fixture(scope="module")
def real(shared_data) -> list[str]:
    """All 27,126 documents of 42 languages."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    return table["text"].to_pylist()
