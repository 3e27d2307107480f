"""The stage `perplexity` against the arithmetic of its ARPA file, line by line, and against bounds that cannot be."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import stage
from tests.given import HERE

pytest.importorskip("kenlm")
MODEL = HERE / "bigrams.arpa"


def arpa() -> tuple[dict[str, tuple[float, float]], dict[tuple[str, str], float]]:
    """(probability and back-off of each word, probability of each pair), as logarithms to 10."""
    words, pairs = {}, {}
    for row in MODEL.read_text("utf-8").splitlines():
        parts = row.split("\t")
        if len(parts) > 1 and " " in parts[1]:
            a, b = parts[1].split(" ")
            pairs[a, b] = float(parts[0])
        elif len(parts) > 1:
            words[parts[1]] = float(parts[0]), float(parts[2]) if len(parts) > 2 else 0.0
    return words, pairs


def expected(text: str) -> float | None:
    words, pairs = arpa()
    total, tokens = 0.0, 0
    for line in text.split("\n"):
        row = ["".join("0" if c in "0123456789" else c.lower() for c in word) for word in line.split()]
        if not row:
            continue
        row = ["<s>", *(word if word in words else "<unk>" for word in row), "</s>"]
        for a, b in pairwise(row):
            total += pairs[a, b] if (a, b) in pairs else words[a][1] + words[b][0]
        tokens += len(row) - 1
    return 10 ** (-total / tokens) if tokens else None


def measured(texts: list[str], **params: object) -> dict[str, list]:
    bound = stage.load("perplexity", {"model": str(MODEL), **params}, "here")
    found = bound(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]))
    return {name: values.to_pylist() for name, values in found.items()}


TEXTS = ["The wheel of the mill", "the\n\nof a\n", "x1855 THE 12", "", " \n ", "a\x00b", "of the " * 400, "麦粉 the"]


def test_a_perplexity_is_that_of_the_file():
    for text, found in zip(TEXTS, measured(TEXTS)["perplexity"], strict=True):
        said = expected(text.replace("\x00", " "))
        assert found == (None if said is None else pytest.approx(said, rel=1e-4)), text


def test_buckets_lie_between_the_bounds():
    found = measured(TEXTS, head=20.0, tail=100.0)
    for one, bucket in zip(found["perplexity"], found["bucket"], strict=True):
        assert bucket == (None if one is None else "head" if one <= 20 else "tail" if one > 100 else "middle")
    assert len(set(found["bucket"])) >= 3 and "bucket" not in measured(TEXTS)


def test_by_script_each_letter_of_han_is_a_word():
    together, apart = measured(["麦粉 the", "麦 粉 the"], units="script")["perplexity"]
    assert together == apart != measured(["麦粉 the"])["perplexity"][0] and math.isfinite(together)


def test_what_cannot_be_is_refused(tmp_path: Path):
    for bounds in ({"head": 2.0}, {"head": 9.0, "tail": 3.0}, {"head": 0.0, "tail": 3.0}):
        with pytest.raises(stage.ConfigError, match="`head` and `tail` together"):
            stage.load("perplexity", {"model": str(MODEL), **bounds}, "here")
    (tmp_path / "bad.arpa").write_text("no model\n")
    with pytest.raises(stage.ConfigError, match=r"bad\.arpa: KenLM cannot read it"):
        stage.load("perplexity", {"model": str(tmp_path / "bad.arpa")}, "here")
