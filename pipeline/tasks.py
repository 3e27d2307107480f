"""What a worker can be asked to do, each task known by a key alone.

    segment    one partition through the per-document stages up to the next barrier
    judge      the rules of a segment over its stored signals: the ledger
    survivors  who is left behind a segment, and to which split each belongs
    pairs, cluster, find, cut   what looks across partitions (`relating`)
    joined, compare new, cluster new, survivors new, bridges   where a version is extended (`extending.tasks`)
    canaries   every rule tried on documents made for it (`canaries`)
    vocabulary, encode, pack    from survivors to shards (`tokens`)
    mix        how often each document of train stands (`mixing`)

A task's arguments are the store's root and a key; its specification lies in the store
under that key, and so does its output. So a cluster needs to be sent nothing but paths.
"""

from __future__ import annotations

import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import children, cuts, memory, relating, rules, split, stage
from pipeline.catalog import cards
from pipeline.limits import DEFAULT, Limits
from pipeline.relating import gone_of, without
from pipeline.rules import Rule
from pipeline.run import BORN, ContractError, run
from pipeline.schema import LEDGER, cuts_file
from pipeline.sources import Chunk, Item, read
from pipeline.store import Store, Writing, read_group, read_parquet, write_tables
from pipeline.tokens import encoded, shards, trained

Spec = dict[str, Any]


def execute(root: str, key: str, limits: Limits = DEFAULT) -> str:
    """Do the task that is written under `key`, unless its output stands already. Returns the key."""
    store = Store(Path(root))
    if store.done(key) is None:
        spec = store.spec(key)
        if spec["task"] not in ONE_PARTITION:
            memory.forget()
        with store.writing(key) as out:
            KINDS[spec["task"]](store, spec, out, limits)
        memory.give_back()
    return key


def segment(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs documents, signals, errors, entered, and one sketch table for each relating stage behind; a sketch's
    column `set` is a table of its own, for few of its rows are ever read."""
    stages = [stage.load(use, params) for use, params in spec["stages"]]
    sketches = [stage.load(use, params) for use, params in spec["sketches"]]
    chunks = from_source(spec["source"]) if "source" in spec else _from_segment(store, spec["upstream"])
    outcome = run(chunks, stages, sketches, limits.batch_rows, licence=spec["licence"])
    out.table("documents.parquet", outcome.documents)
    out.table("signals.parquet", outcome.signals)
    out.table("errors.parquet", outcome.errors)
    out.table("entered.parquet", outcome.entered)
    for name, table in outcome.sketches.items():
        if "set" in table.column_names:
            out.table(f"sets-{name}.parquet", table.select(["doc_id", "set"]))
            table = table.drop_columns(["set"])
        out.table(f"sketch-{name}.parquet", table)
    out.result = {
        "entered": outcome.entered.num_rows,
        "text_bytes": pc.sum(outcome.entered["text_bytes"]).as_py() or 0,
        "documents": outcome.documents.num_rows,
        "added": outcome.added,
        "errors": outcome.errors.num_rows,
    }


def from_source(spec: Spec) -> Iterator[Chunk]:
    """The documents of some items of a source, with the language that its card alone may say."""
    card = cards.Card.model_validate(spec["card"])
    language = card.languages[0] if len(card.languages) == 1 and card.languages[0] != "mul" else None
    for table in spec["items"]:
        for chunk in read(card, Item.from_dict(table)):
            documents = chunk.documents
            if language:
                documents = documents.append_column("language", pa.array([language] * documents.num_rows, pa.string()))
            yield Chunk(documents, chunk.rejects)


def _from_segment(store: Store, spec: Spec) -> Iterator[Chunk]:
    """The survivors of one partition of the segment before, with their split."""
    documents = read_parquet(store.file(spec["part"], "documents.parquet"))
    left = read_group(store.file(spec["survivors"], "survivors.parquet"), spec["number"])
    documents = documents.take(left["row"])
    for name in ("split", "split_group"):
        documents = documents.set_column(documents.schema.get_field_index(name), name, left[name])
    rejects = pa.RecordBatch.from_pylist([], LEDGER)
    if by := spec.get("cut_by"):
        lists = read_parquet(store.file(by["cuts"], cuts_file(spec["number"])))
        documents, emptied = cuts.apply(documents, left["row"].to_numpy(), lists, by["stage"])
        yield Chunk(pa.RecordBatch.from_pylist([], documents.schema), emptied)
    for batch in documents.to_batches():
        yield Chunk(batch, rejects)


def judge(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output ledger: the errors of the segment, the documents that broke a rule, and children that may not stay."""
    broken = [Rule(**table) for table in spec["rules"]]
    names = ["doc_id", "parent_id", BORN, "text_digest", *sorted({rule.signal for rule in broken})]

    def judged(key: str) -> tuple[pa.Table, pa.Table, pa.Table]:
        signals = read_parquet(store.file(key, "signals.parquet"), names)
        gone = rules.judge(signals, broken, exempt=children.not_born(spec["order"]))
        return read_parquet(store.file(key, "errors.parquet")), signals, gone

    ledgers, ids, born, others = [LEDGER.empty_table()], [], [], []
    parts = map(judged, spec["parts"])
    for key, (errors, signals, gone) in zip(spec["parts"], parts, strict=True):
        ledgers += [errors, gone]
        ids += [errors["doc_id"], signals["doc_id"]]
        if store.result(key)["added"]:
            split = read_parquet(store.file(key, "documents.parquet"), ["split"])["split"]
            placed = signals.select(names[:4]).append_column("split", split)
            placed = placed.filter(pc.invert(pc.is_in(placed["doc_id"], gone["doc_id"].combine_chunks())))
            is_child = pc.greater(placed[BORN], 0)
            born.append(placed.filter(is_child))
            others.append(placed.filter(pc.invert(is_child)))
    _check_unique(ids)
    if born:
        gone = pa.concat_tables(ledgers)
        ledgers += children.leaving(pa.concat_tables(born), pa.concat_tables(others), gone, spec["order"])
    ledger = pa.concat_tables(ledgers).combine_chunks()
    out.table("ledger.parquet", ledger)
    out.result = {"left": ledger.num_rows}


def _check_unique(ids: list[pa.ChunkedArray]) -> None:
    counts = pc.value_counts(pa.chunked_array([c for column in ids for c in column.chunks], pa.string()))
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ContractError(
            f"document id {twice[0]['values'].as_py()!r} occurs twice; ids must be unique over all sources"
        )


def survivors(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output survivors: part, row, doc_id, split and split group of every document still here."""
    gone = gone_of(store, spec["ledgers"])
    tables = []
    for number, key in enumerate(spec["parts"]):
        columns = ["doc_id", "split", "split_group"]
        documents = read_parquet(store.file(key, "documents.parquet"), columns)
        digests = read_parquet(store.file(key, "signals.parquet"), ["text_digest"])
        rows = pa.array(range(documents.num_rows), pa.int64())
        parts = pa.array([number] * documents.num_rows, pa.int32())
        table = documents.append_column("part", parts).append_column("row", rows)
        tables.append(table.append_column("text_digest", digests["text_digest"]))
    left = without(pa.concat_tables(tables), gone).combine_chunks()
    if spec["assign"]:
        relations = [
            read_parquet(store.file(key, "relation.parquet"), ["doc_id", f"{name}.cluster"]).rename_columns(
                ["doc_id", "cluster"]
            )
            for name, key in spec["relations"]
        ]
        left = split.assign(left, relations, spec["shares"])
    left = left.select(["part", "row", "doc_id", "split", "split_group"])
    # A row group a partition, so that who goes on with one reads no others.
    ends = np.searchsorted(left["part"].to_numpy(), np.arange(len(tables)), side="right").tolist()
    groups = (left.slice(first, last - first) for first, last in itertools.pairwise([0, *ends]))
    write_tables(out.folder / "survivors.parquet", left.schema, groups)
    out.result = (
        {"documents": left.num_rows, "splits": dict(Counter(left["split"].to_pylist()))} if spec["assign"] else {}
    )


def canaries(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """The result says how every rule of a recipe came out."""
    # Found by name, so that its code is no part of what decides the key of a segment.
    importlib.import_module("pipeline.canaries").execute(store, spec, out, limits)


def mix(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """How often each document of train stands."""
    importlib.import_module("pipeline.mixing").mixed(store, spec, out, limits)


def extending(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """What looks at old and new documents where a version is extended."""
    importlib.import_module("pipeline.extending.tasks").execute(store, spec, out, limits)


ONE_PARTITION = ("segment", "encode")
KINDS: dict[str, Callable[[Store, Spec, Writing, Limits], None]] = {
    "canaries": canaries,
    "segment": segment,
    "judge": judge,
    "pairs": relating.pairs,
    "cluster": relating.cluster,
    "find": relating.find,
    "cut": relating.cut,
    "survivors": survivors,
    "vocabulary": trained.train_vocabulary,
    "encode": encoded.encode,
    "mix": mix,
    "pack": shards.pack_shards,
    **dict.fromkeys(("joined", "compare new", "cluster new", "survivors new", "bridges"), extending),
}
