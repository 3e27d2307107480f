"""Extending: whoever was kept stays as it was, no old text is read, and what a build at once would change is listed."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from pipeline import addresses, books, manifest, whatif
from pipeline import diff as differing
from pipeline.audit import audit
from pipeline.build import Mill
from pipeline.catalog import queries
from pipeline.digests import canonical
from pipeline.extending import checking, proof
from pipeline.extending import operation as extending
from pipeline.forgetting import operation as forgetting
from pipeline.forgetting.selecting import Request as Forget
from pipeline.manifest import Version
from pipeline.rebuild import rebuild
from pipeline.runner import Local, workers
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError, read_parquet
from pipeline.tasks import execute
from tests import builds
from tests.bench import living
from tests.conftest import ROOT
from training import manifest as reader

SCHEMA = json.loads((ROOT / "catalogs" / "schemas" / "manifest.schema.json").read_text("utf-8"))
# 60 bands of 2 rows find every pair of .75 but one in 10^21.
SURE = {"use": "near", "threshold": 0.75, "bands": 60, "rows": 2}
DROP = {"dup_rank": {"above": 0}}
STAGES = [{"use": "normalise"}, {"use": "exact", "drop": DROP}, {**SURE, "drop": DROP}]
MEASURED = [{"use": "normalise"}, {"use": "exact"}, SURE]
PACK = {"length": 64, "split": {"val": 0.3}}


def card(folder: Path, name: str, texts: Sequence[str], **changes: str) -> Path:
    """A source of these texts, in two files."""
    home = folder / name
    home.mkdir(parents=True)
    for number in (0, 1):
        rows = [json.dumps({"text": text, "label": "0", "url": "https://example.org"}) for text in texts[number::2]]
        (home / f"{number}.jsonl").write_text("".join(f"{row}\n" for row in rows), "utf-8")
    table = builds.CARD.replace('"grain"', f'"{name}"') + 'columns = {text = "text", label = "label", url = "url"}\n'
    for old, new in changes.items():
        table = table.replace(old, new)
    (home / f"{name}.toml").write_text(table, "utf-8")
    return home / f"{name}.toml"


def texts(draw: random.Random, families: int = 30) -> tuple[list[str], list[str]]:
    """(old, new) texts of 60 words: windows over one run of words that begin 5 words apart, so that neighbours are
    alike (.84) and others are not (.70 and less); some stand twice."""
    found: tuple[list[str], list[str]] = [], []
    for _ in range(families):
        words = [f"{draw.choice(builds.WORDS)}{draw.randrange(500)}" for _ in range(100)]
        for number in range(draw.randrange(1, 8)):
            text = " ".join(words[5 * number : 5 * number + 60])
            side = draw.random() < 0.4
            found[side].append(text)
            if draw.random() < 0.2:
                found[draw.random() < 0.5].append(text)
    return found


def recipe(folder: Path, names: Sequence[str], stages: list[dict[str, Any]], **tables: Any):
    cards = [f"{name}/{name}.toml" for name in names]
    return builds.make_recipe(folder, stages, sources=cards, pack=PACK, **tables)


def extend(store: Store, address: str, *sources: Path, name: str | None = None, **settings: Any) -> Version:
    planned = checking.check(store, checking.Request(address, tuple(map(str, sources)), name))
    return extending.extend(Mill(store, **settings), planned)


def kept(version: Version) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in version.index().to_pylist()}


def bridges(version: Version) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in read_parquet(version.folder / "bridges.parquet").to_pylist()}


def ids_and_texts(home: Path) -> dict[str, str]:
    found = {}
    for file in sorted(home.glob("*.jsonl")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            found[f"{home.name}:{file.name}:{number}"] = json.loads(line)["text"]
    return found


def alike(a: str, b: str) -> bool:
    left, right = ({tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (a.split(), b.split()))
    return len(left & right) / len(left | right) >= 0.75


def components(nodes: Sequence[str], near: Callable[[str, str], bool]) -> list[set[str]]:
    found: list[set[str]] = []
    for node in nodes:
        mine = [group for group in found if any(near(node, other) for other in group)]
        found = [group for group in found if group not in mine] + [{node}.union(*mine)]
    return found


def twin(of: dict[str, str], old: set[str]) -> tuple[set[str], set[str]]:
    """(who is kept where `old` came first, who is kept in a build at once), by comparing every two texts."""
    sides = []
    for first in (old, set()):
        left = set()
        groups: dict[str, list[str]] = {}
        for doc_id, text in of.items():
            groups.setdefault(text, []).append(doc_id)
        for members in groups.values():
            left.add(min(members, key=lambda i: (i not in first, i)))
        near = components(sorted(left), lambda a, b: alike(of[a], of[b]))
        before = components(sorted(left & first), lambda a, b: alike(of[a], of[b]))
        sides.append({min(g) for g in before} | {min(g) for g in near if not g & first})
    return sides[0], sides[1]


@pytest.mark.parametrize(("seed", "name"), [(1, "later"), (2, "later"), (3, "aaa")])
def test_who_is_kept_is_who_would_be_at_once_but_for_the_bridges(seed, name, tmp_path):
    """Against a build of all sources, and against a twin that compares every two texts."""
    old, new = texts(random.Random(seed))
    came = card(tmp_path, name, new)
    card(tmp_path, "grain", old)
    store = Store(tmp_path / "store")
    parent = builds.build(recipe(tmp_path, ["grain"], STAGES), store.root, partition_bytes=9000)
    version = extend(store, "test", came, partition_bytes=9000)
    whole = builds.build(recipe(tmp_path, ["grain", name], STAGES, name="whole"), store.root)

    before = ids_and_texts(tmp_path / "grain")
    here, once = twin(before | ids_and_texts(tmp_path / name), set(before))
    index, was = kept(version), kept(parent)
    assert set(index) == here and set(kept(whole)) == once
    said = bridges(version)
    assert here != once and set(said) == here ^ once
    assert {i for i, row in said.items() if row["here"] == "kept"} == here - once
    assert all((row["here"], row["at_once"]) in (("kept", "dropped"), ("dropped", "kept")) for row in said.values())
    assert all(row["by"].startswith(f"{name}:") for row in said.values())
    # Whoever was kept is, in its very row.
    assert {i: index[i] for i in was} == was
    # What was compared is the same.
    pairs = [
        read_parquet(store.file(v.build_keys().segments[0].relates[1]["pairs"], "pairs.parquet"))
        for v in (version, whole)
    ]
    assert pairs[0].equals(pairs[1]) and pairs[0].num_rows
    report = audit(version, store)
    assert report.problems == []
    if name == "later":
        assert any(re.search(r"near: .* but for \d+ at recorded bridges", check) for check in report.checks)
    jsonschema.validate(version.manifest, SCHEMA)
    assert reader.open_version(version.folder).manifest.extended.documents == len(said)
    check_clusters(store, version, set(before))
    # Who bridges is a duplicate, too: the rule speaks, and no document needs to be put out beyond it.
    assert set(books.ledger(store, version.build_keys())["reason"].to_pylist()) == {"dup_rank > 0"}


def check_clusters(store: Store, version: Version, old: set[str]) -> None:
    """Ranks count from 0 to the size of each cluster, new behind old; a cluster bears its survivor's id."""
    for relate in version.build_keys().segments[0].relates:
        table = read_parquet(store.file(relate["cluster"], "relation.parquet"))
        rows = [{k.rpartition(".")[2]: v for k, v in row.items()} for row in table.to_pylist()]
        of: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            of.setdefault(row["cluster"], []).append(row)
        for name, members in of.items():
            members.sort(key=lambda row: row["dup_rank"])
            assert [row["dup_rank"] for row in members] == list(range(len(members)))
            assert {row["cluster_size"] for row in members} == {len(members)} and members[0]["doc_id"] == name
            assert {row["dup_of"] for row in members[1:]} <= {name} and members[0]["dup_of"] is None
            there = [row["doc_id"] in old for row in members]
            assert there == sorted(there, reverse=True)


@pytest.mark.parametrize("name", ["later", "aaa"])
def test_a_new_duplicate_goes_where_the_old_one_is_and_a_bridge_goes_nowhere(name, tmp_path):
    """No rule drops a duplicate: splits alone keep train from what it is tested on."""
    old, new = texts(random.Random(5), 40)
    came = card(tmp_path, name, new)
    card(tmp_path, "grain", old)
    store = Store(tmp_path / "store")
    parent = builds.build(recipe(tmp_path, ["grain"], MEASURED), store.root)
    version = extend(store, "test", came)
    of = ids_and_texts(tmp_path / "grain") | ids_and_texts(tmp_path / name)
    index = kept(version)
    assert {i: index[i] for i in kept(parent)} == kept(parent)
    assert {row["split"] for i, row in index.items() if i.startswith(name)} == {"train", "val"}
    torn = [
        (a, b) for a in index for b in index if a < b and index[a]["split"] != index[b]["split"] and alike(of[a], of[b])
    ]
    assert torn == []
    gone = {row["doc_id"]: row for row in books.ledger(store, version.build_keys()).to_pylist()}
    assert (
        gone and {row["reason"] for row in gone.values()} == {"bridges clusters"} and set(gone) == set(bridges(version))
    )
    assert audit(version, store).problems == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with three sources, and a store with a version of the first."""
    folder = tmp_path_factory.mktemp("extending")
    draw = random.Random(8)
    old, new = texts(draw)
    newer = [*texts(draw, 12)[0], *draw.sample(old, 6), *draw.sample(new, 6)]
    for name, each in (("grain", old), ("later", new), ("newest", newer)):
        card(folder, name, each)
    stages = [*STAGES[:2], STAGES[2], {"use": "gopher", "drop": {"word_count": {"below": 20}}}]
    builds.build(recipe(folder, ["grain"], stages), folder / "store", partition_bytes=9000)
    return folder


@pytest.fixture
def copied(made, tmp_path) -> tuple[Path, Store]:
    """Sources stay where their plans say they are."""
    shutil.copytree(made / "store", tmp_path / "store")
    return made, Store(tmp_path / "store")


def blank(store: Store, version: Version) -> int:
    """Overwrite every table of the version's outputs that holds text; how many."""
    found = 0
    for segment in version.build_keys().segments:
        for part in segment.parts:
            path = store.file(part, "documents.parquet")
            assert "text" in pq.read_schema(path).names
            path.write_bytes(b"\0" * path.stat().st_size)
            found += 1
    return found


def test_no_old_text_is_read(copied, tmp_path):
    folder, store = copied
    parent = manifest.find(store, "test")
    expected = extend(store, "test", folder / "later" / "later.toml", name="other")
    shutil.copytree(folder / "store", tmp_path / "blank")
    other = Store(tmp_path / "blank")
    assert blank(other, parent) > 2
    # Its plans name this folder, so its source's files are put aside.
    (folder / "grain").rename(folder / "put-aside")
    try:
        found = extend(other, "test", folder / "later" / "later.toml", name="other")
    finally:
        (folder / "put-aside").rename(folder / "grain")
    assert found.address == expected.address


def test_the_work_may_be_cut_in_any_way(copied, tmp_path):
    folder, store = copied
    card = folder / "later" / "later.toml"
    for number in (1, 2):
        shutil.copytree(folder / "store", tmp_path / str(number))
    first = extend(store, "test", card)
    settings = {"partition_bytes": 2000, "batch_rows": 7, "memory": 100_000}
    second = extend(Store(tmp_path / "1"), "test", card, **settings)
    with workers(2, True) as pool:
        third = extend(Store(tmp_path / "2"), "test", card, runner=Local(pool), workers=2, partition_bytes=3000)
    assert first.address == second.address == third.address
    assert canonical(first.manifest) == canonical(second.manifest) == canonical(third.manifest)


def test_what_was_interrupted_goes_on(copied, monkeypatch):
    """Stopped before each of its tasks in turn; the version before stands alone until the new one is whole."""
    folder, store = copied
    before, done = manifest.find(store, "test"), list[str]()

    def one(root: str, key: str, *more: Any) -> str:
        if done:
            raise KeyboardInterrupt
        done.append(execute(root, key, *more))
        return done[0]

    monkeypatch.setattr("pipeline.runner.execute", one)
    stops, version = 0, None
    while version is None:
        done.clear()
        try:
            version = extend(store, "test", folder / "later" / "later.toml")
        except KeyboardInterrupt:
            stops += 1
            assert manifest.versions(store, "test") == [before.manifest["version"]]
    assert stops >= 8 and version.manifest["parents"] == [before.address]
    assert audit(version, store).problems == [] and list(proof.differences(version, before)) == []


def test_it_is_extended_again_forgotten_in_and_built_again(copied, tmp_path):
    folder, store = copied
    parent = manifest.find(store, "test")
    first = extend(store, "test", folder / "later" / "later.toml")
    second = extend(store, "test", folder / "newest" / "newest.toml", name="living")
    assert second.manifest["parents"] == [parent.address, first.address] and second.manifest["name"] == "living"
    for old in (parent, first):
        assert list(proof.differences(second, old)) == []
    assert {i: row for i, row in kept(second).items() if i in kept(first)} == kept(first)
    # The shards that were there are the same files.
    for old in (parent, first):
        for split, each in old.manifest["splits"].items():
            now = {shard["file"]: shard for shard in second.manifest["splits"][split]["shards"]}
            for shard in each["shards"]:
                stored = store.file(old.build_keys().packed, Path(shard["file"]).name)
                assert stored.stat().st_ino == (second.folder / shard["file"]).stat().st_ino
                assert now[shard["file"]]["digest"] == shard["digest"]
    assert audit(second, store).problems == [] == list(manifest.verify(second))
    of = {name: text for each in ("grain", "later", "newest") for name, text in ids_and_texts(folder / each).items()}
    whole = builds.build(
        recipe(
            folder, ["grain", "later", "newest"], [*STAGES, {"use": "gopher", "drop": {"word_count": {"below": 20}}}]
        ),
        tmp_path / "whole",
    )
    assert set(kept(whole)) ^ set(kept(second)) == set(bridges(second))
    difference = differing.diff(store, addresses.find(store, first.address), addresses.find(store, second.address))
    assert difference.documents["removed"] == 0 and difference.documents["added"] == len(kept(second)) - len(
        kept(first)
    )
    with pytest.raises(ConfigError, match="was extended"):
        whatif.ask(store, second, ["gopher.word_count.below=30"])
    with pytest.raises(ConfigError, match="was extended"):
        forgetting.plan(store, second, second.build_keys(), Forget(doc=(next(iter(of)),), only=True))

    def build(scratch: Store, recipe: Any, inputs: Sequence[Any]) -> Version:
        return Mill(scratch, batch_rows=7, partition_bytes=4000).build(recipe, inputs)

    found = rebuild(store, *addresses.find(store, "living"), build)
    assert found.equal and found.rebuilt == second.address, found.differences
    bridge, row = next((i, row) for i, row in bridges(second).items() if row["here"] == "kept")
    why = queries.why(store, second, bridge)
    assert why.verdict == "kept" and why.bridges == [row]
    assert row in queries.why(store, second, row["by"]).bridges
    assert queries.place(second, bridge) is not None
    asked = forgetting.plan(store, second, second.build_keys(), Forget(doc=(bridge,)))
    last = forgetting.forget(Mill(store), second, second.build_keys(), asked, lambda ids: [], True)
    gone = set(asked.chosen["doc_id"].to_pylist())
    assert row["by"] in gone and not gone & set(bridges(last)) and not gone & set(kept(last))
    assert last.manifest["extended"]["operations"] == second.manifest["extended"]["operations"]
    jsonschema.validate(last.manifest, SCHEMA)
    assert audit(last, store).problems == []
    found = rebuild(store, *addresses.find(store, last.address), build)
    assert found.equal and found.rebuilt == last.address, found.differences


def test_an_edited_list_of_bridges_is_noticed(copied):
    folder, store = copied
    version = extend(store, "test", folder / "later" / "later.toml")
    path = version.folder / "bridges.parquet"
    table = read_parquet(path)
    path.unlink()
    pq.write_table(table.slice(1), path)
    assert any("bridges.parquet does not list whom" in problem for problem in manifest.verify(version))
    path.unlink()
    assert any("bridges.parquet" in problem for problem in manifest.verify(version))


def files(store: Store) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}


def edited(store: Store) -> None:
    path = manifest.find(store, "test").folder / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"seed":5', '"seed":6'), "utf-8")


def without_a_table(store: Store) -> None:
    key = manifest.find(store, "test").build_keys().segments[0].relates[1]["pairs"]
    shutil.rmtree(store.folder(key))


def other_tokenizer(store: Store) -> None:
    path = manifest.find(store, "test").folder / "tokenizer.json"
    text = path.read_text("utf-8")
    path.unlink()
    path.write_text(text + " ", "utf-8")


def without_plans(store: Store) -> None:
    shutil.rmtree(store.root / "plans")


def nothing(store: Store) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "address", "sources", "words"),
    [
        (nothing, "tset", ["later"], "no version of 'tset' in .*did you mean 'test'"),
        (nothing, "test@0000", ["later"], "test@0000 is no version of 'test'; has: "),
        (edited, "test", ["later"], r"manifest\.json was edited"),
        (without_a_table, "test", ["later"], "the books of test@.* are not in .* outputs are missing"),
        (without_plans, "test", ["later"], "the plan of .* is not in"),
        (other_tokenizer, "test", ["later"], r"tokenizer\.json is not the tokenizer of test@"),
        (nothing, "test", ["grain"], "source 'grain' is in test@.* already; a new dump of it is a card of its own"),
        (nothing, "test", ["later", "later"], "source 'later' is named twice"),
        (nothing, "test", [], "say what comes to test@"),
    ],
)
def test_what_cannot_be_extended_is_refused_and_nothing_is_written(copied, change, address, sources, words):
    folder, store = copied
    change(store)
    before = files(store)
    with pytest.raises(ConfigError, match=words):
        extend(store, address, *(folder / name / f"{name}.toml" for name in sources))
    assert files(store) == before


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            [{**SURE, "survivor": "best", "drop": DROP}],
            'stage near has survivor = "best", so a new document could take',
        ),
        ([{"use": "exact", "survivor": "best"}], 'stage exact has survivor = "best"'),
        ([{"use": "paragraphs", "min_characters": 5, "unit": "line"}], "stage paragraphs cuts what several documents"),
        ([{"use": "exact", "drop": DROP}, {"use": "eda", "children": 1}], "stage eda adds documents"),
        ([{"use": "exact", "drop": DROP}, {"use": "normalise"}, SURE], "exact and near stand in two segments"),
    ],
)
def test_stages_that_would_change_what_was_kept_are_refused(stages, words, made, tmp_path):
    store = Store(tmp_path / "store")
    layout = {"layout": "examples", "length": 64, "split": {"val": 0.3}} if stages[-1]["use"] == "eda" else PACK
    builds.build(builds.make_recipe(made, stages, sources=["grain/grain.toml"], pack=layout), store.root)
    before = files(store)
    with pytest.raises(ConfigError, match=words):
        extend(store, "test", made / "later" / "later.toml")
    assert files(store) == before


def test_code_that_has_changed_is_refused(copied, monkeypatch):
    folder, store = copied
    monkeypatch.setattr("pipeline.stage.source_digest", lambda module: "another")
    before = files(store)
    with pytest.raises(ConfigError, match=r"the code behind normalise, exact, near .* is not what built it"):
        extend(store, "test", folder / "later" / "later.toml")
    assert files(store) == before


def test_a_damaged_table_is_noticed_before_it_is_believed(copied):
    folder, store = copied
    part = manifest.find(store, "test").build_keys().segments[0].parts[0]
    path = store.file(part, "sketch-near.parquet")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="does not have the digest that its marker states"):
        extend(store, "test", folder / "later" / "later.toml")
    assert manifest.versions(store, "test") == [manifest.find(store, "test").manifest["version"]]


def test_a_label_that_the_version_does_not_have_is_refused(made, tmp_path):
    store = Store(tmp_path / "store")
    layout = {"layout": "examples", "length": 64, "split": {"val": 0.3}}
    builds.build(builds.make_recipe(made, STAGES, sources=["grain/grain.toml"], pack=layout), store.root)
    came = card(tmp_path, "labelled", [f"{n} the mill wheel turns with water from that river" for n in range(9)])
    for file in came.parent.glob("*.jsonl"):
        file.write_text(file.read_text("utf-8").replace('"label": "0"', '"label": "7"'), "utf-8")
    with pytest.raises(ConfigError, match="label '7' is none of the version's labels"):
        extend(store, "test", came)
    assert len(manifest.versions(store, "test")) == 1
    assert extend(store, "test", made / "later" / "later.toml").manifest["labels"] == ["0"]


def test_the_proof_names_what_differs(copied, tmp_path):
    """Of versions that do not extend each other: another tokenizer, fewer documents, other stages."""
    folder, store = copied
    parent = manifest.find(store, "test")
    version = extend(store, "test", folder / "later" / "later.toml")
    first = next(iter(proof.differences(parent, version)))
    assert first == "source later is not there any more"
    said = list(proof.differences(parent, version))
    assert any(re.fullmatch(r"\d+ documents are not kept any more, first later:.*", line) for line in said)
    assert any("is not there any more" in line and "train-later" in line for line in said)
    other = builds.build(recipe(folder, ["grain"], STAGES[:2], name="other"), tmp_path / "other")
    assert any("stage near was" in line for line in proof.differences(version, other))
    altered = json.loads(json.dumps(version.manifest))
    shard = next(s for s in altered["splits"]["train"]["shards"] if s["source"] == "grain")
    was, shard["digest"] = shard["digest"], "0" * 32
    assert list(proof.differences(Version(version.folder, altered), parent)) == [
        f"split train: {shard['file']}: digest was {was}, and is {'0' * 32}"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("new", ["installation-guide-arm64", "installation-guide-amd64"])
def test_the_shared_corpus_grows_as_if_built_at_once_but_for_the_bridges(shared_data, new, tmp_path):
    """The guide of a second processor; the names of the first come before it, those of the second behind."""
    said = list(living.trial(shared_data, tmp_path, new))
    assert said[1].endswith("agrees") and said[2] == "audit and proof: sound", said
    assert said[1].startswith("bridges: 0;") == (new == "installation-guide-arm64")
