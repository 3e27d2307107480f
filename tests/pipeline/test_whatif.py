"""What if, in numbers: counts, groups, moves and margins against a build and a brute force; and what it refuses."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import changes, relating, remaking, whatif
from pipeline import recipe as recipes
from pipeline.changes import parse
from pipeline.manifest import Version
from pipeline.margins import BINS, histogram
from pipeline.rejudge import Unmeasured
from pipeline.rules import Rule
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet
from tests.builds import CARD, STAGES, build, make_recipe, write_corpus

NEAR = {"use": "near", "drop": {"dup_rank": {"above": 0}}}
TWO = [
    {"use": "normalise"},
    {"use": "gopher", "drop": {"word_count": {"below": 20}}},
    {"use": "exact", "drop": {"dup_rank": {"above": 0}}},
    {"use": "repetition", "drop": {"duplicate_lines": {"above": 0.5}}},
    NEAR,
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), 200)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def version(corpus, store) -> Version:
    return build(make_recipe(corpus), store.root, partition_bytes=30_000)


@pytest.fixture(scope="module")
def two(corpus, store) -> Version:
    return build(make_recipe(corpus, TWO, name="two"), store.root)


def loosened(stages):
    """The stages with the bound of `gopher.word_count` at ten words."""
    return [{**s, "drop": {"word_count": {"below": 10}}} if s["use"] == "gopher" else s for s in stages]


def test_counts_groups_and_moves_are_those_of_the_build(corpus, store, version):
    answer = whatif.ask(store, version, ["gopher.word_count.below=10"])
    again = build(make_recipe(corpus, loosened(STAGES)), store.root, partition_bytes=30_000)
    old, new = (v.index() for v in (version, again))
    was, now = set(old["doc_id"].to_pylist()), set(new["doc_id"].to_pylist())
    assert (answer.before.documents, answer.after.documents) == (len(was), len(now)) and len(now) > len(was)
    assert answer.before.text_bytes == sum(old["text_bytes"].to_pylist())
    assert answer.after.text_bytes == sum(new["text_bytes"].to_pylist())
    assert answer.before.tokens == sum(old["tokens"].to_pylist()) == answer.after.tokens
    assert answer.after.tokens_unknown == len(now - was) and answer.before.tokens_unknown == 0
    moves = answer.moves.to_pylist()
    assert {row["doc_id"] for row in moves if row["change"] == whatif.ENTERS} == now - was
    assert {row["doc_id"] for row in moves if row["change"] == whatif.LEAVES} == was - now == set()
    assert all(row["domain"] == "example.org" and row["source"] == "grain" for row in moves)
    for name in ("source", "language", "domain"):
        groups = answer.groups[name]
        assert sum(g.after.documents for g in groups) == len(now)
        assert sum(g.before.text_bytes for g in groups) == answer.before.text_bytes
    said = Counter({(r.stage, r.reason): r.after for r in answer.reasons if r.after})
    said = Counter({(stage, reason.rpartition(" -> ")[2]): count for (stage, reason), count in said.items()})
    entries = again.manifest["accounting"]
    assert said == Counter({(e["stage"], reason): n for e in entries for reason, n in e["reasons"].items()})


def test_a_changed_bound_is_the_same_reason_and_no_move_of_who_leaves_by_it_anyway(store, version):
    answer = whatif.ask(store, version, ["gopher.word_count.below=21"])
    assert answer.moved() == {whatif.ENTERS: 0, whatif.LEAVES: 0, whatif.OTHERWISE: 0} and answer.moves.num_rows == 0
    [reason] = [r for r in answer.reasons if r.stage == "gopher"]
    assert reason.reason == "word_count < 20 -> word_count < 21" and reason.before == reason.after > 0


def test_the_documents_next_to_a_bound_are_the_nearest(corpus, store, version):
    answer = whatif.ask(store, version, ["gopher.mean_word_length.above=4.9"], most=4)
    [margin] = answer.margins
    keys = version.build_keys().segments[0].parts
    signals = pa.concat_tables(read_parquet(store.file(key, "signals.parquet")) for key in keys)
    known = dict(zip(signals["doc_id"].to_pylist(), signals["gopher.mean_word_length"].to_pylist(), strict=True))
    short = set(signals.filter(pa.compute.less(signals["gopher.word_count"], 20))["doc_id"].to_pylist())
    breaking = sorted((value, i) for i, value in known.items() if value > 4.9 and i not in short)
    assert [(e.value, e.doc_id) for e in margin.breaking] == breaking[:4]
    assert all(e.value <= 4.9 and e.after == "kept" for e in margin.passing) and len(margin.passing) == 4
    assert all(e.after == "gopher: mean_word_length > 4.9" for e in margin.breaking)
    assert margin.measured == sum(margin.counts) == len(known) and margin.old == {} and margin.new == {"above": 4.9}
    texts = pa.concat_tables(read_parquet(store.file(key, "documents.parquet"), ["doc_id", "text"]) for key in keys)
    held = dict(zip(texts["doc_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    assert all(held[e.doc_id].startswith(e.excerpt[:50]) for e in (*margin.passing, *margin.breaking))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("scale", [0, 1, 1e6])
def test_a_histogram_counts_every_value_once_and_holds_its_bounds(whole, scale):
    values = [int(i * scale) for i in range(50)] + [int(1e5 * scale)] if whole else [i * scale / 7 for i in range(60)]
    edges, counts = histogram(pa.array(values).to_numpy(), [-3, 12, 4000], whole)
    assert sum(counts) == len(values) and len(edges) == len(counts) + 1 <= BINS + 1
    assert edges == sorted(set(edges)) and edges[0] <= -3 and edges[-1] >= 4000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gopher.word_count.below", "cannot read the change"),
        ("word_count.below=3", "cannot read the change"),
        ("gopher.word_count.under=3", "write STAGE.COLUMN.below=30"),
        ("gophr.word_count.below=3", "no stage 'gophr'; did you mean 'gopher'"),
        ("gopher.word_cout.below=3", "did you mean 'word_count'"),
        ("gopher.word_count.below=many", "'many' is no number"),
        ("gopher.word_count.below=nan", "finite number"),
        ("gopher.word_count.keep=1.5", "whole numbers"),
        ("gopher.word_count.drop=7", "remove them first: gopher.word_count.below=none"),
        ("gopher.word_count.above=none", "no such bound to remove"),
        ("gopher.word_count.keep=none", "no such bound to remove"),
        ("exact.dup_of.above=3", "holds string, which has no above"),
        ("exact.dup_of.keep=a,,b", "none of them empty"),
        ("licence.allow=CC0-1.0", "no stage 'licence'"),
        ("normalise.form.keep=NFC", "measured no such column"),
    ],
)
def test_a_change_that_cannot_be_says_how_to_write_it(store, version, text, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        whatif.ask(store, version, [text])


def test_a_bound_may_not_be_changed_twice_and_several_may_be_changed_at_once(store, version):
    with pytest.raises(ConfigError, match="changed twice"):
        whatif.ask(store, version, ["gopher.word_count.below=3", "gopher.word_count.below=4"])
    many = ["gopher.word_count.below=none", "gopher.word_count.above=89", "exact.dup_rank.above=none"]
    answer = whatif.ask(store, version, many)
    assert [m.signal for m in answer.margins] == ["gopher.word_count", "exact.dup_rank"]
    assert answer.margins[0].old == {"below": 20} and answer.margins[0].new == {"above": 89}


def test_a_grid_has_its_ends_and_says_at_each_point_what_a_question_says(store, version):
    values = [change.value for change in changes.axis("gopher.word_count.below=10:100:30")]
    assert values == ["10", "40", "70", "100"]
    assert [c.value for c in changes.axis("gopher.hash_ratio.above=.3:.1:-.1")] == ["0.3", "0.2", "0.1"]
    points = list(whatif.sweep(store, version, [], ["gopher.word_count.below=10:100:30", "near.dup_rank.above=0:2:1"]))
    assert len(points) == 12
    for point in points[::5]:
        path = [f"gopher.word_count.below={point.values[0]}", f"near.dup_rank.above={point.values[1]}"]
        after = whatif.ask(store, version, path, most=0).after
        assert (point.documents, point.text_bytes) == (after.documents, after.text_bytes)
    for wrong in ("gopher.word_count.below=1", "gopher.word_count.below=1:2", "gopher.word_count.below=1:9:0"):
        with pytest.raises(ConfigError, match="FIRST:LAST:STEP"):
            list(whatif.sweep(store, version, [], [wrong]))
    with pytest.raises(ConfigError, match="at most"):
        list(whatif.sweep(store, version, [], ["gopher.word_count.below=1:99999:1"]))


def test_a_refusal_counts_the_documents_that_a_build_measures_there_for_the_first_time(corpus, store, two):
    with pytest.raises(Unmeasured, match="apply") as refused:
        whatif.ask(store, two, ["gopher.word_count.below=10"])
    again = build(make_recipe(corpus, loosened(TWO), name="two"), store.root)
    old, new = (
        {
            doc_id
            for key in v.build_keys().segments[1].parts
            for doc_id in read_parquet(store.file(key, "entered.parquet"))["doc_id"].to_pylist()
        }
        for v in (two, again)
    )
    assert refused.value.documents == len(new - old) > 0
    [point] = whatif.sweep(store, two, [], ["gopher.word_count.below=10:10:1"])
    assert point.documents is None and point.unmeasured == refused.value.documents


def test_where_the_books_are_not_in_the_store_it_says_so(store, version, tmp_path):
    elsewhere = tmp_path / "store" / "versions" / "test" / version.folder.name
    shutil.copytree(version.folder, elsewhere)
    with pytest.raises(ConfigError, match=r"are not in .* use the store that built it"):
        whatif.ask(Store(tmp_path / "store"), Version(elsewhere, version.manifest), ["gopher.word_count.below=3"])
    (elsewhere / "build.json").unlink()
    with pytest.raises(ConfigError, match="has no books"):
        whatif.ask(Store(tmp_path / "store"), Version(elsewhere, version.manifest), ["gopher.word_count.below=3"])


def test_the_licence_rule_is_a_threshold_too(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", 40)
    made = build(make_recipe(corpus, licence={"allow": ["CC0-1.0"], "unknown": "drop"}), tmp_path / "store")
    asked = Store(tmp_path / "store")
    answer = whatif.ask(asked, made, ["licence.allow=MIT,Apache-*"])
    assert answer.after.documents == 0 and answer.before.documents > 0
    assert whatif.ask(asked, made, ["licence.allow=CC0-*"]).after == answer.before
    assert whatif.ask(asked, made, ["licence.allow=none"]).after == answer.before
    denied = whatif.ask(asked, made, ["licence.deny=CC0-*"])
    assert denied.after.documents == 0 and denied.margins[0].new["deny"] == ["CC0-*"]
    for wrong, said in (
        ("deny=none", "no such bound"),
        ("unknown=ask", "write licence.unknown=keep"),
        ("deny=CC0", "SPDX"),
    ):
        with pytest.raises(ConfigError, match=said):
            whatif.ask(asked, made, [f"licence.{wrong}"])
    remade = remaking.write(asked, made, ["licence.allow=CC0-*,MIT"])
    assert recipes.load(str(remade.path)).licence.allow == ["CC0-*", "MIT"]
    assert recipes.load(str(remade.path)).licence.unknown == "drop"


def test_the_changed_recipe_builds_what_one_written_by_hand_does_and_measures_nothing_again(corpus, store, version):
    remade = remaking.write(store, version, ["gopher.word_count.below=10"])
    recipe, size = recipes.load(str(remade.path)), recipes.parse_size(remade.partition_size)
    again = build(recipe, store.root, partition_bytes=size)
    done = again.build_keys().segments[0]
    by_hand = build(make_recipe(corpus, loosened(STAGES)), store.root, partition_bytes=30_000)
    assert again.address == by_hand.address
    keys = version.build_keys().segments[0]
    assert len(keys.parts) > 2 and done.parts == keys.parts
    assert [r["pairs"] for r in done.relates] == [r["pairs"] for r in keys.relates]
    with pytest.raises(ConfigError, match="a folder that exists"):
        remaking.write(store, version, [], out=Path("nowhere/at/all.toml"))
    assert remaking.write(store, version, [], name="other", out=store.root / "r.toml").path == store.root / "r.toml"
    assert recipes.load(str(store.root / "r.toml")).name == "other"


def test_a_card_that_changed_since_is_no_card_of_this_version(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", 40)
    made, asked = build(make_recipe(corpus), tmp_path / "store"), Store(tmp_path / "store")
    (corpus / "grain.toml").write_text(CARD.replace("CC0-1.0", "MIT"), "utf-8")
    with pytest.raises(ConfigError, match="not what it was when grain was read"):
        remaking.write(asked, made, ["gopher.word_count.below=10"])
    for key in made.build_keys().segments[0].parts:
        (asked.root / "plans" / f"{key}.json").unlink()
    with pytest.raises(ConfigError, match="change its recipe by hand"):
        remaking.write(asked, made, ["gopher.word_count.below=10"])


@pytest.mark.parametrize("text", ["plain", 'quo"te', "back\\slash", "\x7f\x01\t\n", "磨坊 \U0001f33e", "a.b c"])
def test_what_is_written_is_read_back_as_it_was(text):
    table = {
        "name": text,
        "seed": 3,
        "sources": [text],
        "stage": [{"use": "x", "rate": 1e-7, "yes": True, "drop": {text: {"below": -2}}, "keep": {"lang": [text]}}],
        "pack": {"split": {text: 0.1}, "none": {}},
    }
    assert tomllib.loads(remaking.toml(table)) == table


def test_a_change_is_written_as_it_is_read():
    for text in ("gopher.word_count.below=30", "language.lang.keep=en,zh", "a.b.above=none", "licence.allow=CC0-1.0"):
        assert str(parse(text)) == text and json.dumps(text)


def test_a_rule_over_a_similarity_quarantines_who_has_none_and_names_the_others():
    relation = pa.table(
        {"doc_id": ["a", "b"], "near.jaccard": pa.array([None, 0.8]), "near.dup_of": pa.array([None, "a"], pa.string())}
    )
    first, second = relating.judge(relation, [Rule("near", "jaccard", "below", 0.9)]).to_pylist()
    assert (first["verdict"], first["reason"], first["detail"]) == ("quarantined", "jaccard unmeasured", None)
    assert (second["verdict"], second["detail"]) == ("dropped", "jaccard=0.8 dup_of=a jaccard=0.8")
