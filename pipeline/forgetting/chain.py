"""Every output behind a version without some documents: stripped where that says all, built where others move up.

Where a whole cluster goes, nothing else moves: each output is stripped and no stage is run. With `only`, a duplicate
may take the place of a survivor: clusters are formed again from the stored pairs, and what comes behind them is built
for whoever comes or goes. The tokenizer stays, and so do the splits of all who were there: no row changes sides.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plan
from pipeline.books import FORGOTTEN, BuildKeys, SegmentKeys
from pipeline.build import Mill
from pipeline.digests import digest, source_digest
from pipeline.forgetting.stripping import Stripper
from pipeline.recipe import Recipe
from pipeline.schema import LEDGER, ledger
from pipeline.stage import ConfigError
from pipeline.store import Store, read_group, read_parquet, write_tables

STAGE = "forget"
LIST = pa.schema([("doc_id", pa.string()), ("by", pa.string()), ("operation", pa.int32())])


def chain(mill: Mill, recipe: Recipe, old: BuildKeys, chosen: pa.Table, why: str, only: bool) -> BuildKeys:
    """The keys of the version without `chosen` (doc_id, by); whoever stays in it stays as it was.

    Raises ConfigError where a duplicate cannot take a place without a leak between splits.
    """
    store, gone = mill.store, chosen["doc_id"].combine_chunks()
    strip = Stripper(store, gone)
    keys = BuildKeys([], vocabulary=old.vocabulary, forgotten=_written(store, old, chosen, why))
    keys.bridges = strip.bridges(old.bridges) if old.bridges else ""
    moved = anew = False
    for number, segment in enumerate(old.segments):
        anew = moved
        keys.segments.append(_again(mill, recipe, keys, number) if anew else _stripped(mill, strip, segment, number))
        here = keys.segments[-1]
        for step, relate in zip(recipe.segments[number].relates, segment.relates, strict=True):
            pairs = relate["pairs"]
            pairs = plan.pairs_task(store, step, here.parts) if anew else strip.pairs(pairs, relate["stage"], segment)
            cluster = strip.relation(relate["cluster"], segment)
            if moved or (only and "cuts" not in relate and _in_clusters(store, relate, gone)):
                mill.do(f"compare: {relate['stage']}", [pairs] if anew else [])
                was, cluster = cluster, plan.cluster_task(store, step, here.parts, pairs, here.ledgers)
                mill.do(f"cluster: {relate['stage']}", [cluster])
                moved = moved or not _same_ids(store, "ledger.parquet", cluster, was)
            here.relates.append({"stage": relate["stage"], "pairs": pairs, "cluster": cluster})
            if "cuts" in relate:
                here.relates[-1]["cuts"] = cluster
        if moved:
            here.survivors = _survivors(mill, recipe, number, keys, old)
        else:
            here.survivors = strip.survivors(segment.survivors, segment)
    keys.encoded = _encoded(mill, recipe, keys, old, strip, moved, anew)
    keys.mix = strip.mixed(old.mix) if old.mix else ""
    keys.packed = _packed(mill, recipe, keys, old, anew)
    return keys


def _stripped(mill: Mill, strip: Stripper, segment: SegmentKeys, number: int) -> SegmentKeys:
    """What a segment measured and judged, without those who go."""
    mill.progress.phase(f"take out of segment {number}", len(segment.parts))
    here = SegmentKeys([], strip.ledger(segment.judge))
    for key in segment.parts:
        here.parts.append(strip.part(key, number))
        mill.progress.advance()
    return here


def _again(mill: Mill, recipe: Recipe, keys: BuildKeys, number: int) -> SegmentKeys:
    """A segment that somebody else comes to, or comes to no more: measured and judged as in any build."""
    last, planned = keys.segments[-1], recipe.segments[number]
    parts = plan.segment_tasks(mill.store, recipe, planned, number, last.parts, last.survivors, last.cuts)
    mill.do("go on", parts)
    here = SegmentKeys(parts, plan.judge_task(mill.store, recipe, planned, number, parts))
    mill.do("judge", [here.judge])
    return here


def _written(store: Store, old: BuildKeys, chosen: pa.Table, why: str) -> str:
    """Who was forgotten, by what and in which operation, and the ledger of those who came from a source."""
    before = read_parquet(store.file(old.forgotten, FORGOTTEN)) if old.forgotten else LIST.empty_table()
    number = (pc.max(before["operation"]).as_py() + 1) if before.num_rows else 0
    mine = chosen.append_column("operation", pa.array([number] * chosen.num_rows, pa.int32())).cast(LIST)
    everyone = pa.concat_tables([before, mine]).combine_chunks()
    booked = [read_parquet(store.file(old.forgotten, "ledger.parquet"))] if old.forgotten else []
    for key in old.segments[0].parts:
        came = read_parquet(store.file(key, "entered.parquet"), ["doc_id"])["doc_id"].combine_chunks()
        rows = chosen.filter(pc.is_in(chosen["doc_id"], came)).to_pylist()
        said = [(row["doc_id"], f"{row['by']}; {why}" if why else row["by"]) for row in rows]
        known = {"stage": STAGE, "verdict": "dropped", "reason": "forgotten"}
        booked.append(pa.Table.from_batches([ledger({"doc_id": i, **known, "detail": detail} for i, detail in said)]))
    table = pa.concat_tables([LEDGER.empty_table(), *booked]).sort_by("doc_id").combine_chunks()
    key = digest(["forgotten", source_digest(__name__), everyone.to_pylist(), table.to_pylist()])
    store.plan(key, {"task": "forgotten", "documents": everyone.num_rows})
    if store.done(key) is None:
        with store.writing(key) as out:
            out.table(FORGOTTEN, everyone)
            out.table("ledger.parquet", table)
            out.result = {"documents": everyone.num_rows, "left": table.num_rows}
    return key


def _in_clusters(store: Store, relate: dict[str, str], gone: pa.Array) -> bool:
    """Whether any of those who go has duplicates in this stage."""
    size = f"{relate['stage']}.cluster_size"
    table = read_parquet(store.file(relate["cluster"], "relation.parquet"), ["doc_id", size])
    return bool(pc.any(pc.greater(table.filter(pc.is_in(table["doc_id"], gone))[size], 1)).as_py())


def _same_ids(store: Store, name: str, a: str, b: str) -> bool:
    left, right = (set(read_parquet(store.file(key, name), ["doc_id"])["doc_id"].to_pylist()) for key in (a, b))
    return left == right


def _survivors(mill: Mill, recipe: Recipe, number: int, keys: BuildKeys, old: BuildKeys) -> str:
    """Who is left where others moved up; splits are given to them alone."""
    store, here = mill.store, keys.segments[number]
    relations = [(r["stage"], r["cluster"]) for s in keys.segments for r in s.relates if "cuts" not in r]
    assigning = number == recipe.assigning
    key = plan.survivors_task(store, recipe, here.parts, here.ledgers, relations if assigning else None)
    mill.do("survivors", [key])
    if not assigning:
        return key
    was = [(r["stage"], r["cluster"]) for s in old.segments for r in s.relates if "cuts" not in r]
    return _placed(store, key, len(here.parts), old.segments[number].survivors, was)


def _placed(store: Store, key: str, parts: int, before: str, relations: list[tuple[str, str]]) -> str:
    """The survivors under `key`, in the splits that they had; who moved up is where its cluster is."""
    new = digest(["placed", source_digest(__name__), key, before, relations])
    store.plan(new, {"task": "placed", "of": key, "before": before, "relations": [list(pair) for pair in relations]})
    if store.done(new) is not None:
        return new
    table = read_parquet(store.file(before, "survivors.parquet"), ["doc_id", "split", "split_group"])
    had = {row.pop("doc_id"): row for row in table.to_pylist()}
    groups = [read_group(store.file(key, "survivors.parquet"), number) for number in range(parts)]
    rows = pa.concat_tables(groups).to_pylist()
    company: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["doc_id"] in had:
            company.setdefault(row["split_group"], []).append(had[row["doc_id"]])
    clusters = _clusters(store, relations, had)
    given = {row["doc_id"]: _place(row, had, company, clusters) for row in rows}
    with store.writing(new) as out:
        for number, group in enumerate(groups):
            for name in ("split", "split_group"):
                values = pa.array([given[doc_id][name] for doc_id in group["doc_id"].to_pylist()], pa.string())
                group = group.set_column(group.schema.get_field_index(name), name, values)
            groups[number] = group
        write_tables(out.folder / "survivors.parquet", groups[0].schema, groups)
        out.result = store.result(key)
    return new


def _clusters(
    store: Store, relations: list[tuple[str, str]], had: dict[str, dict[str, Any]]
) -> list[tuple[dict[str, str], dict[str, dict[str, Any]]]]:
    """Of each relation as it was: the cluster of every document, and the split of each cluster that had a survivor."""
    found = []
    for stage, key in relations:
        table = read_parquet(store.file(key, "relation.parquet"), ["doc_id", f"{stage}.cluster"])
        of = dict(zip(table["doc_id"].to_pylist(), table[f"{stage}.cluster"].to_pylist(), strict=True))
        found.append((of, {of[doc_id]: row for doc_id, row in had.items() if doc_id in of}))
    return found


def _place(
    row: dict[str, Any],
    had: dict[str, dict[str, Any]],
    company: dict[str, list[dict[str, Any]]],
    clusters: list[tuple[dict[str, str], dict[str, dict[str, Any]]]],
) -> dict[str, Any]:
    """Split and split group of a survivor: as they were, or those of whom it resembles, or those of its old cluster."""
    if row["doc_id"] in had:
        return had[row["doc_id"]]
    beside = company.get(row["split_group"], [])
    if len({each["split"] for each in beside}) > 1:
        raise ConfigError(
            f"{row['doc_id']} would take a place beside documents of two splits that it duplicates; forget the whole "
            "cluster (without --only)"
        )
    if beside:
        return beside[0]
    for of, splits in clusters:
        if of.get(row["doc_id"]) in splits:
            return splits[of[row["doc_id"]]]
    return row


def _encoded(
    mill: Mill, recipe: Recipe, keys: BuildKeys, old: BuildKeys, strip: Stripper, moved: bool, anew: bool
) -> list[str]:
    store, last = mill.store, keys.segments[-1]
    tasks = plan.encode_tasks(store, recipe, last.parts, last.survivors, keys.vocabulary) if moved else []
    if anew:
        mill.do("encode", tasks)
        return tasks
    found = []
    for number, key in enumerate(old.encoded):
        found.append(strip.encoded(key))
        if moved:
            now = read_group(store.file(last.survivors, "survivors.parquet"), number)["doc_id"].to_pylist()
            if now != read_parquet(store.file(found[-1], "documents.parquet"), ["doc_id"])["doc_id"].to_pylist():
                found[-1] = tasks[number]
    mill.do("encode", [key for key in found if key in tasks])
    return found


def _packed(mill: Mill, recipe: Recipe, keys: BuildKeys, old: BuildKeys, anew: bool) -> str:
    """Pack what is left; a block that nobody left or joined is the file that it was."""
    store = mill.store
    planned = plan.pack_task(store, recipe, keys.encoded, store.result(keys.vocabulary)["eot"], keys.mix)
    spec = {**store.spec(planned), "before": old.packed, "changed": keys.encoded if anew else []}
    key = plan.planned(store, "pipeline.tokens.shards", spec)
    mill.do("pack", [key])
    return key
