"""Real data: 27,126 pages of documentation accounted for one by one, and natural near-duplicates.

The installation guide is written once and built for each architecture: pages of two architectures with the same
language and file name are near-duplicates that nobody made for a test.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import books, stage
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.kernels import bands, minhash, shingles
from pipeline.mistakes import ConfigError
from pipeline.models import ModelError, language_model
from pipeline.stages import near
from pipeline.store import read_parquet
from tests.pipeline.real import Built, built

EDGES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


def normalised(texts: pa.Array) -> pa.Array:
    return stage.load("normalise", {})(pa.record_batch([texts.cast(pa.large_string())], names=["text"]))["text"]


@dataclass
class Pages:
    """Texts and their shingle sets, by position."""

    texts: pa.Array
    sets: list[np.ndarray]

    @classmethod
    def of(cls, texts: pa.Array) -> Pages:
        values, starts = shingles.shingle_sets(texts, 5)
        return cls(texts, [values[a:b] for a, b in itertools.pairwise(starts)])

    def jaccard(self, a: int, b: int) -> float:
        both = np.intersect1d(self.sets[a], self.sets[b], assume_unique=True).size
        return both / (self.sets[a].size + self.sets[b].size - both)


# Natural near-duplicates


@pytest.fixture(scope="module")
def guide(shared_data) -> tuple[Pages, np.ndarray]:
    """The guide's pages, and the pairs of one language and file name, int64 [2, n]."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["id", "text"])
    ids = table["id"].to_pylist()
    mine = [position for position, name in enumerate(ids) if name.startswith("installation-guide-")]
    pages: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, position in enumerate(mine):
        pages[tuple(ids[position].split("/")[2:])].append(place)
    pairs = np.array([pair for pair in pages.values() if len(pair) == 2]).T
    return Pages.of(normalised(table["text"].combine_chunks().take(pa.array(mine)))), pairs


def compared(pages: Pages, **params: Any) -> tuple[dict[tuple[bytes, bytes], float], list[bytes]]:
    """What `near` finds among some texts in three partitions, and the digest of each."""
    bound = stage.load("near", params)
    cuts = np.array_split(np.arange(len(pages.texts)), 3)
    sketches = []
    for number, rows in enumerate(cuts):
        batch = pa.record_batch([pages.texts.take(pa.array(rows))], names=["text"])
        place = {"part": pa.array([number] * len(rows), pa.int32()), "row": pa.array(range(len(rows)), pa.int32())}
        sketches.append(pa.table({**bound(batch), **place}))
    found = near.compare(
        iter(sketches), lambda part, rows: pages.texts.take(pa.array(cuts[part][rows])), **bound.params
    )
    digests = pa.concat_tables(sketches)["digest"].to_pylist()
    return {(row["a"], row["b"]): row["jaccard"] for row in found.to_pylist()}, digests


def test_pairs_of_the_guide_are_right_and_all_that_are_alike_enough_are_known(guide):
    """Every verified pair by brute force; and of the guide's own pairs as many as theory says."""
    pages, pairs = guide
    found, digests = compared(pages, threshold=0.3, bands=14, rows=8)
    where = {digest: number for number, digest in enumerate(digests)}
    for (a, b), similarity in found.items():
        assert similarity == pages.jaccard(where[a], where[b]) >= 0.3
    alike = np.array([pages.jaccard(a, b) for a, b in pairs.T])
    assert len(alike) > 1300 and (alike == 1).sum() > 500
    tried = [(j, tuple(sorted((digests[a], digests[b])))) for j, (a, b) in zip(alike, pairs.T, strict=True)]
    tried = [(j, pair) for j, pair in tried if pair[0] != pair[1]]
    for low, high in itertools.pairwise((0.6, 0.7, 0.8, 0.9, 1.0)):
        some = [(j, pair in found) for j, pair in tried if low <= j < high]
        chance = np.array([1 - (1 - j**8) ** 14 for j, _ in some])
        error = np.sqrt((chance * (1 - chance)).sum())
        assert len(some) > 50 and abs(sum(hit for _, hit in some) - chance.sum()) < 2 * error + 0.5


def test_recall_on_the_guide_follows_the_s_curve(guide):
    """Over 256 sets of permutations: recall in each bin of similarity within two standard errors of theory."""
    pages, (left, right) = guide
    alike = np.array([pages.jaccard(a, b) for a, b in zip(left, right, strict=True)])
    sets = shingles.shingle_sets(pages.texts, 5)
    hits = []
    for seed in range(1, 257):
        hashes = bands.band_hashes(minhash.signatures(sets, 112, seed), 14)
        hits.append((hashes[left] == hashes[right]).any(axis=1))
    for low, high in itertools.pairwise(EDGES):
        here = (alike >= low) & (alike < high)
        chance = 1 - (1 - alike[here] ** 8) ** 14
        error = np.sqrt((chance * (1 - chance)).sum() / len(hits))
        assert here.sum() > 10
        assert abs(np.array(hits)[:, here].sum(axis=1).mean() - chance.sum()) < 2 * error, (low, high)


# The whole corpus


@pytest.fixture(scope="module")
def debian(shared_data, tmp_path_factory) -> Built:
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))
    return built("debian-docs", shared_data, tmp_path_factory.mktemp("debian"))


@pytest.mark.slow
def test_every_page_is_accounted_for(debian):
    report = audit(debian.version, debian.store)
    assert report.problems == [] and len(report.checks) >= 8
    assert report.counts["ingested"] == 27_126 and report.counts["added"] == report.counts["quarantined"] == 0
    assert report.counts["kept"] + report.counts["dropped"] == 27_126 and report.counts["kept"] > 9000
    languages = debian.version.manifest["summaries"]["languages"]
    assert set(languages) == {"de", "en", "fr", "ja", "ru", "zh"} and all(
        n["documents"] > 300 for n in languages.values()
    )


@pytest.mark.slow
def test_why_says_what_was_measured_or_whose_copy_it_was(debian):
    """Up to twelve documents of each reason; similarities and values are counted again from the texts."""
    gone = books.ledger(debian.store, debian.version.build_keys()).to_pylist()
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in gone:
        reasons[row["stage"], row["reason"]].append(row["doc_id"])
    assert len(reasons) >= 8, sorted(reasons)
    texts = debian.texts()
    for (name, reason), ids in sorted(reasons.items()):
        for doc_id in ids[:: max(1, len(ids) // 12)][:12]:
            found = queries.why(debian.store, debian.version, doc_id)
            assert (found.verdict, found.stage, found.reason) == ("dropped", name, reason)
            said = dict(word.split("=", 1) for word in found.detail.split(" "))
            assert texts[doc_id].startswith(found.excerpt)
            check(name, reason, said, doc_id, texts)


def check(name: str, reason: str, said: dict[str, str], doc_id: str, texts: dict[str, str]) -> None:
    """What the ledger says of one document is so."""
    if name == "exact":
        assert texts[said["dup_of"]] == texts[doc_id] and said["dup_of"] < doc_id
    elif name == "near":
        assert said["dup_of"] < doc_id
        for other, similarity in (("dup_of", "jaccard"), ("via", "via_jaccard")):
            if similarity in said:
                pages = Pages.of(pa.array([texts[doc_id], texts[said[other]]], pa.large_string()))
                assert float(said[similarity]) == pytest.approx(pages.jaccard(0, 1), abs=1e-12)
                assert float(said[similarity]) >= 0.75
        assert "via_jaccard" in said
    else:
        batch = pa.record_batch([pa.array([texts[doc_id]], pa.large_string())], names=["text"])
        [(column, value)] = said.items()
        measured = stage.load(name, {"units": "script"} if name == "gopher" else {})(batch)[column][0].as_py()
        assert value == str(round(measured, 6) if isinstance(measured, float) else measured)
        bound = reason.split(" ")[-1]
        broken = {"<": lambda: measured < float(bound), ">": lambda: measured > float(bound)}
        assert broken.get(reason.split(" ")[1], lambda: measured not in reason.split(" ", 3)[3].split(", "))()


@pytest.mark.slow
def test_every_verified_pair_of_the_corpus_is_right(debian):
    """Each pair by brute force, and both ends in one cluster and one split."""
    keys = debian.version.build_keys()
    relate = keys.segments[0].relates[1]
    pairs = read_parquet(debian.store.file(relate["pairs"], "pairs.parquet")).to_pylist()
    relation = read_parquet(debian.store.file(relate["cluster"], "relation.parquet"))
    cluster = dict(zip(relation["doc_id"].to_pylist(), relation["near.cluster"].to_pylist(), strict=True))
    first: dict[bytes, str] = {}
    for part in keys.segments[0].parts:
        table = read_parquet(debian.store.file(part, "sketch-near.parquet"), ["doc_id", "digest"])
        for doc_id, digest in zip(table["doc_id"].to_pylist(), table["digest"].to_pylist(), strict=True):
            if digest is not None and (doc_id in cluster or digest not in first):
                first[digest] = doc_id
    texts = debian.texts()
    ids = sorted({first[row[end]] for row in pairs for end in "ab"})
    place = {doc_id: number for number, doc_id in enumerate(ids)}
    pages = Pages.of(pa.array([texts[doc_id] for doc_id in ids], pa.large_string()))
    assert len(pairs) > 5000
    for row in pairs:
        a, b = first[row["a"]], first[row["b"]]
        assert row["jaccard"] == pages.jaccard(place[a], place[b]) >= 0.75
        assert a not in cluster or b not in cluster or cluster[a] == cluster[b]


# How many rules at least remove a page of it.
PUBLISHED = {"gopher": 12, "c4": 4, "fineweb": 12}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_accounts_for_every_page(name, shared_data, tmp_path):
    """Documentation is no web page: most of it goes, by many rules, and each is a sentence of the books."""
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))
    made = built(name, shared_data, tmp_path)
    report = audit(made.version, made.store)
    assert report.problems == [] and report.counts["ingested"] == 27_126 and report.counts["quarantined"] == 0
    assert report.counts["kept"] > 1000
    reasons = {(row["stage"], row["reason"]) for row in books.ledger(made.store, made.version.build_keys()).to_pylist()}
    assert len(reasons) >= PUBLISHED[name], sorted(reasons)


@pytest.fixture
def filtered(shared_data, tmp_path):
    """The corpus beside a filter that was trained on encyclopedia articles against whole raw pages."""
    from pipeline.filters import artifact, texts
    from pipeline.filters.training import Settings
    from tests.bench.quality import raw, written

    (tmp_path / "corpus").symlink_to(shared_data / "corpus")
    sides = []
    for label, lines in (("hq", written(shared_data)["encyclopedia"]), ("cc", raw(shared_data))):
        path = tmp_path / f"{label}.jsonl"
        path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), "utf-8")
        sides.append(texts.read(label, [str(path)], 0))
    settings = Settings(dim=20, bucket=100_000, epoch=10)
    return tmp_path, artifact.make(tmp_path / "filters" / "dclm-lite", *sides, settings, hold_back=0.4)


@pytest.mark.slow
def test_dclm_lite_keeps_whom_its_filter_ranks_highest(filtered, tmp_path_factory):
    """Every page accounted for, and the classifier's verdict on each counted again by fastText itself."""
    import fasttext.FastText

    data, said = filtered
    made = built("dclm-lite", data, tmp_path_factory.mktemp("dclm"))
    report = audit(made.version, made.store)
    assert report.problems == [] and report.counts["ingested"] == 27_126 and report.counts["quarantined"] == 0
    ledger = books.ledger(made.store, made.version.build_keys()).to_pylist()
    gone = [row for row in ledger if row["stage"] == "classifier"]
    reasons = {(row["stage"], row["reason"]) for row in ledger}
    assert gone and report.counts["kept"] > 50 and len(reasons) >= 10, sorted(reasons)
    model = fasttext.FastText.load_model(str(data / "filters" / "dclm-lite" / said["model"]["file"]))
    bound = said["held_back"]["negative_scores"][90]
    kept = set(read_parquet(made.version.folder / "documents.parquet", ["doc_id"])["doc_id"].to_pylist())
    texts = made.texts(1)
    assert kept | {row["doc_id"] for row in gone} == set(texts)
    for doc_id in sorted(texts)[::5]:
        score = dict(zip(*model.predict(texts[doc_id].replace("\n", " "), 2), strict=True))["__label__hq"]
        assert doc_id in kept if score > bound + 1e-4 else doc_id not in kept or score > bound - 1e-4


def test_a_recipe_without_its_filter_says_which_command_makes_it(shared_data, tmp_path):
    (tmp_path / "corpus").symlink_to(shared_data / "corpus")
    with pytest.raises(ConfigError, match=r"filters/dclm-lite/model\.bin; train it: gristmill train-filter .* --out "):
        built("dclm-lite", tmp_path, tmp_path / "store")
