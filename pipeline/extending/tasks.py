"""What a worker does where a version is extended: the four steps that see old and new documents, and the bridges.

    joined          the ledger of a segment's own rules: the old one, and behind it that of the new documents
    compare new     pairs of which at least one set is new, beside those that are stored
    cluster new     clusters in which the old documents stay what they are; and what a build at once would make of them
    survivors new   who is left: the old ones where they were, the new ones in the splits of those whom they resemble
    bridges         whose fate a build of everything at once would change

Of a partition that was there before, its sketches and signals are read: no text, and no table that holds any.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import relating, split, stage
from pipeline.books import BRIDGES
from pipeline.limits import Limits
from pipeline.relating import gone_of, named, without
from pipeline.rules import Rule
from pipeline.run import ContractError
from pipeline.schema import LEDGER
from pipeline.store import Store, Writing, read_group, read_parquet, read_rows, write_tables
from pipeline.threads import ahead

Spec = dict[str, Any]

BRIDGE = pa.schema([(name, pa.string()) for name in ("doc_id", "here", "at_once", "stage", "dup_of", "by")])
# Who would have left a relating stage in a build at once, and to whom.
ONCE = pa.schema([(name, pa.string()) for name in ("doc_id", "dup_of", "by")])
ONCE_FILE = "at-once.parquet"
BRIDGING = "bridges clusters"


def execute(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Do the task that a specification describes."""
    KINDS[spec["task"]](store, spec, out, limits)


def joined(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output ledger: that of `before`, then that of `new`."""
    tables = [_sound(store, spec[name], "ledger.parquet") for name in ("before", "new")]
    ledger = pa.concat_tables(tables).combine_chunks()
    out.table("ledger.parquet", ledger)
    out.result = {"left": ledger.num_rows}


def compare(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output pairs: those that are stored, and those of which at least one set is new."""
    bound, parts = stage.load(*spec["stage"]), spec["parts"]
    name = f"sketch-{bound.name}.parquet"

    def sketch(given: tuple[int, str]) -> pa.Table:
        number, key = given
        if number < spec["since"]:
            store.check(key, [name])
        table = read_parquet(store.file(key, name))
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        return table.append_column("row", pa.array(range(table.num_rows), pa.int32()))

    def stored(part: int, rows: list[int]) -> pa.ChunkedArray:
        # Believed as their digests say, which the sketches have.
        return read_rows(store.file(parts[part], f"sets-{bound.name}.parquet"), rows, "set")

    sketches: Iterator[pa.Table] = ahead(sketch, enumerate(parts), limits.threads)
    with relating.workspace_of(out, limits) as workspace:
        found = bound.compare_new(sketches, spec["since"], stored, workspace)
    before = _sound(store, spec["before"], "pairs.parquet")
    counts = [table.schema.metadata or {} for table in (before, found)]
    said = {key: str(sum(int(count.get(key, 0)) for count in counts)) for key in {**counts[0], **counts[1]}}
    pairs = pa.concat_tables([before.replace_schema_metadata(), found.replace_schema_metadata()])
    order = [(end, "ascending") for end in ("a", "b")]
    pairs = pairs.take(pc.sort_indices(pairs, order)).combine_chunks().replace_schema_metadata(said or None)
    out.table("pairs.parquet", pairs)
    out.result = {"pairs": pairs.num_rows}


def cluster(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs relation and ledger, in which old documents stay what they are, and who would have left at once."""
    bound, broken = stage.load(*spec["stage"]), [Rule(**table) for table in spec["rules"]]
    # The sketches were hashed again when they were compared.
    everyone = relating.met(store, spec["parts"], bound, pa.array([], pa.string()))
    pairs = read_parquet(store.file(spec["pairs"], "pairs.parquet"))
    before = _sound(store, spec["before"], "relation.parquet")
    plain = before.rename_columns([name.removeprefix(f"{bound.name}.") for name in before.column_names])
    here = without(everyone, gone_of(store, spec["ledgers"])).combine_chunks()
    relation, bridging = bound.cluster_new(here, pairs, plain)
    relation = named(bound.name, relation)
    new = relation.filter(pc.invert(pc.is_in(relation["doc_id"], before["doc_id"].combine_chunks())))
    gone = relating.judge(new, broken)
    forced = _bridging(bound.name, new, bridging, gone["doc_id"].combine_chunks())
    ledger = pa.concat_tables([_sound(store, spec["before"], "ledger.parquet"), gone, forced]).combine_chunks()
    once = without(everyone, pa.concat_arrays([gone_of(store, spec["judged"]), _gone_at_once(store, spec["once"])]))
    others = relating.clustered(bound, once.combine_chunks(), pairs)
    lost = relating.judge(others, broken)["doc_id"].combine_chunks()
    out.table("relation.parquet", relation)
    out.table("ledger.parquet", ledger)
    earlier = _earlier(store, spec["before"])
    came = relating.met(store, spec["parts"][spec["since"] :], bound, pa.array([], pa.string()))["doc_id"]
    out.table(ONCE_FILE, _lost(bound.name, others, lost, ledger["doc_id"].combine_chunks(), came, earlier))
    out.result = {"met": relation.num_rows, "left": ledger.num_rows}


def _bridging(name: str, new: pa.Table, ids: pa.Array, gone: pa.Array) -> pa.Table:
    """The ledger of new documents that hang together with several clusters, and that no rule dropped."""
    rows = new.filter(pc.and_(pc.is_in(new["doc_id"], ids), pc.invert(pc.is_in(new["doc_id"], gone))))
    words = [pa.array([word] * rows.num_rows, pa.string()) for word in (name, "dropped", BRIDGING)]
    detail = pc.binary_join_element_wise("dup_of", rows[f"{name}.cluster"].combine_chunks(), "=")
    return pa.table([rows["doc_id"].combine_chunks(), *words, detail], schema=LEDGER)


def _earlier(store: Store, key: str) -> dict[str, str]:
    """Of those whom a document of an earlier extension bridges: which."""
    done = store.done(key)
    if done is None or ONCE_FILE not in done["files"]:
        return {}
    return {row["doc_id"]: row["by"] for row in _sound(store, key, ONCE_FILE).to_pylist() if row["by"]}


def _lost(
    name: str, relation: pa.Table, lost: pa.Array, gone: pa.Array, new: pa.ChunkedArray, earlier: dict[str, str]
) -> pa.Table:
    """ONCE of those who would have left; `by` is said of those who have not: the first new document on the way, or
    the one of an earlier extension."""
    table = relation.filter(pc.is_in(relation["doc_id"], lost))
    dup_of = table[f"{name}.dup_of"].combine_chunks()
    by: list[str | None] = [None] * table.num_rows
    wanted = np.flatnonzero(pc.invert(pc.is_in(table["doc_id"], gone)).to_numpy())
    if wanted.size:
        fresh = set(new.to_pylist())
        steps = relation[f"{name}.via" if f"{name}.via" in relation.column_names else f"{name}.dup_of"].to_pylist()
        via = dict(zip(relation["doc_id"].to_pylist(), steps, strict=True))
        for row in wanted.tolist():
            step = table["doc_id"][row].as_py()
            while step is not None and step not in fresh:
                step = via[step]
            by[row] = step or earlier.get(table["doc_id"][row].as_py())
    return pa.table([table["doc_id"].combine_chunks(), dup_of, pa.array(by, pa.string())], schema=ONCE)


def _gone_at_once(store: Store, keys: list[str]) -> pa.Array:
    tables = [read_parquet(store.file(key, ONCE_FILE), ["doc_id"]) for key in keys]
    return pa.concat_tables([ONCE.empty_table().select(["doc_id"]), *tables])["doc_id"].combine_chunks()


def survivors(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output survivors: those of `before` as they were, then those of the new partitions with their splits."""
    since, parts = spec["since"], spec["parts"]
    store.check(spec["before"], ["survivors.parquet"])
    groups = [read_group(store.file(spec["before"], "survivors.parquet"), number) for number in range(since)]
    gone, tables = gone_of(store, spec["ledgers"]), []
    for number in range(since, len(parts)):
        table = read_parquet(store.file(parts[number], "documents.parquet"), ["doc_id", "split", "split_group"])
        digests = read_parquet(store.file(parts[number], "signals.parquet"), ["text_digest"])["text_digest"]
        table = table.append_column("part", pa.array([number] * table.num_rows, pa.int32()))
        table = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
        tables.append(table.append_column("text_digest", digests))
    left = without(pa.concat_tables(tables), gone).combine_chunks()
    if spec["assign"]:
        left = _assigned(store, spec, pa.concat_tables(groups), left)
    left = left.select(["part", "row", "doc_id", "split", "split_group"]).cast(groups[0].schema)
    ends = np.searchsorted(left["part"].to_numpy(), np.arange(since, len(parts)), side="right").tolist()
    groups += [left.slice(first, last - first) for first, last in itertools.pairwise([0, *ends])]
    write_tables(out.folder / "survivors.parquet", left.schema, groups)
    everyone = pa.concat_tables(groups)
    counted = {"documents": everyone.num_rows, "splits": dict(Counter(everyone["split"].to_pylist()))}
    out.result = counted if spec["assign"] else {}


def _assigned(store: Store, spec: Spec, old: pa.Table, new: pa.Table) -> pa.Table:
    """`new` with splits: of the old documents that they hang together with, or as a build gives them."""
    signals = [read_parquet(store.file(key, "signals.parquet"), ["doc_id", "text_digest"]) for key in spec["parts"]]
    digests = pa.concat_tables(signals)
    names = ["doc_id", "split", "split_group", "text_digest"]
    place = pc.index_in(old["doc_id"], digests["doc_id"].combine_chunks())
    there = old.select(names[:3]).append_column("text_digest", digests["text_digest"].take(place))
    relations = [
        read_parquet(store.file(key, "relation.parquet"), ["doc_id", f"{name}.cluster"]).rename_columns(
            ["doc_id", "cluster"]
        )
        for name, key in spec["relations"]
    ]
    there = there.filter(_linked(there, new, relations))
    whole = pa.concat_tables([there.cast(new.select(names).schema), new.select(names)]).combine_chunks()
    groups = split.assign(whole, relations, spec["shares"])
    had: dict[str, tuple[str, str]] = {}
    rows = zip(*(there[name].to_pylist() for name in names[1:3]), strict=True)
    for group, place_ in zip(groups["split_group"].slice(0, there.num_rows).to_pylist(), rows, strict=True):
        if had.setdefault(group, place_)[0] != place_[0]:
            raise ContractError(f"documents of the group {group} lie in two splits: {place_[0]} and {had[group][0]}")
    given = groups.slice(there.num_rows)
    own = zip(*(given[name].to_pylist() for name in names[1:3]), strict=True)
    found = [had.get(group, (name, group)) for name, group in own]
    for number, column in enumerate(names[1:3]):
        values = pa.array([row[number] for row in found], pa.string())
        new = new.set_column(new.schema.get_field_index(column), column, values)
    return new


def _linked(old: pa.Table, new: pa.Table, relations: list[pa.Table]) -> pa.ChunkedArray:
    """Which old documents have the text of a new one, or share a cluster with one."""
    linked = pc.is_in(old["text_digest"], new["text_digest"].combine_chunks())
    for relation in relations:
        mine = pc.is_in(relation["doc_id"], new["doc_id"].combine_chunks())
        shared = pc.is_in(relation["cluster"], relation["cluster"].filter(mine).combine_chunks())
        linked = pc.or_(linked, pc.is_in(old["doc_id"], relation["doc_id"].filter(shared).combine_chunks()))
    return linked


def bridges(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output bridges: who left in one of the two ways alone, by doc_id."""
    left = [
        (name, _ids(store, key, "ledger.parquet"), _ids(store, key, ONCE_FILE), key) for name, key in spec["relates"]
    ]
    here, once = (pa.concat_arrays([pa.array([], pa.string()), *(each[side] for each in left)]) for side in (1, 2))
    rows = []
    for name, ours, theirs, key in left:
        kept = theirs.filter(pc.invert(pc.is_in(theirs, here)))
        for row in _rows(store, key, ONCE_FILE, kept):
            rows.append({**row, "here": "kept", "at_once": "dropped", "stage": name})
        dropped = ours.filter(pc.invert(pc.is_in(ours, once)))
        for row in _rows(store, key, "relation.parquet", dropped):
            known = {"doc_id": row["doc_id"], "dup_of": row[f"{name}.dup_of"], "by": row["doc_id"]}
            rows.append({**known, "here": "dropped", "at_once": "kept", "stage": name})
    out.table(BRIDGES, pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["doc_id"])), BRIDGE))
    out.result = {"documents": len(rows)}


def _ids(store: Store, key: str, name: str) -> pa.Array:
    return read_parquet(store.file(key, name), ["doc_id"])["doc_id"].combine_chunks()


def _rows(store: Store, key: str, name: str, ids: pa.Array) -> list[dict[str, Any]]:
    """The rows of some documents."""
    if not len(ids):
        return []
    table = read_parquet(store.file(key, name))
    found: list[dict[str, Any]] = table.filter(pc.is_in(table["doc_id"], ids)).to_pylist()
    return found


def _sound(store: Store, key: str, name: str) -> pa.Table:
    """A table that was there before, hashed again before it is believed."""
    store.check(key, [name])
    return read_parquet(store.file(key, name))


KINDS: dict[str, Callable[[Store, Spec, Writing, Limits], None]] = {
    "joined": joined,
    "compare new": compare,
    "cluster new": cluster,
    "survivors new": survivors,
    "bridges": bridges,
}
