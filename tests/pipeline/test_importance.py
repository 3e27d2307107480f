"""Importance weights against the formula of DSIR's own code (data-selection, HashedNgramDSIR) in plain numpy."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.hashed import counted
from pipeline.run import widen
from pipeline.schema import documents
from pipeline.sources import SourceError
from pipeline.stage import ConfigError, Stage
from pipeline.stages.importance import importance, noise
from tests.given import GIVEN, load
from tests.pipeline import twins

BUCKETS = 1 << 16
TEXTS = st.lists(st.sampled_from([*"aBé磨水ก\u0301.,-_ \n", "word", "Ünd", "3", "!?"]), max_size=30).map("".join)


def tokens(text: str) -> list[str]:
    """wordpunct of nltk (\\w+ or runs of what is neither \\w nor white space), a letter of a spaceless script alone."""
    found: list[str] = []
    last = ""
    for char in text:
        mark = twins.is_mark(char)
        kind = "one" if twins.spaceless(char) else "word" if char.isalnum() else last or "word" if mark else "other"
        kind = "" if char.isspace() else kind
        if kind and kind == last and (kind != "one" or mark):
            found[-1] += char.lower()[0]
        elif kind:
            found.append(char.lower()[0])
        last = kind
    return found


def features(text: str) -> list[str]:
    found = tokens(text)
    return [*found, *(f"{a} {b}" for a, b in pairwise(found))]


@given(text=TEXTS)
def test_every_feature_is_counted_and_equal_ones_share_a_bucket(text: str) -> None:
    counts, expected = counted(pa.array([text], pa.large_string()), BUCKETS), features(text)
    assert counts.sum() == len(expected) and np.count_nonzero(counts) <= len(set(expected))
    assert sorted(counts[counts > 0].tolist()) == sorted(np.unique(expected, return_counts=True)[1].tolist()) or len(
        set(expected)
    ) > np.count_nonzero(counts)


def test_tokens_of_ascii_are_those_of_wordpunct():
    text = "Don't stop: the mill's 3 wheels... (turn) -- and turn!"
    assert tokens(text) == re.findall(r"\w+|[^\w\s]+", text.lower())


def batch(*texts: str) -> pa.RecordBatch:
    return widen(documents([{"doc_id": f"{n}", "text": text, "source": "a"} for n, text in enumerate(texts)]))


def write(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    return str(path)


def test_the_weight_is_that_of_dsirs_formula(tmp_path):
    """log(p_target + 1e-8) - log(p_raw + 1e-8) over the buckets of the texts, added up for each document."""
    own = ["the mill wheel turns with the water", "stones grind rye, and rye is bread", "水車は川の水で回る。"]
    other = ["prices fell on friday as traders sold", "the match ended in a draw (again)", "shares: 3.5 %"]
    met = ["the wheel turns", "traders sold shares", "", "a text of neither kind", "水で回る", *own, *other]
    params: dict[str, Any] = {
        "target": [write(tmp_path / "own.jsonl", own)],
        "raw": [write(tmp_path / "other.jsonl", other)],
        "buckets": BUCKETS,
    }
    found = importance(batch(*met), **params)

    def counts(texts: list[str]) -> np.ndarray:
        return sum((counted(pa.array([text], pa.large_string()), BUCKETS) for text in texts), np.zeros(BUCKETS, int))

    target, raw = counts(own) / counts(own).sum(), counts(other) / counts(other).sum()
    log_diff = np.log(target + 1e-8) - np.log(raw + 1e-8)
    expected = [float(counted(pa.array([text], pa.large_string()), BUCKETS) @ log_diff) for text in met]
    assert np.allclose(found["score"].to_numpy(), expected, atol=1e-6, rtol=0)
    sizes = [len(features(text)) for text in met]
    per = [e / size if size else None for e, size in zip(expected, sizes, strict=True)]
    assert found["per_token"].to_pylist() == pytest.approx(per, abs=1e-6)
    text = pa.array(met, pa.large_string())
    assert np.allclose(found["gumbel"].to_numpy() - found["score"].to_numpy(), noise(text, 0))


def test_noise_is_gumbel_and_hangs_on_text_and_seed():
    text = pa.array([f"text {n}" for n in range(20_000)], pa.large_string())
    drawn = noise(text, 1)
    ordered = np.sort(drawn)
    exact = np.exp(-np.exp(-ordered))
    assert np.abs(exact - (np.arange(len(drawn)) + 0.5) / len(drawn)).max() < 1.63 / np.sqrt(len(drawn))
    assert (noise(text, 1) == drawn).all() and (noise(text, 2) != drawn).any()


def test_the_highest_are_drawn_by_their_weights():
    """Gumbel top-k is sampling without replacement: of two texts the heavier comes first by its share."""
    heavy, light = np.log(3.0), 0.0
    first = 0
    for n in range(4000):
        a, b = noise(pa.array([f"heavy {n}", f"light {n}"], pa.large_string()), 7)
        first += heavy + a > light + b
    assert abs(first / 4000 - 0.75) < 0.03


def test_what_is_like_the_target_is_told_from_what_is_not(shared_data, tmp_path):
    """Real pages: German ones weigh more than English ones for a German target, and the other way round."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir", "source"])
    table = table.filter(pc.equal(table["source"], "installation-guide"))
    of = {lang: table.filter(pc.equal(table["lang_dir"], lang))["text"].to_pylist() for lang in ("de", "en")}
    if min(map(len, of.values())) < 20:
        pytest.skip("the corpus has no German and English pages under these names")
    half = {lang: texts[::2] for lang, texts in of.items()}
    params = {"target": [write(tmp_path / "de.jsonl", half["de"])], "raw": [write(tmp_path / "en.jsonl", half["en"])]}
    found = {lang: importance(batch(*texts[1::2]), **params)["per_token"].to_numpy() for lang, texts in of.items()}
    assert (found["de"] > 0).mean() > 0.95 and (found["en"] < 0).mean() > 0.95


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"target": []}, "target is empty"),
        ({"raw": ["no-such-card"]}, "'no-such-card' is no card"),
        ({"buckets": 1}, "buckets must be from 2 to 10,000,000"),
    ],
)
def test_what_cannot_be_is_said_at_once(params, said):
    with pytest.raises(ConfigError, match=said):
        load("importance", params)


def test_a_reference_without_text_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    (tmp_path / "b.jsonl").write_text('{"text": " "}')
    good = GIVEN["importance"]["raw"]
    for name, said in (
        ("a.jsonl", "a row has no text; it has body"),
        ("b.jsonl", "no text, so nothing can be like it"),
    ):
        stage: Stage = load("importance", {"target": [str(tmp_path / name)], "raw": good})
        with pytest.raises(SourceError, match=said):
            stage(batch("a"))
