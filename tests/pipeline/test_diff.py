"""The diff of two versions against a brute-force twin over Python dictionaries, and its laws."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import addresses, books, manifest
from pipeline.diff import Diff, diff
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet
from tests import builds

KEPT = {"verdict": "kept", "stage": None, "reason": None}
EDA = {"use": "eda", "children": 2}


def stages(words: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    normalise, _, *relating = builds.STAGES
    return [normalise, {"use": "gopher", "drop": {"word_count": {"below": words}}}, *relating, *more]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Store, dict[str, str]]:
    """One store with four versions: as it is, another threshold, another corpus, and one with children."""
    root = tmp_path_factory.mktemp("diff")
    corpus, store = builds.write_corpus(root / "corpus", documents=150), root / "store"
    made = {"plain": builds.build(builds.make_recipe(corpus, stages(20)), store)}
    made["loose"] = builds.build(builds.make_recipe(corpus, stages(10), name="loose"), store)
    made["children"] = builds.build(builds.make_recipe(corpus, stages(20, EDA)), store)
    shutil.copytree(corpus, root / "edited")
    (root / "edited" / "f.jsonl").unlink()
    lines = (root / "edited" / "a.jsonl").read_text("utf-8").splitlines()
    lines[0] = json.dumps({"text": json.loads(lines[0])["text"] + " and one word more", "label": "1", "url": "u"})
    lines[3] = "{broken now"
    lines += [
        json.dumps({"text": f"new words {n} " + " ".join(builds.WORDS[n:]), "label": "0", "url": "u"}) for n in range(4)
    ]
    (root / "edited" / "a.jsonl").write_text("\n".join(lines), "utf-8")
    tokens = {"vocab_size": 300, "sample": "1MB"}
    made["edited"] = builds.build(builds.make_recipe(root / "edited", stages(20), tokens=tokens), store)
    return Store(store), {name: version.address for name, version in made.items()}


PAIRS = [
    ("plain", "loose"),
    ("loose", "plain"),
    ("plain", "edited"),
    ("edited", "loose"),
    ("plain", "children"),
    ("children", "edited"),
]


def compared(world, a: str, b: str, examples: int = 3) -> tuple[Diff, Version, Version]:
    store, made = world
    left, right = (addresses.find(store, made[name]) for name in (a, b))
    return diff(store, left, right, examples), left[0], right[0]


def fates(store: Store, version: Version) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Every document that a version met, from its files, row by row: index rows, and fates."""
    keys = version.build_keys()
    index = {row["doc_id"]: row for row in version.index().to_pylist()}
    met = dict.fromkeys(index, KEPT)
    for row in books.ledger(store, keys).to_pylist():
        assert row["doc_id"] not in met
        met[row["doc_id"]] = {name: row[name] for name in KEPT}
    texts: dict[str, bytes] = {}
    for key in keys.segments[-1].parts:
        for row in read_parquet(store.file(key, "signals.parquet"), ["doc_id", "text_digest"]).to_pylist():
            texts[row["doc_id"]] = row["text_digest"]
    return {doc_id: {**row, "text": texts[doc_id]} for doc_id, row in index.items()}, met


def languages(store: Store, version: Version) -> dict[str, str]:
    found: dict[str, str] = {}
    for segment in version.build_keys().segments:
        for key in segment.parts:
            table = read_parquet(store.file(key, "documents.parquet"), ["doc_id", "language"])
            found |= {row["doc_id"]: row["language"] for row in table.to_pylist()}
    return found


def twin(store: Store, a: Version, b: Version) -> Counter[tuple[Any, ...]]:
    """(kind, fate in A, fate in B, source, language, more tokens, more bytes) of every document that differs."""
    (index_a, met_a), (index_b, met_b) = (fates(store, version) for version in (a, b))
    came = [set(books.entered(store, version.build_keys())["doc_id"].to_pylist()) for version in (a, b)]
    spoken = [languages(store, version) for version in (a, b)]
    found: Counter[tuple[Any, ...]] = Counter()
    for doc_id in met_a.keys() | met_b.keys():
        absent = "not in the input there" if doc_id in came[0] | came[1] else "not made there"
        nothing = {"verdict": "absent", "stage": None, "reason": absent}
        fate = [met.get(doc_id, nothing) for met in (met_a, met_b)]
        rows = [index.get(doc_id) for index in (index_a, index_b)]
        match [row is not None for row in rows]:
            case [True, True]:
                kind = "changed" if rows[0]["text"] != rows[1]["text"] else None
            case [False, True]:
                kind = "added"
            case [True, False]:
                kind = "removed"
            case _:
                kind = "moved" if fate[0] != fate[1] else None
        if kind is None:
            continue
        kept = rows[1] or rows[0]
        language = kept["language"] if kept else spoken[doc_id in met_b].get(doc_id)
        more = [(rows[1] or {}).get(name, 0) - (rows[0] or {}).get(name, 0) for name in ("tokens", "text_bytes")]
        key = (kind, *fate[0].values(), *fate[1].values(), doc_id.split(":")[0], language or "unknown")
        found[(*key, "documents")] += 1
        found[(*key, "tokens")] += more[0]
        found[(*key, "text_bytes")] += more[1]
    return found


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_every_group_is_what_a_walk_over_dictionaries_finds(world, a, b):
    found, left, right = compared(world, a, b)
    said: Counter[tuple[Any, ...]] = Counter()
    for reason in found.reasons:
        for row in reason.groups:
            key = (reason.kind, *reason.before.values(), *reason.after.values(), row["source"], row["language"])
            for name in ("documents", "tokens", "text_bytes"):
                said[(*key, name)] += row[name]
        assert {n: sum(row[n] for row in reason.groups) for n in ("documents", "tokens", "text_bytes")} == {
            n: getattr(reason, n) for n in ("documents", "tokens", "text_bytes")
        }
    expected = twin(world[0], left, right)
    assert said == expected and expected.total()


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_counts_balance_by_ids_and_everyone_who_left_has_a_reason(world, a, b):
    found, left, right = compared(world, a, b)
    ids = [set(version.index(["doc_id"])["doc_id"].to_pylist()) for version in (left, right)]
    n = found.documents
    assert (n["a"], n["b"]) == tuple(map(len, ids))
    assert n["added"] == len(ids[1] - ids[0]) and n["removed"] == len(ids[0] - ids[1])
    assert n["a"] - n["removed"] + n["added"] == n["b"] and n["same"] + n["changed"] == len(ids[0] & ids[1])
    for name in ("tokens", "text_bytes"):
        sums = [sum(version.index([name])[name].to_pylist()) for version in (left, right)]
        got = getattr(found, name)
        assert [got["a"], got["b"]] == sums
        assert got["a"] - got["removed"] + got["added"] + got["same"] + got["changed"] == got["b"]
    for kind in ("added", "removed", "changed", "moved"):
        reasons = [reason for reason in found.reasons if reason.kind == kind]
        assert sum(reason.documents for reason in reasons) == n[kind]
        for reason in reasons:
            for fate in (reason.before, reason.after):
                assert fate == KEPT or fate["reason"]
            assert (reason.after == KEPT) == (kind in ("added", "changed"))
            assert (reason.before == KEPT) == (kind in ("removed", "changed"))


def test_a_threshold_is_named_with_the_documents_that_it_moves(world):
    found, _, _ = compared(world, "loose", "plain", examples=2)
    assert ("gopher.word_count.below", 10, 20) in [tuple(difference) for difference in found.recipe]
    assert not found.sources
    [reason] = [r for r in found.reasons if r.kind == "removed" and r.after["stage"] == "gopher"]
    assert reason.after == {"verdict": "dropped", "stage": "gopher", "reason": "word_count < 20"}
    assert len(reason.examples) == 2 < reason.documents and reason.tokens < 0
    for example in reason.examples:
        assert example["measured_b"] == "word_count=12" and example["measured_a"] is None
        assert example["excerpt_a"] == example["excerpt_b"] and len(example["excerpt_b"].split()) == 12
    backwards, _, _ = compared(world, "plain", "loose")
    assert backwards.documents["added"] == found.documents["removed"]
    assert backwards.tokens["added"] == found.tokens["removed"] > 0


def test_another_corpus_says_what_came_went_and_changed(world):
    found, _, _ = compared(world, "plain", "edited")
    [source] = found.sources
    assert source["files"] == {"added": [], "removed": ["f.jsonl"], "changed": ["a.jsonl"]}
    assert ("tokenizer.vocab_size", 400, 300) in [tuple(difference) for difference in found.tokenizer]
    assert ("tokens.vocab_size", 400, 300) in [tuple(difference) for difference in found.recipe]
    [changed] = [reason for reason in found.reasons if reason.kind == "changed"]
    assert changed.documents == 1 and changed.text_bytes == len(" and one word more")
    assert changed.examples[0]["excerpt_b"].endswith("and one word more")
    assert not changed.examples[0]["excerpt_a"].endswith("more")
    reasons = {(r.kind, r.before["reason"], r.after["reason"]) for r in found.reasons}
    assert ("added", "not in the input there", None) in reasons
    assert ("removed", None, "not in the input there") in reasons
    assert ("removed", None, "malformed_json") in reasons


def test_children_that_one_version_makes_are_not_made_in_the_other(world):
    found, _, _ = compared(world, "plain", "children")
    [reason] = [r for r in found.reasons if r.kind == "added"]
    assert reason.before == {"verdict": "absent", "stage": None, "reason": "not made there"} and reason.documents > 9
    assert "stage eda" in [difference.what for difference in found.recipe]


def test_a_version_beside_itself_has_no_difference(world):
    found, _, _ = compared(world, "plain", "plain")
    assert not found.reasons and not found.recipe and not found.sources and not found.tokenizer and not found.splits
    assert found.documents["same"] == found.documents["a"] == found.documents["b"]


def test_books_that_lost_a_row_are_refused(world, tmp_path):
    """A ledger whose marker vouches for it, but a document of the input is neither kept nor in it."""
    store, made = world
    shutil.copytree(store.root, tmp_path / "store")
    copy = Store(tmp_path / "store")
    version, keys = addresses.find(copy, made["plain"])
    key = keys.segments[0].judge
    result, table = copy.result(key), read_parquet(copy.file(key, "ledger.parquet"))
    shutil.rmtree(copy.folder(key))
    lost = next(n for n, reason in enumerate(table["reason"].to_pylist()) if reason == "word_count < 20")
    with copy.writing(key) as out:
        out.table("ledger.parquet", table.take([n for n in range(len(table)) if n != lost]))
        out.result = result
    with pytest.raises(ConfigError, match="do not account for 1 documents"):
        diff(copy, addresses.find(copy, made["loose"]), (version, keys))


def test_an_address_that_cannot_be_asked_is_refused_in_a_sentence(world, tmp_path):
    store, made = world
    with pytest.raises(ConfigError, match="no version of 'tset'"):
        addresses.find(store, "tset@latest")
    other = Store(tmp_path / "other")
    with pytest.raises(ConfigError, match="does not lie in the store"):
        addresses.find(other, str(manifest.find(store, made["plain"]).folder))
    shutil.copytree(store.root, other.root)
    version = manifest.find(other, made["plain"])
    key = version.build_keys().ledgers[0]
    shutil.rmtree(other.folder(key))
    with pytest.raises(ConfigError, match=rf"are not in .* missing, first {key}"):
        addresses.find(other, made["plain"])
    (version.folder / "build.json").unlink()
    with pytest.raises(ConfigError, match=r"the books of .* are not in"):
        addresses.find(other, made["plain"])
    table = json.loads((version.folder / "manifest.json").read_text("utf-8"))
    table["recipe"]["seed"] += 1
    (version.folder / "manifest.json").write_text(json.dumps(table), "utf-8")
    with pytest.raises(ConfigError, match="was edited"):
        addresses.find(other, made["plain"])
    assert not list(Path(other.root).glob("rebuild*"))
