"""The stage `normalise` against a plain twin: the fast search for flaws must find all that the slow one changes."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels import unicode
from tests.laws import nasty
from tests.pipeline import twins

PIECES = (
    *"the mill été e\u0301 \u0301 a\u0328\u0301 a\u0301\u0328 \u00c5 \u212b \u1100\u1161 가\u11a8".split(),
    *"ﬁ ① Ａ ½ \u1e69 s\u0307\u0323".split(),
    *"磨坊 カ\u3099 हिन्दी שלום \u05e9\u05bc\u05c1 𝔘 \U0001d15e \U0001fae8 \U00011f00 \u0344 \u0958 \u2126".split(),
    *("\n", "\n\n", "\n\n\n\n", "\r\n", "\r", "\t", " ", "  ", "\u3000", "\u00a0", "\u2028", "\u2009", "\x0b", "\x0c"),
    *("\x00", "\x07", "\x1b[0m", "\x1c", "\x1f", "\x7f", "\x85", "\x9f", "\ufeff", "\u200b", "\u200d", ""),
)
# Mostly broken texts, and texts with one flaw at most.
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=3), 30).map("".join) | st.tuples(
    st.text("a é磨\n", max_size=4), st.sampled_from(PIECES) | st.integers(1, 6).map("\n".__mul__), st.just("b")
).map("".join)
FORMS = pytest.mark.parametrize("form", ["NFC", "NFKC"])


def normalised(texts: list[str], form: str) -> list[str]:
    batch = pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])
    return stage.load("normalise", {"form": form})(batch)["text"].to_pylist()


def known(text: str) -> bool:
    """Whether Unicode 14.0 knows all characters: normal forms of others move with the Python version."""
    return bool((unicode.table()[unicode.code_points(text)] & unicode.ASSIGNED > 0).all())


def twin(text: str, form: str) -> str:
    """Character by character, line by line, nothing clever."""
    plain = ""
    for char in text.replace("\r\n", "\n"):
        if char in "\r\v\f\x1c\x1d\x1e\x85":
            plain += "\n"
        elif char == "\x1f":
            plain += " "
        elif char in "\n\t" or (unicodedata.category(char) != "Cc" and char != "\ufeff"):
            plain += char
    lines = [line.rstrip() for line in unicodedata.normalize(form, plain).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    found: list[str] = []
    for line in lines:
        if line or found[-2:] != ["", ""]:
            found.append(line)
    return "\n".join(found).strip()


@FORMS
@given(text=TEXTS)
def test_it_is_the_plain_twin(form, text):
    if known(text):
        assert normalised([text], form) == [twin(text, form)]


@FORMS
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_what_comes_out_is_tidy_and_stays(form, texts):
    """Also with characters that Unicode 14.0 does not know."""
    for before, text in zip(texts, normalised(texts, form), strict=True):
        assert "\n\n\n\n" not in text and text == text.strip()
        assert all(line == line.rstrip() for line in text.split("\n"))
        assert not [c for c in text if (unicodedata.category(c) == "Cc" and c not in "\n\t") or c == "\ufeff"]
        assert normalised([text], form) == [text]
        assert not known(before) or unicodedata.is_normalized(form, text)


@given(text=TEXTS)
def test_nothing_is_lost_but_white_space_and_controls(text):
    def letters(value: str) -> str:
        spaces = "".join(c for c in value if not c.isspace() and unicodedata.category(c) != "Cc" and c != "\ufeff")
        return unicodedata.normalize("NFC", spaces)

    if known(text):
        assert letters(normalised([text], "NFC")[0]) == letters(text)


@FORMS
def test_nasty_texts_are_those_of_the_twin(form):
    texts = [text for text in nasty.TEXTS.values() if known(text)]
    assert normalised(texts, form) == [twin(text, form) if len(text) < 100_000 else text.strip() for text in texts]


@FORMS
def test_real_documents_are_those_of_the_twin(form, shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = [text[:5000] for text in table["text"].to_pylist()[::50]]
    texts = [text for text in texts if known(text)]
    found = normalised(texts, form)
    assert found == [twin(text, form) for text in texts]
    assert sum(a == b for a, b in zip(found, texts, strict=True)) > 20, "tidy texts are left alone"


def test_characters_of_a_later_unicode_stay_and_their_neighbours_are_normalised():
    """U+11F00 and U+1FAE8 came with 15.0: between them e + acute is composed, across them nothing is."""
    text = "e\u0301 \U00011f00 e\u0301 a\U0001fae8\u0301"
    assert normalised([text], "NFC") == ["\u00e9 \U00011f00 \u00e9 a\U0001fae8\u0301"]


def test_an_unknown_form_is_an_error_at_load():
    with pytest.raises(stage.ConfigError, match="form"):
        stage.load("normalise", {"form": "NFD"}, "r.toml stage 1")
