"""Judge a sealed version again under other rules, from its stored signals, sketches and pairs: no text is read.

Every segment measured all that entered it, so its own rules are a query. Clusters are formed anew among those who pass,
from pairs that were verified among all. The one law: who is kept is exactly who a build with these rules would keep, id
by id. Where the stored values do not say that, because documents would come to a segment that never measured them, or
with another text, or another split, `Unmeasured` says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import children, cuts, relating, rules, split, stage
from pipeline.changes import Ruled
from pipeline.limits import UNBOUNDED
from pipeline.manifest import Version
from pipeline.relating import without
from pipeline.rules import Rule
from pipeline.run import BORN
from pipeline.schema import LEDGER
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet, read_tables
from pipeline.stored import OWN, Stored

CUT = ["doc_id", "start", "end"]


class Unmeasured(ConfigError):
    """The stored values do not answer: `documents` would have to be measured anew."""

    def __init__(self, documents: int, why: str) -> None:
        super().__init__(
            f"{documents:,} {'document' if documents == 1 else 'documents'} {why}: that needs a new measurement, and "
            "`gristmill apply` with the same changes makes it; what stands before is not measured again"
        )
        self.documents = documents


@dataclass
class Judged:
    """Who left where, under some rules, and who is kept."""

    ledgers: list[pa.Table] = field(default_factory=list)
    # Of each segment: those whom it measured, with the columns that were judged, and those who are left.
    segments: list[tuple[pa.Table, pa.Table]] = field(default_factory=list)
    relations: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def ledger(self) -> pa.Table:
        return pa.concat_tables([LEDGER.empty_table(), *self.ledgers]).combine_chunks()

    @property
    def kept(self) -> pa.Table:
        """doc_id and text_bytes."""
        return self.segments[-1][1].select(["doc_id", "text_bytes"])


@dataclass
class Flow:
    """What goes from one segment to the next where it is not what went there in the build.

    `altered` are those who bear another text, `lists` what is cut of each partition (None: what was).
    """

    left: pa.Table
    altered: pa.Array
    lists: dict[int, pa.Table] | None = None


class Books:
    """A version's segments, ready to be judged under any rules."""

    def __init__(self, version: Version, store: Store, stages: Sequence[Ruled]) -> None:
        keys = version.build_keys()
        if keys.bridges:
            raise ConfigError(
                f"{version.address} was extended, so who is kept hangs on who was there first; ask its first parent, "
                f"{version.manifest['parents'][0]}, and extend what comes of it"
            )
        if keys.mix:
            raise ConfigError(
                f"{version.address} was mixed, so who is kept hangs on how many tokens the others have; ask a version "
                "of the recipe without [mix]"
            )
        segments = enumerate(keys.segments)
        # Who was forgotten stays so under any rule.
        self._forgotten = [read_parquet(store.file(keys.forgotten, "ledger.parquet"))] if keys.forgotten else []
        self.segments = [Stored(store, number, segment, stages) for number, segment in segments]
        self._shares = version.manifest["recipe"]["pack"]["split"]
        related = [segment.number for segment in self.segments if segment.relating]
        self._assigning = related[-1] + bool(self.segments[related[-1]].keys.cuts) if related else 0

    def judge(self, stages: Sequence[Ruled]) -> Judged:
        """Judge under the rules of `stages`. Raises Unmeasured where what is stored does not say who is kept."""
        said = {stage.name: stage.rules for stage in stages}
        judged, flow = Judged(list(self._forgotten)), None
        for segment in self.segments:
            entered = self._enter(segment, flow, judged)
            broken = [rule for stage in segment.own for rule in said[stage.name]]
            documents = segment.with_columns(entered, [rule.signal for rule in broken])
            gone = _own(segment, documents, broken, judged)
            lists = None
            for name, related in segment.relating.items():
                judged.relations[name], lists = _related(segment, related, documents, gone)
                judged.ledgers.append(relating.judge(judged.relations[name], said[name]))
                gone = pa.concat_arrays([gone, judged.ledgers[-1]["doc_id"].combine_chunks()])
            left = without(documents, gone)
            judged.segments.append((documents, left))
            flow = _leave(segment, left, lists, flow)
        return judged

    def values(self, judged: Judged, stage: Ruled, column: str) -> pa.Table:
        """doc_id and `value`, one column of all whom a stage measured."""
        signal = f"{stage.name}.{column}"
        if stage.kind == "relate":
            table = judged.relations[stage.name]
        else:
            table = self.segments[stage.segment].with_columns(judged.segments[stage.segment][0].select(OWN), [signal])
        return table.select(["doc_id", signal]).rename_columns(["doc_id", "value"]).combine_chunks()

    def _enter(self, segment: Stored, flow: Flow | None, judged: Judged) -> pa.Table:
        """The documents of a segment, as it measured them. Raises Unmeasured."""
        if flow is None:
            judged.ledgers.append(segment.errors)
            return segment.documents
        if not segment.own and not segment.relating:
            return _through(self.segments[segment.number - 1], segment, flow, judged)
        ids = flow.left["doc_id"].combine_chunks()
        if new := _count(pc.invert(pc.is_in(ids, segment.entered))):
            raise Unmeasured(new, f"would come to {segment.names}, where they were never measured")
        if len(flow.altered):
            raise Unmeasured(len(flow.altered), f"would come to {segment.names} with another text than was measured")
        _check_pairs(segment, len(ids))
        if segment.number > self._assigning and segment.draws:
            self._check_split(segment, ids, judged)
        errors = segment.errors["doc_id"]
        # A child whom its stage could not bear did not enter.
        here = pc.or_(pc.is_in(errors, ids), pc.invert(pc.is_in(errors, segment.entered)))
        judged.ledgers.append(segment.errors.filter(here))
        return _born_of(segment.documents, ids)

    def _check_split(self, segment: Stored, ids: pa.Array, judged: Judged) -> None:
        """Raise Unmeasured where documents come to a stage that looks at it with another split."""
        behind = self.segments[self._assigning]
        table = judged.segments[self._assigning][1].select(["doc_id", "text_digest"])
        for name in ("split", "split_group"):
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        clusters = [
            relation.select(["doc_id", f"{name}.cluster"]).rename_columns(["doc_id", "cluster"])
            for name, relation in judged.relations.items()
            if f"{name}.cluster" in relation.column_names
        ]
        new = split.assign(table.combine_chunks(), clusters, self._shares)
        was, now = (
            t.take(pc.index_in(ids, t["doc_id"].combine_chunks())) for t in (behind.survivors.combine_chunks(), new)
        )
        other = pc.or_(*(pc.not_equal(was[name], now[name]) for name in ("split", "split_group")))
        if moved := _count(other):
            raise Unmeasured(moved, f"would come to {segment.names} in another split")


def _own(segment: Stored, documents: pa.Table, broken: Sequence[Rule], judged: Judged) -> pa.Array:
    """Judge a segment's own rules; returns the ids of those who left."""
    judged.ledgers.append(rules.judge(documents, broken, exempt=children.not_born(segment.order)))
    gone = pa.concat_tables(judged.ledgers[-2:])
    if any(stage.kind == "extend" for stage in segment.own):
        splits = segment.splits.take(pc.index_in(documents["doc_id"], segment.documents["doc_id"].combine_chunks()))
        placed = without(documents.select(OWN).append_column("split", splits), gone["doc_id"].combine_chunks())
        is_child = pc.greater(placed[BORN], 0)
        lost = children.leaving(placed.filter(is_child), placed.filter(pc.invert(is_child)), gone, segment.order)
        judged.ledgers += lost
        gone = pa.concat_tables([gone, *lost])
    return gone["doc_id"].combine_chunks()


def _related(
    segment: Stored, related: Ruled, documents: pa.Table, gone: pa.Array
) -> tuple[pa.Table, list[tuple[int, pa.Table]] | None]:
    """(signals of a relating stage among those who pass, what it cuts of each partition; None: as stored)."""
    here, stored = without(documents, gone), segment.relation(related.name)
    if _same(here["doc_id"], stored["doc_id"]):
        return stored, None
    loaded = stage.load(related.use, related.params)
    if not loaded.cuts:
        everyone = segment.met(loaded)
        met = everyone.filter(pc.is_in(everyone["doc_id"], here["doc_id"].combine_chunks())).combine_chunks()
        return relating.clustered(loaded, met, segment.pairs(related.name)), None
    placed = here.select(["doc_id", "text_bytes", "part", "row"]).sort_by("doc_id").combine_chunks()
    spans = loaded.module.spans(placed, read_tables(segment.file(related.name, "pairs")), **loaded.params)
    lists = list(cuts.gather(placed, len(segment.keys.parts), spans, UNBOUNDED))
    return relating.named(related.name, cuts.signals(placed, lists)), lists


def _leave(segment: Stored, left: pa.Table, lists: list[tuple[int, pa.Table]] | None, flow: Flow | None) -> Flow | None:
    """What goes on, or None where that is what went on in the build."""
    altered = flow.altered if flow else pa.array([], pa.string())
    if lists:
        altered = pa.array(
            [doc_id for number, table in lists for doc_id in _recut(segment, number, table)], pa.string()
        )
    altered = altered.filter(pc.is_in(altered, left["doc_id"].combine_chunks()))
    if not len(altered) and _same(left["doc_id"], segment.survivors["doc_id"]):
        return None
    return Flow(left, altered, dict(lists) if lists else None)


def _recut(segment: Stored, number: int, table: pa.Table) -> set[str]:
    """Ids of the documents of a partition of which something else is cut than was."""
    stored = read_parquet(segment.cuts_file(number))
    old, new = (set(zip(*(map(_hashable, t[n].to_pylist()) for n in CUT), strict=True)) for t in (stored, table))
    return {doc_id for doc_id, *_ in old ^ new}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _through(before: Stored, segment: Stored, flow: Flow, judged: Judged) -> pa.Table:
    """What enters a segment that measures nothing: texts less their cuts. Whose text is then blank leaves."""
    name = _cutter(before)
    lost, was = judged.relations[name], flow.left["doc_id"].combine_chunks()
    cut = lost[f"{name}.cut_bytes"].take(pc.index_in(was, lost["doc_id"].combine_chunks()))
    other = pc.or_(pc.is_in(was, flow.altered), pc.invert(pc.is_in(was, segment.entered)))
    known = segment.errors.filter(pc.is_in(segment.errors["doc_id"], was.filter(pc.invert(other))))
    emptied = [known]
    again = flow.left.filter(other)
    for number in sorted(again["part"].unique().to_pylist()):
        rows = again.filter(pc.equal(again["part"], number))["row"].combine_chunks()
        texts = read_parquet(before.store.file(before.keys.parts[number], "documents.parquet"), ["doc_id", "text"])
        lists = flow.lists[number] if flow.lists else read_parquet(before.cuts_file(number))
        _, blank = cuts.apply(texts.take(rows), rows.to_numpy(), lists, name)
        emptied.append(pa.Table.from_batches([blank]))
    judged.ledgers.append(pa.concat_tables(emptied))
    digests = segment.documents["text_digest"].take(pc.index_in(was, segment.documents["doc_id"].combine_chunks()))
    columns = {"text_bytes": pc.subtract(flow.left["text_bytes"], cut), "text_digest": digests}
    table = flow.left.select([*OWN, "part", "row"])
    for column, values in columns.items():
        table = table.set_column(table.schema.get_field_index(column), column, values)
    return without(table, judged.ledgers[-1]["doc_id"].combine_chunks())


def _cutter(segment: Stored) -> str:
    """The stage that cuts behind a segment."""
    return segment.keys.cuts["stage"]


def _check_pairs(segment: Stored, documents: int) -> None:
    """Pairs among fewer documents are those among all, unless a bucket was too large to be compared in full."""
    for relate in segment.keys.relates:
        said = {} if "cuts" in relate else segment.pairs(relate["stage"]).schema.metadata or {}
        if int(said.get(b"large_buckets", 0)):
            raise Unmeasured(documents, f"would be compared anew by {relate['stage']}, whose buckets were too large")


def _born_of(documents: pa.Table, ids: pa.Array) -> pa.Table:
    """Those of `ids`, and the children that were made of them here."""
    for born in sorted(set(documents[BORN].to_pylist()) - {0}):
        mine = pc.and_(pc.equal(documents[BORN], born), pc.is_in(documents["parent_id"], ids))
        ids = pa.concat_arrays([ids, documents.filter(mine)["doc_id"].combine_chunks()])
    return documents.filter(pc.is_in(documents["doc_id"], ids))


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    """Whether two columns of distinct ids have the same members."""
    return len(left) == len(right) and _count(pc.is_in(left, right.combine_chunks())) == len(left)


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)
