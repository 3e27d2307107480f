"""The stages `scripts` and `lines_language`: against Unicode's own script property, and real pages of two languages."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline import stage
from pipeline.kernels import scripts
from pipeline.kernels.unicode import ALPHA, table
from pipeline.models import ModelError, language_model
from tests.conftest import ROOT


def test_nearly_every_letter_has_the_script_that_unicode_says():
    regex = pytest.importorskip("regex")
    properties = {name: rf"\p{{Script={name.title()}}}" for name in scripts.BLOCKS if name != "kana"}
    properties["kana"] = r"[\p{Script=Hiragana}\p{Script=Katakana}]"
    known, letters = scripts.script_table(), np.flatnonzero(table() & ALPHA)
    text = {int(code): chr(code) for code in letters if not 0xD800 <= code <= 0xDFFF}
    for name, pattern in properties.items():
        wanted, number = regex.compile(pattern), scripts.NAMES.index(name)
        theirs = {code for code, char in text.items() if wanted.match(char)}
        ours = {code for code in text if known[code] == number}
        assert len(ours & theirs) >= 0.94 * max(len(ours), len(theirs)), (name, len(ours - theirs), len(theirs - ours))


def shares(texts: list[str]) -> list[dict[str, float | None]]:
    found = stage.load("scripts", {})(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]))
    return pa.table(found).to_pylist()


def test_shares_are_of_letters_alone():
    mixed, none = shares(["ab磨 12 の...Ж", "12 !\u0301"])
    assert {name: value for name, value in mixed.items() if value} == {
        "latin": 0.4,
        "han": 0.2,
        "kana": 0.2,
        "cyrillic": 0.2,
    }
    assert set(none.values()) == {None}


def test_a_page_in_two_languages_is_told_from_one_in_one():
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))
    of = {}
    for lang in ("en", "de", "zh"):
        rows = (ROOT / "catalogs" / "samples" / f"{lang}.jsonl").read_text("utf-8").splitlines()[:2]
        of[lang] = [" ".join(json.loads(row)["text"].split())[:300] for row in rows]
    texts = [
        "\n".join(of["en"]),
        "\n".join([*of["en"], *of["de"]]),
        "\n".join([*of["zh"], of["en"][0], "ok"]),
        "short\n",
    ]
    found = stage.load("lines_language", {})(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]))
    one, two, most, none = found["main_share"].to_pylist()
    assert one == 1.0 and two == pytest.approx(0.5, abs=0.02) and 0.5 < most < 0.8 and none is None
    assert found["languages"].to_pylist() == [1, 2, 2, None]
