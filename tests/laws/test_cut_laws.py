"""Laws 1, 2, 4 and 5 over builds that cut: the books, same bits, one text one split, no token and no byte lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from pipeline import books, cuts
from pipeline import stage as stages
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.contract import ContractError
from pipeline.recipe import Recipe
from pipeline.schema import cuts_file
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet
from pipeline.tokens import vocabulary
from tests import builds
from tests.contract.test_manifest import SCHEMA
from tests.given import GIVEN
from tests.laws import nasty

CUTTING = [name for name in stages.available() if stages.load(name, GIVEN.get(name, {})).cuts]
NOTICE = "This page is kept by the people of the mill, and what they say holds for every stone that turns in it."
MENU = (
    "水車は川の水で回る。人々は穀物を粉ひき小屋へ運んだ。粉は袋に入れて家へ持ち帰り、"
    "石は次の朝まで静かに休む。春には水が多く、石はよく回る。"
)
# For every cutting stage: parameters under which the corpus below is cut.
SHORT: dict[str, dict[str, Any]] = {"paragraphs": {"min_characters": 5}, "substring": {"length": 12}}


def write(folder: Path, documents: int = 90) -> Path:
    """Prose of own lines between lines that many have; some hold nothing else, some nothing at all."""
    draw = random.Random(4)
    rows = []
    for number in range(documents):
        own = [" ".join(draw.choice(builds.WORDS) + str(draw.randrange(99)) for _ in range(14)) for _ in range(4)]
        lines = [own[0], NOTICE, own[1], MENU, own[2], own[3]]
        if number % 10 == 3:
            lines = [MENU, "", NOTICE]
        elif number % 10 == 6:
            lines = lines[::-1]
        elif number % 10 == 8:
            lines = ["one line and no more " + str(number)]
        rows.append({"text": "\n".join(lines)})
    rows += [{"text": text} for text in ("", " ", "a", *nasty.TEXTS.values())]
    # Not alike before anything is cut, but then.
    rows += [{"text": f"{(NOTICE, MENU)[number % 2]}\n{'kqxz'[number // 2 % 4]}!"} for number in range(24)]
    (folder / "grain.toml").write_text(builds.CARD, "utf-8")
    for number in range(5):
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows[number::5])), "utf-8")
    return folder


def recipe(folder: Path, use: str, behind: list[dict[str, Any]] | None = None, **rules: Any) -> Recipe:
    table = [{"use": "normalise"}, {"use": "exact"}, {"use": use, **SHORT[use], **rules}, *(behind or [])]
    return builds.make_recipe(folder, table, pack={"length": 64, "split": {"val": 0.3}})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module", params=CUTTING)
def built(request, corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    made = recipe(corpus, request.param)
    return builds.build(made, store), Store(store), made, request.param


def texts(store: Store, parts: list[str]) -> dict[str, str]:
    tables = [read_parquet(store.file(part, "documents.parquet"), ["doc_id", "text"]) for part in parts]
    return dict(zip(*(pa.concat_tables(tables)[name].to_pylist() for name in ("doc_id", "text")), strict=True))


def test_the_books_balance_and_what_is_empty_leaves_by_name(built):
    version, store, _, use = built
    report = audit(version, store)
    assert report.problems == [] and any(check.startswith(f"{use}: ") for check in report.checks)
    gone = books.ledger(store, version.build_keys()).to_pylist()
    emptied = {row["doc_id"] for row in gone if row["reason"] == "nothing left"}
    assert len(emptied) > 5 and all(row["stage"] == use for row in gone if row["doc_id"] in emptied)
    [entry] = [entry for entry in version.manifest["accounting"] if entry["stage"] == use]
    assert entry["reasons"]["nothing left"] == len(emptied) == entry["dropped"]
    before, after = (texts(store, segment.parts) for segment in version.build_keys().segments)
    assert set(before) - set(after) == emptied
    assert all(after[doc_id].strip() or after[doc_id] == before[doc_id] for doc_id in after)


def test_the_text_is_what_it_was_without_its_spans(built):
    version, store, _, _ = built
    first, second = version.build_keys().segments
    before, after = texts(store, first.parts), texts(store, second.parts)
    key, cut = first.relates[-1]["cuts"], 0
    spans: dict[str, list[tuple[int, int]]] = {}
    for part in range(len(first.parts)):
        for row in read_parquet(store.file(key, cuts_file(part))).to_pylist():
            spans[row["doc_id"]] = list(zip(row["start"], row["end"], strict=True))
    for doc_id, text in after.items():
        raw = before[doc_id].encode()
        for start, end in reversed(spans.get(doc_id, [])):
            raw = raw[:start] + raw[end:]
            cut += end - start
        assert raw.decode() == text
    assert cut > 1000
    assert sum(NOTICE in text for text in after.values()) == sum(MENU in text for text in after.values()) == 1


def test_why_tells_what_was_cut_and_who_else_holds_it(built):
    version, store, _, use = built
    before = texts(store, version.build_keys().segments[0].parts)
    first = min(doc_id for doc_id, text in before.items() if NOTICE in text)
    holders = sum(NOTICE in text for text in before.values())
    assert queries.why(store, version, first).cuts == []
    counts = version.manifest["summaries"]["cuts"][use]
    told = {doc_id: queries.why(store, version, doc_id).cuts for doc_id in list(before)[::7]}
    assert any(told.values()) and counts["documents"] > len(told) / 2
    for doc_id, found in told.items():
        for cut in found:
            held = before[doc_id].encode()[cut.start : cut.end].decode()
            assert cut.stage == use and held.strip().startswith(cut.excerpt) and cut.documents >= 2
            assert cut.first < doc_id
            if use == "paragraphs" and held.startswith(NOTICE):
                assert (cut.documents, cut.first) == (holders, first)


def test_the_manifest_says_what_was_cut(built):
    version, store, _, use = built
    relation = read_parquet(store.file(version.build_keys().segments[0].cuts["cuts"], "relation.parquet")).to_pylist()
    lost = [row for row in relation if row[f"{use}.cut_bytes"]]
    sums = [sum(row[f"{use}.cut_{name}"] for row in lost) for name in ("spans", "bytes")]
    assert version.manifest["summaries"]["cuts"][use] == {"bytes": sums[1], "documents": len(lost), "spans": sums[0]}
    jsonschema.validate(version.manifest, SCHEMA)


def test_tokens_are_made_of_the_cut_text(built):
    version, store, _, _ = built
    tokenizer = vocabulary.load(version.folder / "tokenizer.json")
    after = texts(store, version.build_keys().segments[-1].parts)
    index = version.index()
    assert sorted(after) == sorted(index["doc_id"].to_pylist())
    for doc_id, size, count in zip(*(index[n].to_pylist() for n in ("doc_id", "text_bytes", "tokens")), strict=True):
        assert size == len(after[doc_id].encode())
        assert count == len(vocabulary.encode(tokenizer, [after[doc_id]])[0])


def test_one_text_is_in_one_split(built):
    """Also where two texts are one only since they were cut."""
    version, store, _, _ = built
    after = texts(store, version.build_keys().segments[-1].parts)
    splits: dict[str, set[str]] = {}
    for doc_id, split in zip(*(version.index()[name].to_pylist() for name in ("doc_id", "split")), strict=True):
        splits.setdefault(after[doc_id], set()).add(split)
    assert {"train", "val"} == set.union(*splits.values()) and list(after.values()).count("k!") > 1
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    "settings",
    [{"batch_rows": 7}, {"partition_bytes": 5_000, "memory": 1 << 14}, {"count": 2, "partition_bytes": 500_000}],
    ids=["batch", "partition-memory", "workers"],
)
def test_same_bits_however_the_work_is_cut(built, tmp_path, settings):
    version, _, made, _ = built
    assert builds.build(made, tmp_path, **settings).manifest == version.manifest


@pytest.mark.parametrize("use", CUTTING)
def test_too_much_is_a_reason_to_drop_and_children_are_born_of_the_cut_text(corpus, tmp_path, use):
    behind = [{"use": "near", "drop": {"dup_rank": {"above": 0}}}, {"use": "eda", "children": 1}]
    version = builds.build(recipe(corpus, use, behind, drop={"cut_share": {"above": 0.9}}), tmp_path)
    store = Store(tmp_path)
    assert audit(version, store).problems == []
    reasons = {entry["stage"]: entry["reasons"] for entry in version.manifest["accounting"]}
    assert reasons[use].get("cut_share > 0.9", 0) > 5
    segments = version.build_keys().segments
    assert len(segments) == 3
    holding = [doc_id for doc_id, text in texts(store, segments[-1].parts).items() if NOTICE in text]
    assert len([doc_id for doc_id in holding if "#" not in doc_id]) == 1


def test_a_stage_that_cuts_ends_its_segment(corpus):
    eda, near = {"use": "eda"}, {"use": "near"}

    def shape(behind: list[dict[str, Any]]) -> tuple[list[list[str]], int]:
        made = recipe(corpus, "paragraphs", behind)
        return [[s.stage.name for s in (*g.steps, *g.relates)] for g in made.segments], made.assigning

    first = ["normalise", "exact", "paragraphs"]
    assert shape([]) == ([first, []], 1)
    assert shape([near]) == ([first, ["near"]], 1)
    assert shape([eda]) == ([first, [], ["eda"]], 1)
    assert shape([near, eda]) == ([first, ["near"], ["eda"]], 1)
    assert shape([{"use": "gopher"}]) == ([first, ["gopher"]], 1)
    with pytest.raises(ConfigError, match="comes after"):
        shape([eda, near])


DOCUMENTS = pa.table({"doc_id": ["a", "b", "c"], "text": pa.array(["一二三", "", "x y"], pa.large_string())})


def listed(*rows: tuple[int, list[tuple[int, int]]]) -> pa.Table:
    table = [{"doc_id": "", "row": r, "start": [s for s, _ in x], "end": [e for _, e in x]} for r, x in rows]
    return pa.Table.from_pylist(table, cuts.LISTS)


@pytest.mark.parametrize(
    "wrong",
    [
        (0, [(0, 10)]),
        (0, [(-1, 3)]),
        (0, [(1, 3)]),
        (0, [(0, 4)]),
        (0, [(3, 3)]),
        (0, [(0, 6), (3, 9)]),
        (0, [(3, 6), (0, 3)]),
        (3, [(0, 1)]),
    ],
)
def test_a_span_that_cannot_be_is_a_broken_contract(wrong):
    rows = np.array([0, 3, 5])
    with pytest.raises(ContractError, match="toy"):
        cuts.apply(DOCUMENTS, rows, listed(wrong), "toy")


def test_cuts_are_taken_from_the_rows_that_are_here():
    rows = np.array([2, 4, 9])
    lists = listed((1, [(0, 99)]), (2, [(3, 6)]), (5, [(0, 1)]), (9, [(0, 1), (2, 3)]), (12, [(0, 1)]))
    left, gone = cuts.apply(DOCUMENTS, rows, lists, "toy")
    assert left.to_pydict() == {"doc_id": ["a", "b"], "text": ["一三", ""]}, "what was empty before was not emptied"
    assert [(row["doc_id"], row["stage"], row["reason"]) for row in gone.to_pylist()] == [("c", "toy", "nothing left")]
