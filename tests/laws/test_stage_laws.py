"""Law 6, over every stage in the folder: what a stage may and may not do, on a nasty corpus."""

from __future__ import annotations

import functools
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import cuts
from pipeline import stage as stages
from pipeline.limits import UNBOUNDED, Workspace
from pipeline.models import ModelError, language_model
from pipeline.stage import Stage
from tests.given import FILTER, GIVEN, HERE
from tests.laws import nasty

# A stage is tried with its defaults and what it must be given, and with what is listed here.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "normalise": [{"form": "NFKC"}, {"repair": "ftfy"}],
    "gopher": [
        {"units": "script"},
        {"stop_words": ["mill", "磨", "a\x00b"]},
        {"dialect": "dolma"},
        {"dialect": "dclm"},
    ],
    "repetition": [{"units": "script"}, {"dialect": "dolma"}, {"dialect": "dclm"}],
    "fineweb": [{"dialect": "paper"}, {"units": "script"}],
    "language": [{"characters": 5}, {"second": str(FILTER / "model.bin"), "doubt": 0.3}],
    "pii": [{"kinds": ["phone", "email"], "countries": ["US"]}],
    "mask_pii": [{"kinds": ["phone", "email"], "countries": ["US"]}],
    "c4": [{"units": "script"}],
    "c4_lines": [{"units": "script"}],
    "refinedweb": [{"units": "script"}],
    "refinedweb_lines": [{"units": "script"}],
    "near": [{"ngram": 1, "bands": 3, "rows": 3}, {"verify": False}, {"fold_chinese": True}],
    "paragraphs": [
        {"unit": "paragraph", "match": "exact", "min_characters": 1},
        {"keep": "none", "most_documents": 2, "min_characters": 1},
    ],
    "substring": [{"length": 2}, {"length": 7}],
    "classifier": [{"label": "cc"}, {"card": str(FILTER / "card.json")}],
    "lines_language": [{"characters": 5, "least_share": 0.2}],
    "perplexity": [{"head": 60.0, "tail": 200.0, "units": "script", "normalise": False}],
    "toxicity": [
        {"model": str(FILTER / "model.bin"), "label": "cc"},
        {"words": None, "by_language": {"en": str(HERE / "words.txt"), "zh": str(HERE / "url_words.txt")}},
    ],
    "url": [{"subwords": str(HERE / "url_words.txt")}],
    "decontaminate": [{"around": 3, "most_documents": 1}, {"ngram": 9, "short": 3}],
    "importance": [{"buckets": 64, "seed": 3}],
    "html": [{"extractor": "resiliparse"}, {"extractor": "plain"}],
    "eda": [{"children": 3, "deletion": 0.0, "swap": 0.5}, {"swap": 0.0, "deletion": 0.9}],
}
CASES = [
    (name, {**GIVEN.get(name, {}), **params}) for name in stages.available() for params in [{}, *VARIANTS.get(name, [])]
]


@functools.cache
def kind(use: str) -> str:
    """The kind of a stage, whatever its parameters; one that relates documents to cut them is a "cut"."""
    loaded = stages.load(use, GIVEN.get(use, {}))
    return "cut" if loaded.cuts else loaded.kind


def cases(*kinds: str) -> Any:
    """Parametrise over the stages of these kinds (all where none is given)."""
    chosen = [case for case in CASES if not kinds or kind(case[0]) in kinds]
    names = [f"{name}-{'-'.join(map(_short, params.values())) or 'default'}" for name, params in chosen]
    return pytest.mark.parametrize("stage", chosen, ids=names, indirect=True)


def _short(value: Any) -> str:
    """A parameter in the name of a test: of a file its name."""
    if isinstance(value, dict):
        return ",".join(value)
    if isinstance(value, list):
        return str([_short(one) if str(one).startswith("/") else one for one in value])
    return Path(value).name if isinstance(value, str) and value.startswith("/") else str(value)


@pytest.fixture
def stage(request) -> Stage:
    name, params = request.param
    if name in ("language", "lines_language"):
        try:
            language_model()
        except ModelError as error:
            pytest.skip(str(error))
    return stages.load(name, params)


@pytest.fixture(scope="module")
def batch() -> pa.RecordBatch:
    return nasty.batch()


def outcome(stage: Stage, batch: pa.RecordBatch) -> pa.Table:
    """What a stage made of a batch as a table that says it all: new columns, changed text, or children."""
    out = stage(batch)
    if stage.kind in ("measure", "relate"):
        return pa.table(out)
    if stage.kind == "rewrite":
        return pa.Table.from_batches([out])
    return pa.Table.from_batches([out.slice(batch.num_rows)])


def rebuilt(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in buffers of their own that begin at 0."""
    return pa.RecordBatch.from_pylist(batch.to_pylist(), batch.schema)


@cases()
def test_a_stage_keeps_the_promise_of_its_kind(stage, batch):
    out = stage(batch)
    if stage.kind == "measure":
        assert {name: values.type for name, values in out.items()} == stage.signals
        assert {len(values) for values in out.values()} == {batch.num_rows}
    elif stage.kind == "relate":
        assert stage.cuts or out["digest"].type == pa.binary(16)
        assert {len(values) for values in out.values()} == {batch.num_rows}
    elif stage.kind == "rewrite":
        assert out.schema.equals(batch.schema)
        assert out.drop_columns("text").equals(batch.drop_columns("text"))
    else:
        assert out.schema.equals(batch.schema)
        assert out.slice(0, batch.num_rows).equals(batch)
        children = out.slice(batch.num_rows).to_pylist()
        parents = {row["doc_id"]: row for row in batch.to_pylist()}
        assert children and len({row["doc_id"] for row in children} | set(parents)) == out.num_rows
        for child in children:
            parent = parents[child["parent_id"]]
            assert parent["split"] == "train" and parent["parent_id"] is None
            assert {**child, "doc_id": "", "text": "", "parent_id": None} == {**parent, "doc_id": "", "text": ""}
    if stage.kind in ("rewrite", "extend"):
        assert out["text"].null_count == 0
    for values in out.values() if isinstance(out, dict) else out.columns:
        values.validate(full=True)


@cases()
def test_numbers_are_finite_or_null(stage, batch):
    for values in outcome(stage, batch).columns:
        if pa.types.is_floating(values.type):
            assert np.isfinite(values.drop_null().to_numpy()).all()


@cases()
def test_the_same_twice(stage, batch):
    assert outcome(stage, batch).equals(outcome(stage, batch))


@pytest.mark.parametrize("cuts", [[0.5], [0.1, 0.11, 0.7]])
@cases()
def test_a_batch_is_its_parts(stage, batch, cuts):
    edges = [0, *(int(cut * batch.num_rows) for cut in cuts), batch.num_rows]
    parts = [outcome(stage, batch.slice(a, b - a)) for a, b in pairwise(edges)]
    assert pa.concat_tables(parts).combine_chunks().equals(outcome(stage, batch).combine_chunks())


@cases()
def test_a_document_does_not_feel_its_neighbours(stage, batch):
    order = np.random.default_rng(1).permutation(batch.num_rows)
    shuffled = batch.take(pa.array(order))
    whole, out = outcome(stage, batch), outcome(stage, shuffled)
    if stage.kind == "extend":
        assert out.sort_by("doc_id").equals(whole.sort_by("doc_id"))
    else:
        assert out.equals(whole.take(pa.array(order)))


@cases()
def test_a_slice_is_as_good_as_a_copy(stage, batch):
    part = batch.slice(5, 17)
    assert outcome(stage, part).equals(outcome(stage, rebuilt(part)))


@cases()
def test_the_input_stays_as_it_was(stage, batch):
    mine = rebuilt(batch)
    before = mine.serialize().to_pybytes()
    stage(mine)
    assert mine.serialize().to_pybytes() == before and mine.equals(batch)


@cases()
def test_an_empty_batch_has_the_types_of_a_full_one(stage, batch):
    nothing, something = outcome(stage, batch.slice(0, 0)), outcome(stage, batch)
    assert nothing.num_rows == 0 and nothing.schema.equals(something.schema)
    assert outcome(stage, batch.slice(3, 0)).equals(nothing)


@cases("rewrite")
def test_rewriting_twice_is_rewriting_once(stage, batch):
    once = stage(batch)
    assert stage(once).equals(once)


def relation(
    stage: Stage,
    batch: pa.RecordBatch,
    parts: list[np.ndarray],
    gone: frozenset[str] = frozenset(),
    workspace: Workspace = UNBOUNDED,
):
    """(pairs, clusters) of a relating stage over a corpus cut into partitions of row numbers."""
    cut = [batch.take(pa.array(part)) for part in parts]
    sketches = []
    for number, documents in enumerate(cut):
        columns = {"doc_id": documents["doc_id"], **stage(documents)}
        columns["part"] = pa.array([number] * documents.num_rows, pa.int32())
        columns["row"] = pa.array(range(documents.num_rows), pa.int32())
        sketches.append(pa.table(columns))
    pairs = stage.compare(iter(sketches), lambda part, rows: cut[part]["text"].take(pa.array(rows)), workspace)
    met = pa.concat_tables(table.select(["doc_id", "digest"]) for table in sketches).sort_by("doc_id")
    met = met.filter(pa.array([doc_id not in gone for doc_id in met["doc_id"].to_pylist()], pa.bool_()))
    return pairs, stage.module.cluster(met, pairs, **stage.params)


@cases("relate")
def test_how_much_memory_there_is_decides_nothing(stage, batch, tmp_path):
    parts = np.array_split(np.random.default_rng(4).permutation(batch.num_rows), 3)
    expected, clusters = relation(stage, batch, parts)
    for memory in (1, 1 << 12, 1 << 30):
        (tmp_path / str(memory)).mkdir()
        workspace = Workspace(tmp_path / str(memory), memory, threads=memory % 7)
        pairs, found = relation(stage, batch, parts, workspace=workspace)
        assert pairs.equals(expected, check_metadata=True) and found.equals(clusters)


@cases("relate")
def test_one_survivor_in_each_cluster(stage, batch):
    _, found = relation(stage, batch, [np.arange(batch.num_rows)])
    assert {name: found.schema.field(name).type for name in stage.signals} == stage.signals
    assert found["doc_id"].to_pylist() == sorted(batch["doc_id"].to_pylist())
    rows = found.to_pylist()
    sizes = Counter(row["cluster"] for row in rows)
    assert max(sizes.values()) > 1
    for row in rows:
        first = row["dup_rank"] == 0
        assert row["cluster_size"] == sizes[row["cluster"]]
        assert (row["doc_id"] == row["cluster"]) == first == (row["dup_of"] is None)
        assert first or row["dup_of"] == row["cluster"] < row["doc_id"]
    ranks = Counter((row["cluster"], row["dup_rank"]) for row in rows)
    assert ranks == Counter((name, rank) for name, size in sizes.items() for rank in range(size))


@cases("relate")
def test_clusters_know_neither_order_nor_partition(stage, batch):
    pairs, found = relation(stage, batch, [np.arange(batch.num_rows)])
    order = np.random.default_rng(2).permutation(batch.num_rows)
    for parts in ([order], np.array_split(order, 3), [np.arange(0), order]):
        other_pairs, other = relation(stage, batch, parts)
        assert other_pairs.equals(pairs) and other.equals(found)


@cases("relate")
def test_clusters_are_formed_among_those_present(stage, batch):
    """Taking a survivor away makes the next one the survivor; the others' clusters do not move."""
    everyone = [np.arange(batch.num_rows)]
    _, found = relation(stage, batch, everyone)
    largest = max(found.to_pylist(), key=lambda row: row["cluster_size"])
    _, without = relation(stage, batch, everyone, frozenset([largest["cluster"]]))
    kept = [row for row in found.to_pylist() if row["cluster"] != largest["cluster"]]
    assert [row for row in without.to_pylist() if row["doc_id"] in {r["doc_id"] for r in kept}] == kept
    assert found["doc_id"].to_pylist() == sorted([*without["doc_id"].to_pylist(), largest["cluster"]])


@cases("relate")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_new_documents_are_held_against_old_ones_as_all_against_all(stage, batch, share):
    """Stored pairs and new ones are the pairs of everybody; who was there stays what he was, and only sizes grow."""
    if not stage.grows:
        pytest.skip("it cannot hold new documents against old ones, so no version with it is extended")
    order = np.random.default_rng(6).permutation(batch.num_rows)
    old = batch.take(pa.array(order[: int(share * len(order))]))
    whole, once = relation(stage, batch, [order])
    before, clusters = relation(stage, old, [np.arange(old.num_rows)])
    cut = [old, *(batch.take(pa.array(part)) for part in np.array_split(order[old.num_rows :], 2))]
    sketched = [stage(documents) for documents in cut]
    tables = []
    for number, (documents, columns) in enumerate(zip(cut, sketched, strict=True)):
        place = {
            "part": pa.array([number] * documents.num_rows, pa.int32()),
            "row": pa.array(range(documents.num_rows), pa.int32()),
        }
        tables.append(pa.table({"doc_id": documents["doc_id"], **columns, **place}))
    new = stage.compare_new(iter(tables), 1, lambda part, rows: sketched[part]["set"].take(pa.array(rows)), UNBOUNDED)
    pairs = pa.concat_tables([before.replace_schema_metadata(), new.replace_schema_metadata()])
    assert sorted(map(str, pairs.to_pylist())) == sorted(map(str, whole.to_pylist()))
    met = pa.concat_tables(table.select(["doc_id", "digest"]) for table in tables).sort_by("doc_id").combine_chunks()
    found, bridging = stage.cluster_new(met, pairs, clusters)
    if not old.num_rows:
        assert found.equals(once) and not len(bridging)
    was, rows = ({row["doc_id"]: row for row in table.to_pylist()} for table in (clusters, found))
    sizes = Counter(row["cluster"] for row in rows.values())
    for doc_id, row in rows.items():
        assert row["cluster_size"] == sizes[row["cluster"]] and (row["dup_rank"] == 0) == (row["cluster"] == doc_id)
        if doc_id in was:
            assert {**row, "cluster_size": 0} == {**was[doc_id], "cluster_size": 0}
    assert set(bridging.to_pylist()) <= rows.keys() - was.keys()
    ranks = Counter((row["cluster"], row["dup_rank"]) for row in rows.values())
    assert ranks == Counter((name, rank) for name, size in sizes.items() for rank in range(size))


@cases("relate")
def test_nobody_to_compare(stage, batch):
    pairs, found = relation(stage, batch.slice(0, 0), [np.arange(0)])
    assert pairs.num_rows == found.num_rows == 0
    assert stage.module.compare(iter([]), None, **stage.params).num_rows == 0


def lists(
    stage: Stage, batch: pa.RecordBatch, parts: list[np.ndarray], folder: Path, gone: frozenset[str] = frozenset()
) -> tuple[pa.Table, dict[str, list[tuple[int, int]]]]:
    """(signals, {doc_id: what is cut}) of a stage that cuts, over a corpus cut into partitions of row numbers."""
    cut = [batch.take(pa.array(part)) for part in parts]
    sketches, met = [], []
    for number, documents in enumerate(cut):
        place = {"doc_id": documents["doc_id"], "part": pa.array([number] * documents.num_rows, pa.int32())}
        place["row"] = pa.array(range(documents.num_rows), pa.int32())
        sketches.append(pa.table({**place, **stage(documents)}))
        met.append(pa.table({**place, "text_bytes": pc.binary_length(documents["text"]).cast(pa.int64())}))
    workspace = Workspace(folder / "spill", 1 << 12)

    def texts(part: int, rows: list[int]) -> pa.Array:
        return cut[part]["text"].take(pa.array(rows))

    found = [table.cast(stage.module.FOUND) for table in stage.compare(iter(sketches), texts, workspace)]
    whole = pa.concat_tables(met).sort_by("doc_id").combine_chunks()
    whole = whole.filter(pa.array([doc_id not in gone for doc_id in whole["doc_id"].to_pylist()], pa.bool_()))
    spans = stage.module.spans(whole, iter(found), **stage.params)
    gathered = list(cuts.gather(whole, len(parts), spans, workspace))
    assert [part for part, _ in gathered] == list(range(len(parts))) and not list(folder.glob("spill/*"))
    rows = [row for _, table in gathered for row in table.to_pylist()]
    said = {row["doc_id"]: list(zip(row["start"], row["end"], strict=True)) for row in rows}
    return cuts.signals(whole, gathered), said


@cases("cut")
def test_what_is_cut_lies_in_the_text_and_is_counted(stage, batch, tmp_path):
    found, spans = lists(stage, batch, [np.arange(batch.num_rows)], tmp_path)
    texts = {row["doc_id"]: row["text"].encode() for row in batch.to_pylist()}
    assert found["doc_id"].to_pylist() == sorted(texts)
    assert {name: found.schema.field(name).type for name in stage.signals} == stage.signals
    assert spans, "nothing was cut: the law was not tried"
    for row in found.to_pylist():
        mine, text = spans.get(row["doc_id"], []), texts[row["doc_id"]]
        assert row["cut_spans"] == len(mine) and row["cut_bytes"] == sum(end - start for start, end in mine)
        assert row["cut_share"] == round(row["cut_bytes"] / max(len(text), 1), 6)
        assert all(0 <= start < end <= len(text) for start, end in mine)
        assert all(before[1] < after[0] for before, after in pairwise(mine))
        for start, end in mine:
            text[start:end].decode(), text[:start].decode()


@cases("cut")
def test_cuts_know_neither_order_nor_partition(stage, batch, tmp_path):
    found, spans = lists(stage, batch, [np.arange(batch.num_rows)], tmp_path)
    order = np.random.default_rng(2).permutation(batch.num_rows)
    for parts in ([order], np.array_split(order, 3), [np.arange(0), order, np.arange(0)]):
        other, others = lists(stage, batch, parts, tmp_path)
        assert other.equals(found) and others == spans


@cases("cut")
def test_cuts_are_made_among_those_present(stage, batch, tmp_path):
    """As in a corpus that never had the others."""
    ids = batch["doc_id"].to_pylist()
    for gone in (frozenset(ids[::3]), frozenset(ids[1:]), frozenset(ids)):
        kept = np.flatnonzero([doc_id not in gone for doc_id in ids])
        alone = lists(stage, batch, [kept], tmp_path)
        assert lists(stage, batch, [np.arange(len(ids))], tmp_path, gone) == alone


@cases("cut")
def test_nothing_to_cut(stage, batch, tmp_path):
    found, spans = lists(stage, batch, [np.arange(0)], tmp_path)
    assert found.num_rows == 0 and spans == {}
    assert sum(t.num_rows for t in stage.compare(iter([]), None, Workspace(tmp_path, 1))) == 0
