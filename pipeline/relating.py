"""Tasks that look across partitions: what is alike, who belongs together, what is cut.

pairs      what a relating stage found among all documents that entered, verified
cluster    clusters among the documents that pass, and the rules over them
find, cut  the same two steps of a relating stage that cuts: what stands at several places, what goes (`cuts`)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import cuts, rules, stage
from pipeline.limits import Limits, Workspace
from pipeline.rules import Rule
from pipeline.run import ContractError
from pipeline.schema import LEDGER, REPORT_FILE, cuts_file
from pipeline.store import Store, Writing, read_parquet, read_tables, write_tables
from pipeline.threads import ahead

Spec = dict[str, Any]


def pairs(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output pairs: what the relating stage found among all documents that entered, verified."""
    relating = stage.load(*spec["stage"])
    sketches = _sketches(store, spec["parts"], relating.name, limits)
    with workspace_of(out, limits) as workspace:
        found = relating.compare(sketches, _texts(store, spec["parts"]), workspace)
    out.table("pairs.parquet", found)
    out.result = {"pairs": found.num_rows}


def find(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output pairs: what a stage that cuts found among all documents that entered, as it comes."""
    relating = stage.load(*spec["stage"])
    sketches = _sketches(store, spec["parts"], relating.name, limits)
    with workspace_of(out, limits) as workspace:
        found = relating.compare(sketches, _texts(store, spec["parts"]), workspace)
        rows = write_tables(out.folder / "pairs.parquet", relating.module.FOUND, found)
    out.result = {"pairs": rows}


@contextlib.contextmanager
def workspace_of(out: Writing, limits: Limits) -> Iterator[Workspace]:
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

    def at(given: tuple[int, str]) -> pa.Table:
        number, key = given
        table = read_parquet(store.file(key, f"sketch-{name}.parquet"))
        documents = read_parquet(store.file(key, "documents.parquet"), ["doc_id"])["doc_id"].combine_chunks()
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        return table.append_column("row", pc.index_in(table["doc_id"], documents).cast(pa.int32()))

    return ahead(at, enumerate(parts), limits.threads)


def cluster(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs relation (the relating stage's signals of every document that it met) and ledger."""
    relating = stage.load(*spec["stage"])
    documents = met(store, spec["parts"], relating, gone_of(store, spec["ledgers"]))
    found = read_parquet(store.file(spec["pairs"], "pairs.parquet"))
    relation = clustered(relating, documents, found)
    _conclude(out, relation, [Rule(**table) for table in spec["rules"]])


def met(store: Store, parts: list[str], relating: stage.Stage, gone: pa.Array) -> pa.Table:
    """What `cluster` reads of the documents that are still here, by doc_id."""
    tables = []
    for key in parts:
        table = read_parquet(store.file(key, f"sketch-{relating.name}.parquet"), ["doc_id", *relating.clustered])
        if relating.reads:
            # A partition's signals and sketches have its documents in one order.
            signals = read_parquet(store.file(key, "signals.parquet"), relating.reads)
            for name in relating.reads:
                table = table.append_column(name, signals[name])
        tables.append(table)
    return without(pa.concat_tables(tables), gone).sort_by("doc_id").combine_chunks()


def clustered(relating: stage.Stage, documents: pa.Table, pairs: pa.Table) -> pa.Table:
    """The signals of a relating stage for `documents`, named by it. Raises ContractError where it loses one."""
    relation = relating.cluster(documents, pairs)
    if not relation["doc_id"].combine_chunks().equals(documents["doc_id"].combine_chunks()):
        raise ContractError(f"stage {relating.name}: cluster() must return one row for each document, in their order")
    return named(relating.name, relation)


def named(stage: str, relation: pa.Table) -> pa.Table:
    """A relation with the stage's name before each of its signals."""
    return relation.rename_columns([n if n == "doc_id" else f"{stage}.{n}" for n in relation.column_names])


def judge(relation: pa.Table, broken: Sequence[Rule]) -> pa.Table:
    """The ledger of those who break a relating stage's rules over its signals."""
    return rules.judge(relation, broken, detail=_relation_detail)


def _conclude(out: Writing, relation: pa.Table, broken: Sequence[Rule]) -> None:
    """Write a relating stage's signals and the ledger of those who broke its rules over them."""
    ledger = judge(relation, broken)
    out.table("relation.parquet", relation)
    out.table("ledger.parquet", ledger)
    out.result = {"met": relation.num_rows, "left": ledger.num_rows}


def cut(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs what goes from each partition, relation (the signals of every document that was met) and ledger; and what
    a stage reports that has a `report`."""
    relating = stage.load(*spec["stage"])
    documents = placed(store, spec["parts"], gone_of(store, spec["ledgers"]))
    found = read_tables(store.file(spec["pairs"], "pairs.parquet"))
    with workspace_of(out, limits) as workspace:
        spans = relating.module.spans(documents, found, **relating.params)
        relation = cuts.signals(documents, _kept(out, cuts.gather(documents, len(spec["parts"]), spans, workspace)))
    _conclude(out, named(relating.name, relation), [Rule(**table) for table in spec["rules"]])
    touched = relation.filter(pc.greater(relation["cut_bytes"], 0))
    counts = {name: pc.sum(touched[f"cut_{name}"]).as_py() or 0 for name in ("bytes", "spans")}
    out.result |= {"documents": touched.num_rows, **counts}
    if report := getattr(relating.module, "report", None):
        found = read_tables(store.file(spec["pairs"], "pairs.parquet"))
        table, out.result["report"] = report(documents, found, **relating.params)
        out.table(REPORT_FILE, table)


def placed(store: Store, parts: list[str], gone: pa.Array) -> pa.Table:
    """doc_id (ascending), part, row and text_bytes of the documents that are still here."""
    tables = []
    for number, key in enumerate(parts):
        table = read_parquet(store.file(key, "signals.parquet"), ["doc_id", "text_bytes"])
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        tables.append(table.append_column("row", pa.array(range(table.num_rows), pa.int64())))
    return without(pa.concat_tables(tables), gone).sort_by("doc_id").combine_chunks()


def _kept(out: Writing, lists: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    """The same tables, each written before it goes on."""
    for part, table in lists:
        out.table(cuts_file(part), table)
        yield part, table


def _relation_detail(rule: Rule, table: pa.Table) -> pa.Array:
    """'dup_of=ID jaccard=0.87': why a document lost to another."""
    # Arrow loses a row of which every word is null, so none is.
    words = [pa.array([""] * table.num_rows, pa.string())]
    words.append(rules.described(rule.column, table[rule.signal].combine_chunks()))
    for name in ("dup_of", "jaccard", "via", "via_jaccard"):
        if f"{rule.stage}.{name}" in table.column_names:
            words.append(rules.described(name, table[f"{rule.stage}.{name}"].combine_chunks()))
    said = pc.utf8_ltrim_whitespace(pc.binary_join_element_wise(*words, " ", null_handling="skip"))
    return pc.if_else(pc.equal(said, ""), None, said)


def gone_of(store: Store, ledgers: list[str]) -> pa.Array:
    tables = [read_parquet(store.file(key, "ledger.parquet"), ["doc_id"]) for key in ledgers]
    return pa.concat_tables([LEDGER.empty_table().select(["doc_id"]), *tables])["doc_id"].combine_chunks()


def without(table: pa.Table, gone: pa.Array) -> pa.Table:
    """The rows of those who are not gone. For the whole corpus at once: the set is laid out anew at each call."""
    return table.filter(pc.invert(pc.is_in(table["doc_id"], gone)))
