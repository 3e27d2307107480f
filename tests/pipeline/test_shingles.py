"""Shingles: sets of word n-grams, of characters where no spaces are written, against a plain twin."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog import resemblance
from pipeline.kernels import bands, minhash, shingles
from tests.laws import nasty
from tests.pipeline import twins

PIECES = (
    *"the Mill MÜHLE İstanbul ß ﬁne 12 ½ ² a1b2 don't e\u0301te \u0301mark x\u0300\u0301 ９ Ⅷ ʰ _ under_score".split(),
    *"磨坊 〇 水轮, カタ ー 々 ไทย กังหัน នៅ မြန်မာ 한국 물레 हिन्दी العَرَبيّة 𝔘𐐀 𠀀 👩‍👧 \u200d ﾊﾝ".split(),
    *("Abcdefg", "abcdefgh", "ABCDEFGHI", "abcdefghijklmnop", "k2Z9", "\u212a", "@[`{/:", "\x7f"),
    *(" ", "\n", "\u3000", "。", "-", "'", "\x00", "#", ""),
)
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=3), 40).map("".join) | twins.long_lists(
    st.sampled_from("a b c d 磨 坊".split()), 30
).map(" ".join)


def sets_of(texts: Sequence[str], ngram: int = 5) -> shingles.Sets:
    return shingles.shingle_sets(pa.array(texts, pa.large_string()), ngram)


def each(sets: shingles.Sets) -> list[np.ndarray]:
    return [sets[0][a:b] for a, b in itertools.pairwise(sets[1])]


def agree(texts: list[str], ngram: int) -> None:
    """Sizes and all pairwise similarities are those of plain sets of tuples, so the hashes merge and split nothing."""
    expected = [twins.shingles(text, ngram) for text in texts]
    sets = sets_of(texts, ngram)
    assert [len(resemblance.shingles(text, ngram)) for text in texts] == list(map(len, expected))
    assert np.diff(sets[1]).tolist() == list(map(len, expected))
    assert all((np.diff(values.astype(object)) > 0).all() for values in each(sets))
    left, right = (
        np.array(side, np.int64) for side in zip(*itertools.product(range(len(texts)), repeat=2), strict=True)
    )
    found = shingles.jaccards(sets, sets, left, right)
    plain = [resemblance.jaccard(texts[a], texts[b], ngram) for a, b in zip(left, right, strict=True)]
    assert (
        found.tolist() == plain == [twins.jaccard(expected[a], expected[b]) for a, b in zip(left, right, strict=True)]
    )
    digests = shingles.set_digests(sets).to_pylist()
    for a, b in itertools.combinations(range(len(texts)), 2):
        assert (digests[a] == digests[b]) == (expected[a] == expected[b])
        assert (digests[a] is None) == (not expected[a])


@given(texts=st.lists(TEXTS, min_size=2, max_size=5), ngram=st.integers(1, 6))
def test_shingles_are_those_of_a_plain_twin(texts, ngram):
    agree(texts, ngram)


@pytest.mark.parametrize("ngram", [1, 5])
def test_shingles_of_nasty_texts(ngram):
    agree([text for name, text in nasty.TEXTS.items() if len(text) < 100_000 and "newer" not in name], ngram)


def test_a_word_is_a_unit_in_english_and_a_character_in_chinese():
    assert twins.units("The Mill's wheel_2, été") == ["the", "mill", "s", "wheel", "2", "été"]
    assert twins.units("我用Python写了 3 个") == ["我", "用", "python", "写", "了", "3", "个"]
    assert twins.shingles("磨坊的水轮转", 5) == {tuple("磨坊的水轮"), tuple("坊的水轮转")}
    sets = sets_of(["The MILL, and the wheel!", "the mill and the wheel", "磨坊 的水。轮", "磨坊的水轮"])
    digests = shingles.set_digests(sets).to_pylist()
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_shingles_of_real_documents(shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = [text[:4000] for text in table["text"].to_pylist()[::300]]
    agree(texts, 5)


def test_hashes_are_the_same_for_ever():
    """A changed hash is a changed key of every stored sketch: let it never be an accident."""
    sets = sets_of(["the mill wheel turns with water from that river", "磨坊的水轮转动着"])
    digests = [digest.hex() for digest in shingles.set_digests(sets).to_pylist()]
    assert digests == ["ba168adec90edadc6a4c63b10b85cb9a", "675868dfde341731ed0f24d9c999da7e"]
    hashes = bands.band_hashes(minhash.signatures(sets, 112, 1), 14)
    assert hashes[:, :2].T.tolist() == [
        [12126048914165477650, 5168296269814071357],
        [4937078762810352938, 3420161980743785144],
    ]
