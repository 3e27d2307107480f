"""RefinedWeb's line-wise corrections against a plain twin, and case by case."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.stages.refinedweb import COUNTED
from tests.laws import nasty
from tests.pipeline import twins

PIECES = (
    *(
        "Sign in",
        "sign-out",
        "LOG IN",
        "Read more...",
        "read more",
        "Continue reading »",
        "3 items in your cart",
        "item in cart",
    ),
    *(
        "3 likes",
        "1,204 views",
        "2.5K shares!",
        "42",
        "2024",
        "HELLO WORLD",
        "Hello World",
        "word",
        "the mill grinds grain",
    ),
    *(
        "design inside",
        "signing",
        "a b c d e f g h i j k",
        "\n",
        "\n\n",
        " ",
        "\t",
        "磨坊的水轮。",
        "é",
        "É",
        "!",
        "12 34",
        "ſ",
    ),
)
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=2), 30).map("".join)


def ours(texts: list[str], **params: Any) -> list[tuple[float | None, int, str]]:
    batch = pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])
    rows = pa.table(stage.load("refinedweb", params)(batch)).to_pylist()
    left = stage.load("refinedweb_lines", params)(batch)["text"].to_pylist()
    return [(row["flagged_word_ratio"], row["flagged_lines"], text) for row, text in zip(rows, left, strict=True)]


def goes(line: str) -> bool:
    plain = [c for c in line if not c.isspace()]
    capitals = sum(c.lower()[:1] != c for c in plain)
    digits = all(c.isalnum() and not c.isalpha() for c in plain)
    return len(line.split()) == 1 or 2 * capitals > len(plain) or (digits and bool(plain))


def edited(line: str) -> str:
    """What is left of a short line, by one expression for each kind of pattern."""
    flags = re.IGNORECASE | re.ASCII
    before = None
    while before != line:
        before = line
        if re.fullmatch(rf"\W*\d[\d,.]*[kmb]?\s+(?:{COUNTED})\W*", line, flags):
            return ""
        for pattern in (
            r"^\W*(?:sign|log)[ -]?(?:in|out)\b\W*|^\W*sign[ -]?up\b\W*",
            r"\s*\b(?:(?:read|see|show|load) more|continue reading)\W*$",
            r"\s*\b(?:\d+ )?items? in (?:your |the )?cart\b\s*",
        ):
            if re.search(pattern, line, flags):
                line = re.sub(pattern, " ", line, flags=flags).strip()
                if not line or goes(line):
                    return ""
                break
    return line


def twin(text: str) -> tuple[float | None, int, str]:
    total = lost = marked = 0
    kept = []
    for line in text.split("\n"):
        count = len(line.split())
        total += count
        left = line
        if count and goes(line):
            left = ""
        elif 0 < count <= 10 and len(line.encode()) <= 1000:
            left = edited(line)
        if left != line:
            marked += 1
            lost += count - len(left.split())
        if left or not line:
            kept.append(left)
    return (lost / total if total else None), marked, "\n".join(kept)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_it_is_the_plain_twin(texts):
    for text, found in zip(texts, ours(texts), strict=True):
        expected = twin(text)
        assert found[1:] == expected[1:] and found[0] == pytest.approx(expected[0]), text


def test_it_is_the_twin_on_nasty_texts_and_real_pages(shared_data):
    pages = pq.read_table(shared_data / "quality" / "web_quality_labels.parquet")["text"].to_pylist()
    # What follows Unicode 14.0 and a first special casing may have other cases under this Python.
    texts = [text for name, text in nasty.TEXTS.items() if name not in ("newer than unicode 14", "dotted i")]
    changed = 0
    for text, found in zip(texts + pages, ours(texts + pages), strict=True):
        expected = twin(text)
        assert found[1:] == expected[1:] and found[0] == pytest.approx(expected[0]), text[:200]
        changed += found[1] > 0
    assert changed > 15


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_twice_is_once(texts):
    once = [text for _, _, text in ours(texts)]
    assert [text for _, _, text in ours(once)] == once


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Sign in to your account to see it", "to your account to see it"),
        ("The mill grinds grain. Read more...", "The mill grinds grain."),
        ("You have 3 items in your cart today", "You have today"),
        ("3 likes", None),
        ("1,204 views", None),
        ("Home", None),
        ("2024", None),
        ("12 34", None),
        ("BUY NOW AND SAVE", None),
        ("Sign in", None),
        ("", ""),
        ("A line of more than ten words is left alone even if it ends so: read more", ...),
        ("Signing a design inside costs 3 likes in all", ...),
    ],
)
def test_one_line_among_others(line, left):
    around = "The wheel turns with the water of the river.", "And so does the stone."
    expected = [around[0], *([] if left is None else [line if left is ... else left]), around[1]]
    [(ratio, count, text)] = ours(["\n".join([around[0], line, around[1]])])
    assert text.split("\n") == expected
    changed = line != "" and left is not ...
    assert count == changed and (ratio > 0) == changed


def test_a_line_of_chinese_is_one_word_but_by_script():
    text = "磨坊的水轮转动着，人们把粮食送来。\n更多\n面粉装在袋子里带回家。"
    assert ours([text])[0][1:] == (3, "")
    assert ours([text], units="script")[0] == (0.0, 0, text)
