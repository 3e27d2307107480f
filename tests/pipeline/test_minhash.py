"""Signatures, bands and candidates: against plain twins, datasketch, and what probability theory says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels import bands, minhash, random, shingles
from pipeline.stages import near
from tests.pipeline import twins

BANDS, ROWS = 14, 8
COUNT = BANDS * ROWS


def sets_of(texts: Sequence[str], ngram: int = 5) -> shingles.Sets:
    return shingles.shingle_sets(pa.array(texts, pa.large_string()), ngram)


def sets_from(values: Sequence[np.ndarray]) -> shingles.Sets:
    """Sets of given hashes: sorted, side by side."""
    starts = np.cumsum([0, *map(len, values)]).astype(np.int64)
    return np.concatenate([np.sort(v) for v in values]).astype(np.uint64), starts


# Random numbers and signatures


def test_random_numbers_are_those_of_the_paper():
    """The reference outputs of splitmix64.c for the seed 1234567."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert random.stream(1234567, 5).tolist() == expected == twins.splitmix64(1234567, 5)


@given(
    values=st.lists(st.sets(st.integers(0, 2**64 - 1), max_size=6), min_size=1, max_size=5),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
)
def test_signatures_are_those_of_big_integers(values, count, seed):
    sets = sets_from([np.array(sorted(v), np.uint64) for v in values])
    expected = [twins.signature(v, count, seed) for v in values]
    assert minhash.signatures(sets, count, seed).tolist() == expected


@pytest.fixture(scope="module")
def pairs() -> list[tuple[float, np.ndarray, np.ndarray]]:
    """600 pairs of sets with their exact similarity, from 0 to 1."""
    draw = np.random.default_rng(5)
    found = []
    for similarity in np.linspace(0, 1, 600):
        union = np.unique(draw.integers(0, 2**64, draw.integers(40, 300), np.uint64))
        draw.shuffle(union)
        shared = round(similarity * union.size)
        cut = shared + draw.integers(0, union.size - shared + 1)
        left, right = union[:cut], np.concatenate([union[:shared], union[cut:]])
        if left.size and right.size:
            found.append((shared / union.size, left, right))
    return found


def test_signatures_and_estimates_are_those_of_datasketch(pairs):
    """The same permutations over the same 32-bit hashes: datasketch mixes its input first, so ours is mixed alike."""
    datasketch = pytest.importorskip("datasketch")
    from datasketch.minhash import _fmix

    for similarity, left, right in pairs[::20]:
        left, right = (np.unique(side >> np.uint64(32)).astype(np.uint32) for side in (left, right))
        mixed = [_fmix(side, 32).astype(np.uint64) << np.uint64(32) for side in (left, right)]
        signed = minhash.signatures(sets_from(mixed), COUNT, 1)
        theirs = []
        for values, mine in zip((left, right), signed, strict=True):
            sketch = datasketch.MinHash(
                COUNT, scheme="affine32", permutations=minhash.permutations(COUNT, 1), hashfunc=lambda value: value
            )
            sketch.update_batch(values)
            assert sketch.hashvalues.tolist() == mine.tolist()
            theirs.append(sketch)
        assert theirs[0].jaccard(theirs[1]) == (signed[0] == signed[1]).mean()
        assert abs(theirs[0].jaccard(theirs[1]) - similarity) < 0.25


def test_the_error_of_the_estimate_is_binomial(pairs):
    """Over many pairs the standard scores have mean 0 and variance 1; none is beyond five."""
    scores = []
    for similarity, left, right in pairs:
        first, second = minhash.signatures(sets_from([left, right]), COUNT, 1)
        estimate = (first == second).mean()
        if similarity in (0.0, 1.0):
            assert estimate == similarity
        else:
            scores.append((estimate - similarity) / math.sqrt(similarity * (1 - similarity) / COUNT))
    assert len(scores) > 500 and max(map(abs, scores)) < 5
    assert abs(np.mean(scores)) < 4 / math.sqrt(len(scores))
    assert abs(np.var(scores) - 1) < 4 * math.sqrt(2 / len(scores))


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
def test_the_s_curve(similarity):
    """A pair shares a band with probability 1 - (1 - J^8)^14: 2,000 pairs, within four standard errors."""
    trials, size = 2000, 100
    draw = np.random.default_rng(int(similarity * 100))
    shared = round(similarity * size)
    values = []
    for _ in range(trials):
        union = draw.integers(0, 2**64, size, np.uint64)
        cut = shared + (size - shared) // 2
        values += [union[:cut], np.concatenate([union[:shared], union[cut:]])]
    hashes = bands.band_hashes(minhash.signatures(sets_from(values), COUNT, 1), BANDS)
    found = (hashes[0::2] == hashes[1::2]).any(axis=1).mean()
    expected = 1 - (1 - similarity**ROWS) ** BANDS
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / trials) + 1e-9


# Candidates


def brute(hashes: list[int], mixers: list[int], most: int, neighbours: int) -> tuple[set[tuple[int, int]], int]:
    """Every bucket of one band by a dictionary; in a large one, neighbours on a ring in the order of the mixers."""
    buckets: dict[int, list[int]] = {}
    for member, value in enumerate(hashes):
        buckets.setdefault(value, []).append(member)
    pairs: set[tuple[int, int]] = set()
    for members in buckets.values():
        together = set(itertools.combinations(members, 2))
        if len(members) > most:
            ring = sorted(members, key=lambda m: (mixers[m], m))
            steps = itertools.product(range(len(ring)), range(1, neighbours + 1))
            together = {tuple(sorted((ring[i], ring[(i + step) % len(ring)]))) for i, step in steps}
        pairs |= together
    return pairs, sum(len(members) > most for members in buckets.values())


@given(
    hashes=twins.long_lists(st.integers(0, 4), 24),
    seed=st.integers(0, 2**32),
    most=st.integers(2, 14),
)
def test_candidates_are_those_of_brute_force(hashes, seed, most):
    mixers = np.random.default_rng(seed).integers(0, 5, len(hashes), np.uint64)
    sets = np.arange(len(hashes))
    found, large = bands.candidates(np.array(hashes, np.uint64), sets, mixers, most, most - 1)
    expected = brute(hashes, mixers.tolist(), most, most - 1)
    assert ({*map(tuple, found.T.tolist())}, large) == expected
    assert (
        bands.candidates(np.array(hashes, np.uint64), 7 * sets, mixers, most, most - 1)[0].tolist()
        == (7 * found).tolist()
    )


@given(
    signed=st.lists(st.lists(st.integers(0, 2), min_size=12, max_size=12), min_size=1, max_size=12),
    count=st.sampled_from([1, 2, 3, 4, 6, 12]),
)
def test_two_bands_have_one_hash_if_number_and_rows_are_equal(signed, count):
    found = bands.band_hashes(np.array(signed, np.uint32), count)
    rows = 12 // count
    said = {(d, k): (k, *signed[d][k * rows : (k + 1) * rows]) for d in range(len(signed)) for k in range(count)}
    for (a, b), (c, d) in itertools.combinations(said, 2):
        assert (found[a, b] == found[c, d]) == (said[a, b] == said[c, d])


def test_a_large_bucket_is_held_together_by_few_pairs():
    """2,000 sets in one bucket: a hundredth of the pairs, and still one component."""
    mixers = random.stream(1, 2000)
    found, large = bands.candidates(np.ones(2000, np.uint64), np.arange(2000), mixers, near.BUCKET, near.NEIGHBOURS)
    assert large == 1 and found.shape[1] == 2000 * near.NEIGHBOURS
    assert set(twins.components(2000, found.T.tolist())) == {0}
    rings = [bands.ring(mixers, band) for band in (0, 1)]
    assert (np.argsort(rings[0]) != np.argsort(rings[1])).any()


def test_candidates_are_those_of_datasketch(pairs):
    """MinHashLSH over the same signatures, with the same bands and rows."""
    datasketch = pytest.importorskip("datasketch")
    signed = minhash.signatures(sets_from([side for _, *both in pairs for side in both]), COUNT, 1)
    sketches = [datasketch.MinHash(COUNT, hashvalues=row, scheme="affine32") for row in signed]
    index = datasketch.MinHashLSH(num_perm=COUNT, params=(BANDS, ROWS))
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    theirs = {(min(n, m), max(n, m)) for n, sketch in enumerate(sketches) for m in index.query(sketch) if m != n}
    everyone, ours = np.arange(len(sketches)), set()
    for hashes in bands.band_hashes(signed, BANDS).T:
        found, large = bands.candidates(hashes.copy(), everyone, signed[:, 0].astype(np.uint64), 512, 8)
        ours |= {*map(tuple, found.T.tolist())}
        assert not large
    assert ours == theirs and len(theirs) > 100


# The stage


def corpus() -> list[str]:
    """60 texts with copies of them from nearly equal to hardly alike, in two scripts; three without a word."""
    draw = np.random.default_rng(9)
    words = [f"w{n}" for n in range(400)] + [chr(0x4E00 + n) for n in range(400)]
    texts = ["", "...", "!"]
    for number in range(60):
        some = draw.choice(words[400 * (number % 2) :][:400], 120).tolist()
        texts.append(("" if number % 2 else " ").join(some))
        for changes in (1, 3, 8):
            changed = list(some)
            for place in draw.integers(0, len(changed), changes):
                changed[place] = words[draw.integers(0, 800)]
            texts.append((" " if number % 2 == 0 else "").join(changed))
        # The beginning alone: no more alike than its size says.
        texts.append((" " if number % 2 == 0 else "").join(some[: 94 + number % 12]))
    return texts


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("threshold", [0.6, 0.75, 1.0])
def test_pairs_are_right_and_those_alike_enough_are_found(parts, threshold):
    texts = corpus()
    bound = stage.load("near", {"threshold": threshold, "bands": BANDS, "rows": ROWS})
    cuts = np.array_split(np.arange(len(texts)), parts)
    tables = []
    for number, rows in enumerate(cuts):
        batch = pa.record_batch([pa.array([texts[i] for i in rows], pa.large_string())], names=["text"])
        place = {"part": pa.array([number] * len(rows), pa.int32()), "row": pa.array(range(len(rows)), pa.int32())}
        tables.append(pa.table({**bound(batch), **place}))
    found = near.compare(
        iter(tables), lambda part, rows: pa.array([texts[cuts[part][r]] for r in rows]), **bound.params
    )
    sets = {
        d: twins.shingles(t, 5)
        for d, t in zip(shingles.set_digests(sets_of(texts)).to_pylist(), texts, strict=True)
        if d
    }
    pairs = {(row["a"], row["b"]): row["jaccard"] for row in found.to_pylist()}
    assert all(value == twins.jaccard(sets[a], sets[b]) >= threshold and a < b for (a, b), value in pairs.items())
    alike = {p for p in itertools.combinations(sorted(sets), 2) if twins.jaccard(sets[p[0]], sets[p[1]]) >= threshold}
    assert set(pairs) <= alike
    if threshold == 0.75:
        missed = sum((1 - twins.jaccard(sets[a], sets[b]) ** ROWS) ** BANDS for a, b in alike)
        assert len(alike) > 60 and len(alike - set(pairs)) < missed + 4 * math.sqrt(missed) + 1


def test_texts_that_changed_since_they_were_sketched_are_refused():
    texts = ["the mill wheel turns with water from that river"] * 2
    texts[1] += " again"
    bound = stage.load("near", {"threshold": 0.5, "bands": 14, "rows": 1})
    table = pa.table(bound(pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])))
    table = table.append_column("part", pa.array([0, 0], pa.int32())).append_column("row", pa.array([0, 1], pa.int32()))
    with pytest.raises(RuntimeError, match="not those that were sketched"):
        near.compare(iter([table]), lambda part, rows: pa.array(["something else"] * len(rows)), **bound.params)


# What datasketch makes of it


def test_bands_for_a_threshold_are_those_of_datasketch():
    from datasketch.lsh import _optimal_param

    for threshold in (0.3, 0.5, 0.75, 0.8, 0.9, 0.99):
        for count in (1, 16, 112, 128):
            assert bands.optimal(threshold, count) == _optimal_param(threshold, count, 0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.75, 14, 8)),
        ({"threshold": 0.8}, (0.8, 9, 12)),
        ({"threshold": 0.8, "bands": 14, "rows": 8}, (0.8, 14, 8)),
        ({"bands": 20, "rows": 5}, (0.75, 20, 5)),
        ({"threshold": 0.7, "permutations": 128}, (0.7, 14, 9)),
    ],
)
def test_what_parameters_mean(given, expected):
    bound = stage.load("near", given)
    wanted = {name: bound.params[name] for name in ("threshold", "bands", "rows", "permutations")}
    assert near.Scheme.of(**wanted) == expected
    signature = bound(pa.record_batch([pa.array(["a mill by a river"])], names=["text"]))["signature"]
    assert signature.type.byte_width == 4 * expected[1] * expected[2]


@pytest.mark.parametrize(
    "given", [{"bands": 14}, {"rows": 8}, {"threshold": 1.5}, {"permutations": 0}, {"permutations": 5000}]
)
def test_parameters_that_cannot_be(given):
    with pytest.raises(stage.ConfigError, match="near"):
        stage.load("near", given)


def test_stored_signatures_open_in_datasketch():
    """The same estimates, and an index of datasketch's with our bands finds the candidates that ours finds."""
    from datasketch import MinHashLSH

    draw = np.random.default_rng(3)
    words = [f"w{n}" for n in range(400)]
    texts = [""]
    for _ in range(60):
        base = [words[n] for n in draw.integers(0, 400, 120)]
        texts.append(" ".join(base))
        for place in draw.integers(0, 120, draw.integers(0, 6)):
            base[place] = "changed"
        texts.append(" ".join(base))
    sketched = pa.table(stage.load("near", {})(pa.record_batch([pa.array(texts)], names=["text"])))
    opened = list(near.minhashes(sketched))
    assert opened[0] is None and None not in opened[1:]
    values = np.array([np.frombuffer(raw.as_py(), "<u4") for raw in sketched["signature"][1:]])
    for i, j in itertools.combinations(range(40), 2):
        assert opened[i + 1].jaccard(opened[j + 1]) == (values[i] == values[j]).mean()
    index = MinHashLSH(num_perm=COUNT, params=(BANDS, ROWS))
    for number, sketch in enumerate(opened[1:]):
        index.insert(number, sketch)
    theirs = {(i, j) for i, sketch in enumerate(opened[1:]) for j in index.query(sketch) if i < j}
    hashes = bands.band_hashes(values, BANDS)
    ours = {
        (int(a), int(b))
        for band in range(BANDS)
        for a, b in bands.candidates(
            np.ascontiguousarray(hashes[:, band]), np.arange(len(values)), hashes[:, 0].copy(), 512, 8
        )[0].T
    }
    assert len(ours) > 20 and ours == theirs
