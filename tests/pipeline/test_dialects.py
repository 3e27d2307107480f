"""The dialects "dolma" and "dclm" of the stages `gopher` and `repetition` against their tools, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels.text import Ask
from pipeline.kernels.unicode import PICTOGRAPH, WORD_BREAK, WORD_BREAKS, classes
from tests.laws import nasty
from tests.pipeline import tools, twins

WORDS = ("a", "b", "ab", "bc", "c", "abcabc", "the", "The", "millstone", "x" * 17, "don't", "e-mail", "é", "磨", "3.5")
PIECES = (
    *("the be TO of anD that have with ofthe mill 12 # ## ... ..... . … • ● * -x !?. — «» _ 'd it's 3,5 e.g. ".split()),
    *("磨 〇 水轮。 カタ ー ไทย กัง 한국 été e\u0301 \u0301 ß İ K 𝔘 שלום ש\"ש ש' \" ' : 🇩🇪 🇩 ❤ \ufe0f \u200d".split()),
    *(". . .", " . . . .", " ", "  ", "\n", "\n\n", "\n\n\n", "\r\n", "\t", "\u3000", "\x85", "\u2028", "\x1c", "\x00"),
    *("line\n", "line two\n", " line two \n", "part\n\n", "…\n", "...\n", "- \n", "* a\n", "\n \n", "\u00ad", ""),
)
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=4), 60).map("".join) | twins.long_lists(
    st.sampled_from(WORDS), 120
).map(" ".join)


@cache
def class_of(c: str) -> str:
    return WORD_BREAKS[classes()[ord(c)] & WORD_BREAK]


def pictograph(c: str) -> bool:
    return bool(classes()[ord(c)] & PICTOGRAPH)


def unicode_words(text: str) -> list[str]:
    """By the rules, told again, over the shipped classes; `test_words_are_those_of_uniseg` holds both to the tool."""
    return tools.unicode_words(text, class_of, pictograph)


SAID: dict[tuple[str, str], Callable[[str], tools.Values]] = {
    ("gopher", "dolma"): tools.dolma_gopher,
    ("repetition", "dolma"): tools.dolma_repetition,
    ("gopher", "dclm"): lambda text: tools.dclm_gopher(text, tools.fasttext_words),
    ("repetition", "dclm"): lambda text: tools.dclm_repetition(text, unicode_words),
}
DIALECTS = pytest.mark.parametrize("use, dialect", SAID)


def measured(use: str, texts: Sequence[str], **params: Any) -> list[tools.Values]:
    return pa.table(stage.load(use, params)(pa.record_batch({"text": pa.array(texts, pa.string())}))).to_pylist()


def agree(use: str, dialect: str, texts: Sequence[str]) -> None:
    for text, found in zip(texts, measured(use, texts, dialect=dialect), strict=True):
        assert found == SAID[use, dialect](text), text[:500]


@DIALECTS
@pytest.mark.parametrize("name", nasty.TEXTS)
def test_every_signal_of_a_nasty_text(use, dialect, name):
    agree(use, dialect, [nasty.TEXTS[name]])


@DIALECTS
@given(texts=st.lists(TEXTS, max_size=4))
def test_every_signal_of_any_text(use, dialect, texts):
    agree(use, dialect, texts)


@DIALECTS
def test_every_signal_of_real_documents(use, dialect, real):
    agree(use, dialect, [text[:5000] for text in real[::50]])


@pytest.mark.slow
@DIALECTS
def test_every_signal_of_every_real_document(use, dialect, real):
    agree(use, dialect, real)


# Vectors of the published comparison: duplicate lines, their characters; duplicate 5-grams of T2 and of T3.
T1 = (
    "alpha beta gamma\nunique line one here\nalpha beta gamma\n"
    "another unique line two\nthird unique line now\nfourth unique line too"
)
T2, T3 = (
    " ".join(f"{letter}{k:03}" for letter, n in zip("wwx", counts, strict=True) for k in range(n))
    for counts in ((60, 6, 40), (20, 5, 12))
)
VECTORS = {
    "datatrove": (0.1667, 0.1301, 0.0378, 0.1087),
    "dolma": (0.3333, 0.3137, 0.0392, 0.0606),
    "dclm": (0.3333, 0.2712, 0.1132, 0.2703),
}


@pytest.mark.parametrize("dialect", VECTORS)
def test_conformance_vectors(dialect):
    first, second, third = measured("repetition", [T1, T2, T3], dialect=dialect)
    five = "duplicate_5gram_characters"
    found = (first["duplicate_lines"], first["duplicate_line_characters"], second[five], third[five])
    assert tuple(round(value or 0, 4) for value in found) == VECTORS[dialect]


# Words


def cut(text: str) -> list[str]:
    """The words that n-grams of the dialect "dclm" are made of, from the kernel."""
    import numpy as np

    from pipeline.kernels import planes, scratch, unicode, wordbreaks

    data = np.frombuffer(text.encode(), np.uint8)
    room = scratch.scratch(data.size)
    size = scratch.take(data, 0, data.size, room.text)
    planes.draw(room.text, size, unicode.table(), room.planes, np.zeros(4, np.int64))
    tables = unicode.table(), unicode.classes()
    n = wordbreaks.unicode_words(room.text, size, *tables, room.planes, room.packed, room.ends, room.sizes)
    packed, ends = room.packed.tobytes(), room.ends[: n + 1].tolist()
    return [packed[a:b].decode() for a, b in pairwise(ends)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ('The quick ("brown") fox can\'t jump 32.3 feet, right?', "The quick brown fox can't jump 32.3 feet right"),
        ("a_b _c 1,000.5 e.g. 3a b-c x:y 4:5", "a_b 1,000.5 e.g 3a b c x:y 4 5"),
        ('ש"ש ש\' "ש', "ש\"ש ש' ש"),
        ("カタ_a 水轮", "カタ_a 水 轮"),
        ("e\u0301te\u0301\u00adx 🇩🇪a", "e\u0301te\u0301\u00adx a"),
    ],
)
def test_words_by_the_annex(text, expected):
    assert cut(text) == expected.split(" ")


def test_words_are_those_of_uniseg(real):
    """The tool's own package, of a later Unicode, over characters that both class alike."""
    wordbreak = pytest.importorskip("uniseg.wordbreak")
    from uniseg.emoji import extended_pictographic

    @cache
    def known(c: str) -> bool:
        same = wordbreak.word_break(c).value == class_of(c) and extended_pictographic(c) == pictograph(c)
        return same and c.isprintable() | c.isspace()

    strange = st.lists(st.sampled_from([c for piece in PIECES for c in piece if known(c)]), max_size=30).map("".join)

    @given(strange | TEXTS)
    def any_text(text: str) -> None:
        text = "".join(filter(known, text))
        words = list(wordbreak.words(text))
        assert unicode_words(text) == words
        assert cut(text) == [word for word in words if word[0].isalnum()]

    any_text()
    for text in real[::400]:
        text = text[:2000]
        if all(map(known, text)):
            assert cut(text) == [word for word in wordbreak.words(text) if word[0].isalnum()]


@given(TEXTS)
def test_words_are_counted_as_fasttext_cuts_them(text):
    tokenize = pytest.importorskip("fasttext").tokenize
    text = text.replace("\0", " ")
    assert [word for word in tools.fasttext_words(text) if word != "\n"] == [
        word for word in tokenize(text) if word != "</s>"
    ]


# What a dialect is asked for


def test_a_rule_about_what_a_dialect_does_not_measure_is_an_error():
    assert "mean_word_length" not in stage.load("gopher", {"dialect": "dolma"}).signals
    assert "duplicate_paragraphs" not in stage.load("repetition", {"dialect": "dolma"}).signals
    assert "symbol_ratio" not in stage.load("gopher", {}).signals


@DIALECTS
def test_words_of_these_dialects_are_their_own(use, dialect):
    with pytest.raises(stage.ConfigError, match=f"here \\({use}\\): dialect {dialect!r} has words of its own"):
        stage.load(use, {"dialect": dialect, "units": "script"}, "here")


def test_dialects_are_not_asked_together():
    assert Ask(dialect="dolma").with_(Ask()) is None
    assert Ask(dialect="dclm", repetition=True).with_(Ask(dialect="dclm")) == Ask(dialect="dclm", repetition=True)


@pytest.fixture(scope="module")
def real(shared_data) -> list[str]:
    """All 27,126 documents of 42 languages."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    return table["text"].to_pylist()
