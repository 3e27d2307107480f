"""Where pre-tokens end, one at a time and 64 bytes at a time, against `tokenizers`."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.pretoken_masks import sure_ends
from pipeline.kernels.pretokens import DIGITS, GPT2, classes, next_end
from pipeline.kernels.unicode import CODE_POINTS
from tests.pipeline.forms import FORMS, PIECES, pre_tokenizer


def ends(text: str, digits: int, behind: str | None = None) -> list[int]:
    """By `next_end` alone or, where there is text behind, by masks wherever they tell."""
    data, offsets = text_buffers(pa.array([text, behind or ""]))
    found, end = [0], int(offsets[1])
    while found[-1] < end:
        i = found[-1]
        mask = int(sure_ends(data, i, end, digits)) if behind else 0
        found += [i + k for k in range(64) if mask >> k & 1] or [next_end(data, i, end, classes(), digits)]
    return found[1:]


def expected_ends(text: str, form: str) -> list[int]:
    pieces = [text[a:b] for _, (a, b) in pre_tokenizer(form).pre_tokenize_str(text)]
    return np.cumsum([len(piece.encode()) for piece in pieces]).tolist()


CODES = [code for code in range(CODE_POINTS) if not 0xD800 <= code <= 0xDFFF]
# So few characters, so many of them: every kind of neighbours lies across the edge of 64 bytes.
FEW = st.integers(0).map(lambda seed: "".join(random.Random(seed).choices("ab1 .\n\t'str中，", k=150)))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=300)
@given(text=FEW, odd=st.sampled_from(PIECES), behind=st.sampled_from(["a", " ", "\n", "1", "'", "é"]))
def test_ends_are_the_same_64_bytes_at_a_time(form, text, odd, behind):
    """With at most one other character amid them, whatever comes behind the document."""
    digits, text = DIGITS[FORMS[form] or GPT2], text[:75] + odd + text[75:]
    assert ends(text, digits, behind * 64) == ends(text, digits) == expected_ends(text, form)


@pytest.mark.parametrize("form", FORMS)
def test_ends_at_every_place_across_the_edge_of_64_bytes(form):
    for piece in [
        "'re",
        "'LL's",
        "\n  \n x",
        "  \n\t",
        ".\n\n \n",
        " .a",
        "1234567",
        "\n \tx",
        "''s",
        "。中",
        " ，中",
        "，。\n",
        "中文é",
    ]:
        for before in range(50, 66):
            text = "x" * before + piece + "y" * 70
            assert ends(text, DIGITS[FORMS[form] or GPT2], "=" * 64) == expected_ends(text, form)


@pytest.mark.parametrize("form", FORMS)
def test_every_character_of_three_bytes_64_bytes_at_a_time(form):
    """Those that are known so have the class that `tokenizers` gives them."""
    digits = DIGITS[FORMS[form] or GPT2]
    for first in range(0x800, 0xF800, 32):
        text = "".join(f"a{chr(code)}a .{chr(code)}\n" for code in CODES[first : first + 32])
        assert ends(text, digits, "=" * 64) == ends(text, digits)


@pytest.mark.parametrize("form", FORMS)
def test_common_text_is_cut_64_bytes_at_a_time(form):
    """Not by one call of `next_end` for each pre-token: that is what makes it fast."""
    text = "“磨坊”的水轮转动着，人们把粮食送到磨坊。It's the miller's 12345th sack, isn't it?\n\n"
    text = 9 * (text + "\tfor i in range(7):\n\t    print(i)\r\n")
    data, offsets = text_buffers(pa.array([text, "=" * 64]))
    cut = ends(text, DIGITS[FORMS[form] or GPT2], "=" * 64)
    sure = sum(sure_ends(data, i, int(offsets[1]), DIGITS[FORMS[form] or GPT2]) != 0 for i in [0, *cut[:-1]])
    assert sure == len(cut)


def test_every_character_has_the_class_that_tokenizers_gives_it():
    """All code points in one text, whose pre-tokens end where the class changes."""
    text = "".join(map(chr, CODES))
    assert ends(text, 0) == expected_ends(text, "byte-level")


@pytest.mark.parametrize("form", FORMS)
def test_characters_are_cut_as_tokenizers_cuts_them(form):
    """The first and last of every run of one class and others: after a letter, a space, a quote, before a digit."""
    kinds = classes()[CODES]
    edges = np.flatnonzero(np.diff(kinds, prepend=9, append=9))
    chosen = {CODES[min(at, len(CODES) - 1)] for edge in edges.tolist() for at in (edge - 1, edge)}
    for code in sorted(chosen | set(range(256)) | set(CODES[::997])):
        text = f"a{chr(code)} {chr(code)}1\n'{chr(code)}  {chr(code) * 2}"
        assert ends(text, DIGITS[FORMS[form] or GPT2]) == expected_ends(text, form)
