"""Mixtures: what was asked is met by whole documents, the manifest says so, and every law holds with documents that
stand again."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import contamination, mixing, whatif
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.extending import checking
from pipeline.manifest import Version
from pipeline.mixing import Mix, Quality, share_out
from pipeline.papers import facts
from pipeline.recipe import Recipe
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet
from tests import builds
from tests.contract.test_manifest import SCHEMA
from tests.given import ITEMS
from tests.pipeline.test_forgetting import forget
from training.manifest import open_version

ASKED = {"web": 0.5, "wiki": 0.3, "books": 0.15, "code": 0.05}


def documents(counts: dict[tuple[str, str], int], seed: int = 1, longest: int = 300) -> pa.Table:
    draw = random.Random(seed)
    rows = [
        {
            "doc_id": f"{source}:a:{language}{n}",
            "source": source,
            "language": language,
            "tokens": draw.randint(1, longest),
        }
        for (source, language), count in counts.items()
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows).sort_by("doc_id").combine_chunks()


def shares(table: pa.Table, copies: np.ndarray, by: str) -> dict[str, float]:
    tokens = table["tokens"].to_numpy() * copies
    names = np.array(table[by].to_pylist())
    return {name: tokens[names == name].sum() / tokens.sum() for name in sorted(set(names.tolist()))}


@given(
    weights=st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any),
    counts=st.lists(st.integers(200, 900), min_size=4, max_size=4),
    most=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_shares_are_met_whatever_there_is(weights, counts, most, seed):
    asked = {name: weight / sum(weights) for name, weight in zip(ASKED, weights, strict=True)}
    table = documents({(name, "en"): count for name, count in zip(ASKED, counts, strict=True)}, seed)
    copies, said = share_out(table, np.zeros(table.num_rows, np.int64), Mix(shares=asked, most_copies=most), seed)
    got = shares(table, copies, "source")
    assert all(abs(got[name] - share) < 0.0015 for name, share in asked.items())
    assert copies.max() <= most and abs((table["tokens"].to_numpy() * copies).sum() - said["tokens"]) < 1300
    # Somebody is scarce, or nobody is repeated who need not be.
    names = np.array(table["source"].to_pylist())
    means = {name: copies[names == name].mean() for name, share in asked.items() if share}
    assert max(means.values()) > most - 0.05 or min(means.values()) < 1.05


def test_who_stands_depends_on_the_id_alone():
    table = documents({("web", "en"): 500, ("wiki", "en"): 100})
    mix, none = Mix(shares={"web": 0.5, "wiki": 0.5}), np.zeros(table.num_rows, np.int64)
    first, _ = share_out(table, none, mix, 3)
    order = np.random.default_rng(1).permutation(table.num_rows)
    again, _ = share_out(table.take(pa.array(order)).combine_chunks(), none, mix, 3)
    assert (again == first[order]).all()
    other, _ = share_out(table, none, mix, 4)
    assert (other != first).any()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.3, 100.0])
def test_languages_get_their_part_to_the_power_of_one_over_t(temperature):
    counts = {("web", "en"): 4000, ("web", "zh"): 900, ("wiki", "zh"): 300, ("wiki", "sw"): 150}
    table = documents(counts, longest=60)
    mix = Mix(temperature=temperature, most_copies=60)
    copies, _ = share_out(table, np.zeros(table.num_rows, np.int64), mix, 0)
    had = shares(table, np.ones(table.num_rows, np.int64), "language")
    heated = {name: share ** (1 / temperature) for name, share in had.items()}
    got = shares(table, copies, "language")
    assert all(abs(got[name] - heated[name] / sum(heated.values())) < 0.002 for name in had)


def test_temperature_within_the_shares_of_sources():
    table = documents({("web", "en"): 3000, ("web", "zh"): 300, ("wiki", "en"): 900, ("wiki", "zh"): 900}, longest=60)
    mix = Mix(shares={"web": 0.6, "wiki": 0.4}, temperature=2.0, most_copies=9)
    copies, _ = share_out(table, np.zeros(table.num_rows, np.int64), mix, 0)
    got = shares(table, copies, "source")
    assert abs(got["web"] - 0.6) < 0.002
    web = table.filter(pc.equal(table["source"], "web"))
    mine = copies[np.array(table["source"].to_pylist()) == "web"]
    had = shares(web, np.ones(web.num_rows, np.int64), "language")
    root = {name: share**0.5 for name, share in had.items()}
    assert abs(shares(web, mine, "language")["zh"] - root["zh"] / sum(root.values())) < 0.004


def test_quality_says_how_often_a_bucket_stands():
    table = documents({("web", "en"): 3000}, longest=60)
    bucket = np.arange(table.num_rows) % 3
    quality = Quality(column="filter.score", edges=[0.2, 0.5], weights=[0.0, 1.0, 2.5])
    copies, _ = share_out(table, bucket, Mix(quality=quality), 0)
    tokens = table["tokens"].to_numpy()
    for number, weight in enumerate(quality.weights):
        mine = bucket == number
        assert abs((copies * tokens)[mine].sum() / tokens[mine].sum() - weight) < 0.01
        assert set(copies[mine].tolist()) <= {int(np.floor(weight)), int(np.ceil(weight))}
    # Where the best stand as often as they may, the next ones make it up.
    more, _ = share_out(table, bucket, Mix(quality=quality, tokens=int(tokens.sum() * 5 / 3), most_copies=3), 0)
    assert set(more[bucket == 2].tolist()) == {3} and set(more[bucket == 0].tolist()) == {0}
    assert abs((more * tokens).sum() / tokens.sum() - 5 / 3) < 0.01


def test_a_cap_holds_and_takes_no_more_than_it_must():
    table = documents({("web", "en"): 1000, ("wiki", "en"): 100}, longest=60)
    had = table["tokens"].to_numpy()
    web = np.array(table["source"].to_pylist()) == "web"
    copies, said = share_out(table, np.zeros(table.num_rows, np.int64), Mix(caps={"web": 5000}), 0)
    assert abs(int((copies * had)[web].sum()) - 5000) < 60 and (copies[~web] == 1).all()
    assert [group["source"] for group in said["asked"]] == ["web", "wiki"]


def write(folder: Path) -> Path:
    """Four sources of different sizes; some documents of one hold an evaluation item."""
    draw = random.Random(2)
    for name, count in {"web": 150, "wiki": 60, "books": 40, "code": 30}.items():
        rows = [
            {"text": " ".join(draw.choice(builds.WORDS) + str(draw.randrange(90)) for _ in range(draw.randint(8, 60)))}
            for _ in range(count)
        ]
        if name == "books":
            for row in rows[:3]:
                row["text"] += " The miller asks how many sacks of rye a cart with two wheels can carry up the hill"
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        card = builds.CARD.replace('name = "grain"', f'name = "{name}"').replace("*.jsonl", f"{name}.jsonl")
        (folder / f"{name}.toml").write_text(card, "utf-8")
    return folder


def recipe(folder: Path, stages: list[dict[str, Any]] | None = None, **mix: Any) -> Recipe:
    names = [f"{name}.toml" for name in ASKED]
    steps = [{"use": "normalise"}, {"use": "gopher"}, {"use": "exact", "drop": {"dup_rank": {"above": 0}}}]
    return builds.make_recipe(folder, [*steps, *(stages or [])], sources=names, mix=mix)


ITEM = [{"use": "decontaminate", "sets": [ITEMS], "remove": False}]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory) -> tuple[Version, Store]:
    store = tmp_path_factory.mktemp("store")
    return builds.build(recipe(corpus, ITEM, shares=ASKED, most_copies=2), store), Store(store)


def test_the_books_balance_with_documents_that_stand_again(built):
    version, store = built
    report = audit(version, store)
    assert report.problems == [] and report.counts["added"] > 20 and report.counts["dropped"] > 5
    jsonschema.validate(version.manifest, SCHEMA)
    assert open_version(version.folder).manifest.mix == version.manifest["mix"]
    [entry] = [entry for entry in version.manifest["accounting"] if entry["stage"] == "mix"]
    assert entry["reasons"] == {"beyond the mixture": entry["dropped"]} and entry["added"] == report.counts["added"]
    index = version.index().to_pylist()
    rows = {row["doc_id"]: row for row in index}
    assert len(rows) == len(index)
    for row in index:
        if "#mix" in row["doc_id"]:
            first = rows[row["parent_id"]]
            assert row["split"] == first["split"] == "train"
            assert {**row, "doc_id": "", "parent_id": None} == {**first, "doc_id": ""}


def test_the_manifest_says_what_was_asked_and_got(built):
    version, _ = built
    said = version.manifest["mix"]
    index = version.index(["source", "tokens", "split"]).filter(pc.equal(version.index(["split"])["split"], "train"))
    total = pc.sum(index["tokens"]).as_py()
    assert said["tokens"]["got"] == total == version.manifest["splits"]["train"]["tokens"]
    for group in said["groups"]:
        mine = index.filter(pc.equal(index["source"], group["source"]))
        assert group["got"]["tokens"] == pc.sum(mine["tokens"]).as_py() and group["got"]["documents"] == mine.num_rows
        assert group["asked"]["share"] == ASKED[group["source"]]
        assert abs(group["got"]["share"] - group["asked"]["share"]) < 0.005


def test_the_tokens_of_one_that_stands_again_are_the_same(built):
    version, _ = built
    index = version.index(["doc_id", "parent_id"]).to_pylist()
    of: dict[int, list[int]] = {}
    for shard in version.manifest["splits"]["train"]["shards"]:
        table = pa.ipc.open_file(pa.memory_map(str(version.folder / shard["file"]))).read_all().to_pylist()
        for row in table:
            ends = [*row["starts"][1:], row["used"]]
            for start, end, document in zip(row["starts"], ends, row["documents"], strict=True):
                of.setdefault(shard["first_document"] + document, []).extend(row["tokens"][start:end])
    place = {row["doc_id"]: n for n, row in enumerate(index)}
    again = [row for row in index if "#mix" in row["doc_id"]]
    # Pieces of what is longer than a row may be met in another order.
    assert again and all(sorted(of[place[r["doc_id"]]]) == sorted(of[place[r["parent_id"]]]) for r in again)


@pytest.mark.parametrize(
    "settings",
    [{"batch_rows": 7}, {"partition_bytes": 4_000, "memory": 1 << 14}, {"count": 2, "partition_bytes": 9_000}],
    ids=["batch", "partition-memory", "workers"],
)
def test_same_bits_however_the_work_is_cut(corpus, built, tmp_path, settings):
    assert (
        builds.build(recipe(corpus, ITEM, shares=ASKED, most_copies=2), tmp_path, **settings).manifest
        == built[0].manifest
    )


def test_why_says_that_one_is_beyond_the_mixture(built):
    version, store = built
    key = version.build_keys().mix
    table = read_parquet(store.file(key, mixing.FILE))
    gone = table.filter(pc.equal(table["copies"], 0))["doc_id"][0].as_py()
    found = queries.why(store, version, gone)
    assert (found.verdict, found.reason) == ("dropped", "beyond the mixture")
    again = next(mixing.born(store, key))
    found = queries.why(store, version, again)
    assert (found.verdict, found.parent_id) == ("kept", again.partition("#mix")[0])
    assert facts.of(version.manifest, version.index()).born.documents == 0


def test_who_holds_an_item_and_stands_again_is_listed_again(built):
    version, _ = built
    rows = read_parquet(version.folder / contamination.FILE).to_pylist()
    again = [row for row in rows if row["doc_id"] and "#mix" in row["doc_id"]]
    assert again and all(row["fate"] == "kept" and row["split"] == "train" for row in again)
    index = version.index(["doc_id", "parent_id"]).to_pylist()
    held = {row["doc_id"] for row in rows if row["fate"] == "kept"}
    assert {row["doc_id"] for row in index if row["parent_id"] in held} <= held


def test_it_can_be_forgotten_in(built, tmp_path):
    version, store = built
    shutil.copytree(store.root, tmp_path / "store")
    victim = next(row["parent_id"] for row in version.index().to_pylist() if "#mix" in row["doc_id"])
    new = forget(Store(tmp_path / "store"), "test", doc=(victim,), only=True)
    assert audit(new, Store(tmp_path / "store")).problems == []
    left, before = (
        set(new.index(["doc_id"])["doc_id"].to_pylist()),
        set(version.index(["doc_id"])["doc_id"].to_pylist()),
    )
    assert before - left == {doc_id for doc_id in before if doc_id.partition("#mix")[0] == victim}
    jsonschema.validate(new.manifest, SCHEMA)


def test_what_is_not_known_of_a_mixture_is_said(built, corpus):
    version, store = built
    with pytest.raises(ConfigError, match=r"was mixed, so who is kept hangs on"):
        whatif.ask(store, version, ["gopher.word_count.below=5"])
    with pytest.raises(ConfigError, match=r"cannot be extended: \[mix\] shares out"):
        checking.check(store, checking.Request("test", ("samples",)))


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({}, "says nothing to be met"),
        ({"shares": {**ASKED, "webb": 0.0}}, r"'webb' is no source of the recipe; did you mean 'web'"),
        ({"shares": {"web": 1.0}}, "'wiki' is missing; name every source"),
        ({"shares": {**ASKED, "web": 0.6}}, "add up to 1, not 1.1"),
        ({"caps": {"wicki": 5}}, "'wicki' is no source"),
        ({"temperature": 0.5}, "temperature"),
        ({"quality": {"column": "gopher.word_cout", "edges": [1.0], "weights": [1.0, 2.0]}}, "no stage measures"),
        (
            {"quality": {"column": "gopher.word_count", "edges": [1.0], "weights": [1.0, 2.0, 3.0]}},
            "one weight more than edges",
        ),
        ({"share": ASKED}, "unknown key 'share'; did you mean 'shares'"),
    ],
)
def test_what_cannot_be_mixed_is_said_at_load(corpus, mix, said):
    with pytest.raises(ConfigError, match=said):
        recipe(corpus, **mix)


def test_more_tokens_than_there_are_is_said_with_what_there_is():
    table = documents({("web", "en"): 100, ("wiki", "en"): 10})
    with pytest.raises(
        ConfigError, match=r"wiki can give .* for its share of 0.5, each document 4 times at most: ask for"
    ):
        share_out(table, np.zeros(110, np.int64), Mix(shares={"web": 0.5, "wiki": 0.5}, tokens=10**6), 0)


def test_quality_is_read_from_what_a_stage_measured(corpus, tmp_path):
    quality = {"column": "gopher.word_count", "edges": [20.0, 40.0], "weights": [0.0, 1.0, 2.0]}
    version = builds.build(recipe(corpus, quality=quality), tmp_path)
    assert audit(version, Store(tmp_path)).problems == []
    key = version.build_keys()
    words = pa.concat_tables(
        read_parquet(Store(tmp_path).file(part, "signals.parquet"), ["doc_id", "gopher.word_count"])
        for part in key.segments[0].parts
    )
    count = dict(zip(*(words[name].to_pylist() for name in words.column_names), strict=True))
    for row in read_parquet(Store(tmp_path).file(key.mix, mixing.FILE)).to_pylist():
        assert row["copies"] == np.searchsorted([20.0, 40.0], count[row["doc_id"]], side="right")


def test_four_real_sources_are_met_within_half_a_percent(shared_data, tmp_path):
    """The four kinds of documentation of the corpus, asked at .5, .3, .15 and .05 of the tokens."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "source"])
    names = sorted(table["source"].unique().to_pylist(), key=str)
    assert len(names) >= 4
    asked = dict(zip(names[:4], ASKED.values(), strict=True))
    for name in asked:
        mine = table.filter(pc.equal(table["source"], name))
        pq.write_table(mine.slice(0, 500), tmp_path / f"{name}.parquet")
        card = builds.CARD.replace('name = "grain"', f'name = "{name}"').replace("*.jsonl", f"{name}.parquet")
        (tmp_path / f"{name}.toml").write_text(card, "utf-8")
    made = builds.make_recipe(tmp_path, [], sources=[f"{name}.toml" for name in asked], mix={"shares": asked})
    version = builds.build(made, tmp_path / "store")
    said = {group["source"]: group for group in version.manifest["mix"]["groups"]}
    for name, share in asked.items():
        assert abs(said[name]["got"]["share"] - share) < 0.005
        print(name, said[name])
    assert audit(version, Store(tmp_path / "store")).problems == []
