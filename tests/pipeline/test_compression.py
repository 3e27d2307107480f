"""The stage `compression` against Python's own zlib."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import stage


def ratios(texts: list[str]) -> list[float | None]:
    found = stage.load("compression", {})(pa.record_batch([pa.array(texts, pa.large_string())], ["text"]))
    return found["ratio"].to_pylist()


def test_what_it_counts_is_a_gzip_file(shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = [text for text in table["text"].to_pylist()[::900] if text]
    for text, ratio in zip(texts, ratios(texts), strict=True):
        data = text.encode()
        made = pa.Codec("gzip", 6).compress(data).to_pybytes()
        assert gzip.decompress(made) == data and ratio == len(data) / len(made)
        # The same algorithm in another library: sizes differ by little.
        assert len(made) == pytest.approx(len(zlib.compress(data, 6)) + 12, rel=0.03)


def test_repetition_is_high_noise_is_low_and_nothing_is_none():
    prose = "The mill wheel turns with water from that river, and it has to be kept free of leaves. "
    noise = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(500))
    high, low, short, none = ratios([prose * 200, noise, "a", ""])
    assert high > 50 and low < 1.6 and short < 0.1 and none is None
