"""What a worker can be asked to do, each task known by a key alone.

    segment    one partition through the per-document stages up to the next barrier
    judge      the rules of a segment over its stored signals: the ledger
    pairs      a relating stage compares the sketches of all partitions: verified pairs
    cluster    clusters among the documents that pass, and the rules over them
    find, cut  the same two steps of a relating stage that cuts: what stands at several places, what goes (`cuts`)
    survivors  who is left behind a segment, and to which split each belongs
    vocabulary, encode, pack   from survivors to shards (`tokens.tasks`)

A task's arguments are the store's root and a key; its specification lies in the store
under that key, and so does its output. So a cluster needs to be sent nothing but paths.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import children, cuts, memory, rules, split, stage
from pipeline.catalog import cards
from pipeline.limits import DEFAULT, Limits, Workspace
from pipeline.rules import Rule
from pipeline.run import BORN, ContractError, run
from pipeline.schema import LEDGER
from pipeline.sources import Chunk, Item, read
from pipeline.store import Store, Writing, read_group, read_parquet, read_tables, write_tables
from pipeline.threads import ahead
from pipeline.tokens import tasks as tokens

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
    """Outputs documents, signals, errors, entered, and one sketch table for each relating stage behind."""
    stages = [stage.load(use, params) for use, params in spec["stages"]]
    sketches = [stage.load(use, params) for use, params in spec["sketches"]]
    chunks = _from_source(spec["source"]) if "source" in spec else _from_segment(store, spec["upstream"])
    outcome = run(chunks, stages, sketches, limits.batch_rows, licence=spec["licence"])
    out.table("documents.parquet", outcome.documents)
    out.table("signals.parquet", outcome.signals)
    out.table("errors.parquet", outcome.errors)
    out.table("entered.parquet", outcome.entered)
    for name, table in outcome.sketches.items():
        out.table(f"sketch-{name}.parquet", table)
    out.result = {
        "entered": outcome.entered.num_rows,
        "text_bytes": pc.sum(outcome.entered["text_bytes"]).as_py() or 0,
        "documents": outcome.documents.num_rows,
        "added": outcome.added,
        "errors": outcome.errors.num_rows,
    }


def _from_source(spec: Spec) -> Iterator[Chunk]:
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
        lists = read_parquet(store.file(by["cuts"], cuts.file(spec["number"])))
        documents, emptied = cuts.apply(documents, left["row"].to_numpy(), lists, by["stage"])
        yield Chunk(pa.RecordBatch.from_pylist([], documents.schema), emptied)
    for batch in documents.to_batches():
        yield Chunk(batch, rejects)


def judge(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output ledger: the errors of the segment, the documents that broke a rule, and children that may not stay."""
    broken = [_rule(table) for table in spec["rules"]]
    names = ["doc_id", "parent_id", BORN, "text_digest", *sorted({rule.signal for rule in broken})]

    def judged(key: str) -> tuple[pa.Table, pa.Table, pa.Table]:
        signals = read_parquet(store.file(key, "signals.parquet"), names)
        gone = rules.judge(signals, broken, exempt=children.not_born(spec["order"]))
        return read_parquet(store.file(key, "errors.parquet")), signals, gone

    ledgers, ids, born, others = [LEDGER.empty_table()], [], [], []
    parts = ahead(judged, spec["parts"], limits.threads)
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
        ledgers += _children(pa.concat_tables(born), pa.concat_tables(others), pa.concat_tables(ledgers), spec["order"])
    ledger = pa.concat_tables(ledgers).combine_chunks()
    out.table("ledger.parquet", ledger)
    out.result = {"left": ledger.num_rows}


def _children(born: pa.Table, others: pa.Table, gone: pa.Table, order: list[str]) -> list[pa.Table]:
    """Ledgers of the children that leave for another reason than a rule of their own."""
    copies = children.copies(born, others, order)
    left = pa.chunked_array([*gone["doc_id"].chunks, *copies["doc_id"].chunks], pa.string())
    return [copies, children.orphans(born, left.combine_chunks(), order)]


def _check_unique(ids: list[pa.ChunkedArray]) -> None:
    counts = pc.value_counts(pa.chunked_array([c for column in ids for c in column.chunks], pa.string()))
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ContractError(
            f"document id {twice[0]['values'].as_py()!r} occurs twice; ids must be unique over all sources"
        )


def pairs(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output pairs: what the relating stage found among all documents that entered, verified."""
    relating = stage.load(*spec["stage"])
    sketches = _sketches(store, spec["parts"], relating.name, limits)
    with _workspace(out, limits) as workspace:
        found = relating.compare(sketches, _texts(store, spec["parts"]), workspace)
    out.table("pairs.parquet", found)
    out.result = {"pairs": found.num_rows}


def find(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output pairs: what a stage that cuts found among all documents that entered, as it comes."""
    relating = stage.load(*spec["stage"])
    sketches = _sketches(store, spec["parts"], relating.name, limits)
    with _workspace(out, limits) as workspace:
        found = relating.compare(sketches, _texts(store, spec["parts"]), workspace)
        rows = write_tables(out.folder / "pairs.parquet", relating.module.FOUND, found)
    out.result = {"pairs": rows}


@contextlib.contextmanager
def _workspace(out: Writing, limits: Limits) -> Iterator[Workspace]:
    """Room for what is put aside while a task runs, cleared behind it."""
    workspace = Workspace(out.folder / "spill", limits.memory, limits.threads)
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace.folder, ignore_errors=True)


def _texts(store: Store, parts: list[str]) -> Callable[[int, list[int]], pa.Array]:
    """Gives the texts of some rows of a partition."""

    def texts(part: int, rows: list[int]) -> pa.Array:
        table = read_parquet(store.file(parts[part], "documents.parquet"), ["text"])
        return table["text"].take(pa.array(rows)).combine_chunks()

    return texts


def _sketches(store: Store, parts: list[str], name: str, limits: Limits) -> Iterator[pa.Table]:
    """Sketch tables with `part` and `row` of each document, one partition at a time."""

    def placed(given: tuple[int, str]) -> pa.Table:
        number, key = given
        table = read_parquet(store.file(key, f"sketch-{name}.parquet"))
        documents = read_parquet(store.file(key, "documents.parquet"), ["doc_id"])["doc_id"].combine_chunks()
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        return table.append_column("row", pc.index_in(table["doc_id"], documents).cast(pa.int32()))

    return ahead(placed, enumerate(parts), limits.threads)


def cluster(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs relation (the relating stage's signals of every document that it met) and ledger."""
    relating = stage.load(*spec["stage"])
    gone = _gone(store, spec["ledgers"])
    met = []
    for key in spec["parts"]:
        table = read_parquet(store.file(key, f"sketch-{relating.name}.parquet"), ["doc_id", *relating.clustered])
        if relating.reads:
            # A partition's signals and sketches have its documents in one order.
            signals = read_parquet(store.file(key, "signals.parquet"), relating.reads)
            for name in relating.reads:
                table = table.append_column(name, signals[name])
        met.append(table)
    documents = pa.concat_tables(met)
    documents = _without(documents, gone).sort_by("doc_id").combine_chunks()
    found = read_parquet(store.file(spec["pairs"], "pairs.parquet"))
    relation = relating.cluster(documents, found)
    if not relation["doc_id"].combine_chunks().equals(documents["doc_id"].combine_chunks()):
        raise ContractError(f"stage {relating.name}: cluster() must return one row for each document, in their order")
    _conclude(out, relating.name, relation, spec["rules"])


def _conclude(out: Writing, name: str, relation: pa.Table, broken: list[Spec]) -> None:
    """Write a relating stage's signals and the ledger of those who broke its rules over them."""
    named = relation.rename_columns([n if n == "doc_id" else f"{name}.{n}" for n in relation.column_names])
    ledger = rules.judge(named, [_rule(table) for table in broken], detail=_relation_detail)
    out.table("relation.parquet", named)
    out.table("ledger.parquet", ledger)
    out.result = {"met": relation.num_rows, "left": ledger.num_rows}


def cut(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs what goes from each partition, relation (the signals of every document that was met) and ledger."""
    relating = stage.load(*spec["stage"])
    documents = _met(store, spec)
    found = read_tables(store.file(spec["pairs"], "pairs.parquet"))
    with _workspace(out, limits) as workspace:
        spans = relating.module.spans(documents, found, **relating.params)
        relation = cuts.signals(documents, _kept(out, cuts.gather(documents, len(spec["parts"]), spans, workspace)))
    _conclude(out, relating.name, relation, spec["rules"])
    touched = relation.filter(pc.greater(relation["cut_bytes"], 0))
    counts = {name: pc.sum(touched[f"cut_{name}"]).as_py() or 0 for name in ("bytes", "spans")}
    out.result |= {"documents": touched.num_rows, **counts}


def _met(store: Store, spec: Spec) -> pa.Table:
    """doc_id (ascending), part, row and text_bytes of the documents that are still here."""
    gone = _gone(store, spec["ledgers"])
    tables = []
    for number, key in enumerate(spec["parts"]):
        table = read_parquet(store.file(key, "signals.parquet"), ["doc_id", "text_bytes"])
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        tables.append(table.append_column("row", pa.array(range(table.num_rows), pa.int64())))
    return _without(pa.concat_tables(tables), gone).sort_by("doc_id").combine_chunks()


def _kept(out: Writing, lists: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    """The same tables, each written before it goes on."""
    for part, table in lists:
        out.table(cuts.file(part), table)
        yield part, table


def _relation_detail(rule: Rule, table: pa.Table) -> pa.Array:
    """'dup_of=ID jaccard=0.87': why a document lost to another."""
    words = [rules.described(rule.column, table[rule.signal].combine_chunks())]
    for name in ("dup_of", "jaccard", "via", "via_jaccard"):
        if f"{rule.stage}.{name}" in table.column_names:
            words.append(rules.described(name, table[f"{rule.stage}.{name}"].combine_chunks()))
    return pc.binary_join_element_wise(*words, " ", null_handling="skip")


def survivors(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output survivors: part, row, doc_id, split and split group of every document still here."""
    gone = _gone(store, spec["ledgers"])
    tables = []
    for number, key in enumerate(spec["parts"]):
        columns = ["doc_id", "split", "split_group"]
        documents = read_parquet(store.file(key, "documents.parquet"), columns)
        digests = read_parquet(store.file(key, "signals.parquet"), ["text_digest"])
        rows = pa.array(range(documents.num_rows), pa.int64())
        parts = pa.array([number] * documents.num_rows, pa.int32())
        table = documents.append_column("part", parts).append_column("row", rows)
        tables.append(table.append_column("text_digest", digests["text_digest"]))
    left = _without(pa.concat_tables(tables), gone).combine_chunks()
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


def _gone(store: Store, ledgers: list[str]) -> pa.Array:
    tables = [read_parquet(store.file(key, "ledger.parquet"), ["doc_id"]) for key in ledgers]
    return pa.concat_tables([LEDGER.empty_table().select(["doc_id"]), *tables])["doc_id"].combine_chunks()


def _without(table: pa.Table, gone: pa.Array) -> pa.Table:
    """The rows of those who are not gone. For the whole corpus at once: the set is laid out anew at each call."""
    return table.filter(pc.invert(pc.is_in(table["doc_id"], gone)))


def _rule(table: Spec) -> Rule:
    return Rule(**table)


ONE_PARTITION = ("segment", "encode")
KINDS: dict[str, Callable[[Store, Spec, Writing, Limits], None]] = {
    "segment": segment,
    "judge": judge,
    "pairs": pairs,
    "cluster": cluster,
    "find": find,
    "cut": cut,
    "survivors": survivors,
    "vocabulary": tokens.train_vocabulary,
    "encode": tokens.encode,
    "pack": tokens.pack_shards,
}
