"""What `near` promises of a corpus as a whole: recall by similarity, precision of pairs and of clusters, and corpora
of every shape, from nobody alike to one cluster that holds nearly all."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels import bands, minhash, shingles
from pipeline.limits import UNBOUNDED, Workspace
from pipeline.stages import near
from tests.pipeline import twins

BANDS, ROWS = 14, 8
BINS = np.linspace(0, 1, 21)


class Found(NamedTuple):
    """What `near` makes of some texts: (a, b, similarity) by row, the cluster of each row, and the counts it states."""

    pairs: list[tuple[int, int, float]]
    clusters: list[int]
    said: dict[str, int]


def related(texts: Sequence[str] | pa.Array, parts: int = 1, workspace: Workspace = UNBOUNDED, **params) -> Found:
    """Sketch, compare and cluster texts in so many partitions; ids are in order of the rows."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    bound = stage.load("near", params)
    cuts = np.array_split(np.arange(len(column)), parts)
    sketches = []
    for number, rows in enumerate(cuts):
        ids = pa.array([f"{row:08}" for row in rows.tolist()], pa.string())
        place = {"part": pa.array(np.full(len(rows), number, np.int32)), "row": pa.array(range(len(rows)), pa.int32())}
        sketched = bound(pa.record_batch([column.take(pa.array(rows))], names=["text"]))
        sketches.append(pa.table({"doc_id": ids, **place, **sketched}))
    found = bound.compare(iter(sketches), lambda part, rows: column.take(pa.array(cuts[part][rows])), workspace)
    met = pa.concat_tables(sketches).select(["doc_id", "digest"]).combine_chunks()
    first: dict[bytes, int] = {}
    for row, digest in enumerate(met["digest"].to_pylist()):
        first.setdefault(digest, row)
    pairs = [(*sorted((first[row["a"]], first[row["b"]])), row["jaccard"]) for row in found.to_pylist()]
    clusters = list(map(int, bound.cluster(met, found)["cluster"].to_pylist()))
    return Found(sorted(pairs), clusters, {name.decode(): int(n) for name, n in found.schema.metadata.items()})


def plain(text: str) -> set[tuple[str, ...]]:
    """5-grams of a text of plain words between single spaces."""
    words = text.split(" ")
    return set(zip(*(words[k:] for k in range(5)), strict=False))


def chance(similarity: np.ndarray) -> np.ndarray:
    return 1 - (1 - similarity**ROWS) ** BANDS


# Recall


def test_recall_in_every_twentieth_of_similarity():
    """120,000 pairs of sets of 200: in each bin the share that has a band in common is within two standard errors of
    1 - (1 - J^8)^14, and the bins' squared scores add up as those of chance do."""
    draw = np.random.default_rng(1)
    size, count = 200, 6000
    scores = []
    for low, high in itertools.pairwise(BINS):
        union = draw.integers(0, 2**64, (count, size), np.uint64)
        shared = draw.integers(round(low * size), round(high * size), count)[:, None]
        middle = shared + draw.integers(0, size - shared + 1)
        column = np.arange(size)
        hashes = [shared_bands(union, mask) for mask in (column < middle, (column < shared) | (column >= middle))]
        found = (hashes[0] == hashes[1]).any(axis=1)
        expected = chance(shared[:, 0] / size)
        error = np.sqrt((expected * (1 - expected)).sum())
        assert abs(found.sum() - expected.sum()) <= 2 * error + 0.5, (low, high)
        if error > 3:
            scores.append((found.sum() - expected.sum()) / error)
    assert len(scores) > 10 and np.square(scores).sum() < len(scores) + 3 * (2 * len(scores)) ** 0.5


def shared_bands(union: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Band hashes of the sets that a mask takes from each row of `union`."""
    starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    return bands.band_hashes(minhash.signatures((union[mask], starts), BANDS * ROWS, 1), BANDS)


@pytest.fixture(scope="module")
def revised() -> tuple[list[str], np.ndarray]:
    """3,000 texts of 110 words, each followed by a revision of it; the exact similarity of each to its revision."""
    draw = np.random.default_rng(4)
    texts, alike = [], []
    for number in range(3000):
        words = [f"w{n}" for n in draw.integers(0, 100_000, 110)]
        texts.append(" ".join(words))
        for place in draw.choice(110, 1 + number % 16, replace=False):
            words[place] = "changed"
        texts.append(" ".join(words))
        alike.append(twins.jaccard(plain(texts[-2]), plain(texts[-1])))
    return texts, np.array(alike)


def test_every_pair_found_is_right_and_recall_is_that_of_theory(revised):
    """From texts to verified pairs: similarities are exact, nothing below the threshold is found (precision 1.0), and
    of each twentieth of similarity as many are found as theory says."""
    texts, alike = revised
    found = related(texts, parts=3, threshold=0.01, bands=BANDS, rows=ROWS)
    assert {(a, b) for a, b, _ in found.pairs} <= {(n, n + 1) for n in range(0, len(texts), 2)}
    assert all(similarity == alike[a // 2] for a, _, similarity in found.pairs)
    hit = np.zeros(len(alike), bool)
    hit[[a // 2 for a, _, _ in found.pairs]] = True
    for low, high in itertools.pairwise(BINS):
        here = (alike >= low) & (alike < high)
        expected = chance(alike[here])
        error = np.sqrt((expected * (1 - expected)).sum())
        assert abs(hit[here].sum() - expected.sum()) <= 2 * error + 0.5, (low, high)
    stricter = related(texts, threshold=0.75, bands=BANDS, rows=ROWS)
    assert stricter.pairs == [pair for pair in found.pairs if pair[2] >= 0.75] and len(stricter.pairs) > 400


# Precision


def precision(texts: pa.Array, clusters: Sequence[int], threshold: float) -> tuple[float, float, int]:
    """(share of the pairs within clusters that are at least so similar, the least similarity, number of pairs)."""
    together = defaultdict(list)
    for row, cluster in enumerate(clusters):
        together[cluster].append(row)
    pairs = np.array([pair for rows in together.values() for pair in itertools.combinations(rows, 2)], np.int64)
    sets = shingles.shingle_sets(texts, 5)
    alike = shingles.jaccards(sets, sets, *np.ascontiguousarray(pairs.T))
    return float((alike >= threshold).mean()), float(alike.min()), len(pairs)


def test_clusters_of_the_english_guide_against_gold(shared_data):
    """Two builds of one guide: whatever is together is one page, and as many as theory says are together."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["id", "text"])
    table = table.filter(pa.array([name.startswith("installation-guide-") for name in table["id"].to_pylist()]))
    table = table.filter(pa.array(["/en/" in name for name in table["id"].to_pylist()])).combine_chunks()
    texts = table["text"].chunk(0).cast(pa.large_string())
    pages = defaultdict(list)
    for row, name in enumerate(table["id"].to_pylist()):
        pages[name.rpartition("/")[2]].append(row)
    gold = [tuple(rows) for rows in pages.values() if len(rows) == 2]
    assert len(gold) == 82
    sets = shingles.shingle_sets(texts, 5)
    alike = shingles.jaccards(sets, sets, *(np.array(side) for side in zip(*gold, strict=True)))
    found = related(texts, parts=2)
    joined = {
        pair
        for pair in itertools.combinations(range(len(texts)), 2)
        if found.clusters[pair[0]] == found.clusters[pair[1]]
    }
    expected = {pair: similarity for pair, similarity in zip(gold, alike, strict=True) if similarity >= near.THRESHOLD}
    missed = 1 - chance(np.array(list(expected.values())))
    assert len(expected) > 60 and len(set(expected) - joined) < missed.sum() + 2 * np.sqrt(missed.sum())
    # Pages that moved: one title, another number and so another file name.
    for pair in joined - set(expected):
        titles = {texts[row].as_py().partition("\n")[0].partition(" ")[2] for row in pair}
        assert pair not in gold and len(titles) == 1, titles
    assert precision(texts, found.clusters, near.THRESHOLD)[0] == 1.0


@pytest.mark.slow
def test_precision_of_clusters_on_every_page(shared_data):
    """27,126 pages in forty languages: what the documentation of `near` states."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"]).combine_chunks()
    texts = table["text"].chunk(0).cast(pa.large_string())
    share, least, pairs = precision(texts, related(texts, parts=4).clusters, near.THRESHOLD)
    assert round(share, 2) == 0.95 and least > 0.5 and pairs > 20_000


# Corpora of every shape


WORDS = [f"word{number}" for number in range(1000)]


def prose(draw: np.random.Generator, words: int = 40) -> str:
    return " ".join(WORDS[n] for n in draw.integers(0, len(WORDS), words))


def test_nobody_is_alike():
    draw = np.random.default_rng(1)
    found = related([prose(draw) for _ in range(2000)], parts=3)
    assert found.pairs == [] and found.clusters == list(range(2000))


def test_all_are_equal():
    """However often a set stands in the corpus it is compared once, that is never."""
    texts = pa.array(["The mill wheel turns with water from that river."] * 100_000, pa.large_string())
    found = related(texts, parts=3)
    assert found == ([], [0] * 100_000, {"candidates": 0, "verified": 0, "large_buckets": 0})


@given(lengths=twins.long_lists(st.integers(0, 4), 30), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_texts_shorter_than_a_shingle(lengths, seed):
    """Fewer words than a shingle has are one shingle: equal texts are one cluster, those without a word stand alone."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(WORDS[n] for n in draw.integers(0, 2, length)) for length in lengths]
    found = related(texts, parts=2)
    assert found.pairs == []
    assert found.clusters == [texts.index(text) if text else row for row, text in enumerate(texts)]


@pytest.mark.parametrize("memory", [1 << 62, 1 << 20])
def test_one_cluster_holds_nearly_all_in_bounded_time(memory, tmp_path):
    """5,000 different revisions of one page among 500 others: no more than BANDS * NEIGHBOURS pairs are tried for each
    of them where all pairs would be 12 million, and still they are one cluster."""
    draw = np.random.default_rng(2)
    page = prose(draw, 60)
    texts = [f"{page} {number}" for number in range(5_000)] + [prose(draw) for _ in range(500)]
    began = time.process_time()
    found = related(texts, parts=4, workspace=Workspace(tmp_path / "spill", memory))
    assert time.process_time() - began < 60
    assert found.clusters == [0] * 5_000 + list(range(5_000, 5_500))
    assert 5_000 < found.said["candidates"] <= 5_000 * BANDS * near.NEIGHBOURS and found.said["large_buckets"] > 0
    assert all(similarity >= 0.75 for _, _, similarity in found.pairs)


def test_a_chain_of_revisions_is_one_cluster():
    """Each is like the next and unlike those far off: the cluster says so by `via`, and precision counts it."""
    draw = np.random.default_rng(3)
    words = prose(draw, 200).split(" ")
    texts = []
    for place in range(0, 200, 3):
        words[place] = "revised"
        texts.append(" ".join(words))
    found = related(texts)
    assert set(found.clusters) == {0}
    share, least, _ = precision(pa.array(texts, pa.large_string()), found.clusters, near.THRESHOLD)
    assert share < 0.5 and least < 0.2


# Without verification


def test_unverified_are_the_candidates_that_verification_would_have_tried(revised):
    """The same clusters as joining all candidates by hand; nothing is read, and no similarity is claimed."""
    texts, alike = revised
    tried = related(texts, parts=3, threshold=1e-9, bands=BANDS, rows=ROWS)
    column = pa.array(texts, pa.large_string())
    loose = related(column, parts=2, verify=False, threshold=1e-9, bands=BANDS, rows=ROWS)
    assert [pair[:2] for pair in loose.pairs] == [pair[:2] for pair in tried.pairs]
    assert {pair[2] for pair in loose.pairs} == {None} and loose.clusters == tried.clusters
    assert loose.said == {**tried.said, "verified": 0}
    sizes = [len(plain(text)) for text in texts]
    close = related(column, verify=False)
    assert [pair[:2] for pair in close.pairs] == [
        (a, b) for a, b, _ in tried.pairs if min(sizes[a], sizes[b]) >= near.THRESHOLD * max(sizes[a], sizes[b])
    ]
    assert 0.5 < np.mean([alike[a // 2] >= near.THRESHOLD for a, _, _ in close.pairs]) < 1


# Memory and partitions


@given(
    texts=twins.long_lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12)).map(
            lambda pair: " ".join(WORDS[100 * pair[0] :][:40][: 40 - pair[1]])
        ),
        24,
    ),
    parts=st.integers(1, 4),
    memory=st.sampled_from([1, 3000, 1 << 30]),
)
@settings(max_examples=25)
def test_pairs_and_clusters_are_those_of_brute_force(texts, parts, memory, tmp_path_factory):
    """With bands of one row nearly all who share a shingle are candidates: what is alike enough is found, all of it."""
    workspace = Workspace(tmp_path_factory.mktemp("spill"), memory)
    found = related(texts, parts, workspace, threshold=0.6, bands=16, rows=1)
    sets = [plain(text) for text in texts]
    alike = {
        (texts.index(a), texts.index(b)): twins.jaccard(plain(a), plain(b))
        for a, b in itertools.combinations(dict.fromkeys(texts), 2)
    }
    assert {(a, b): similarity for a, b, similarity in found.pairs} == {p: s for p, s in alike.items() if s >= 0.6}
    edges = [(a, b) for a, b in itertools.combinations(range(len(texts)), 2) if twins.jaccard(sets[a], sets[b]) >= 0.6]
    assert found.clusters == twins.components(len(texts), edges)
