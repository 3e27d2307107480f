"""What if a threshold were another: who would be kept, who would not, and who stands next to the line.

Answered from what a version stored, without a new pass (`rejudge`). Bytes are known of every document; tokens only of
those that were encoded, and of the others their number is said, never guessed. Which tokens a build would make of them
depends on its vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import books as bookkeeping
from pipeline import changes as asking
from pipeline import domains
from pipeline.changes import Change, Ruled
from pipeline.manifest import Version
from pipeline.margins import Margin, margin
from pipeline.rejudge import Books, Judged, Unmeasured
from pipeline.rules import Rule
from pipeline.store import Store, read_parquet

BY = ("language", "source", "domain")
ENTERS, LEAVES, OTHERWISE = "enters", "leaves", "other reason"
MOVES = ["doc_id", "change", "before", "before_stage", "before_reason", "after", "after_stage", "after_reason"]
MOVES += ["after_detail", "source", "language", "domain", "text_bytes", "tokens"]


@dataclass(frozen=True)
class Count:
    """Documents with their bytes, the tokens of those that were encoded, and how many were not."""

    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0
    tokens_unknown: int = 0


@dataclass(frozen=True)
class Group:
    """What is kept of one language, source or domain."""

    name: str
    before: Count
    after: Count


@dataclass(frozen=True)
class Reason:
    """How many leave for one reason; a changed bound is the same reason in other words."""

    stage: str
    verdict: str
    reason: str
    before: int
    after: int


@dataclass
class Answer:
    """What a version would be under other rules. `moves` has a row for every document whose end is another."""

    address: str
    changes: list[str]
    before: Count
    after: Count
    groups: dict[str, list[Group]]
    reasons: list[Reason]
    moves: pa.Table
    margins: list[Margin]

    def moved(self) -> dict[str, int]:
        """How many enter, leave, or leave for another reason."""
        counts = dict.fromkeys((ENTERS, LEAVES, OTHERWISE), 0)
        for row in pc.value_counts(self.moves["change"]).to_pylist():
            counts[row["values"]] = row["counts"]
        return counts


@dataclass(frozen=True)
class Point:
    """One point of a grid: its values in the order of the axes, and what would be kept or is not known."""

    values: tuple[str, ...]
    documents: int | None
    text_bytes: int | None
    unmeasured: int = 0


def ask(store: Store, version: Version, texts: Sequence[str], most: int = 5) -> Answer:
    """What the changes would do, with up to `most` documents on either side of each bound.

    Raises ConfigError for a change that cannot be or books that are not in this store, Unmeasured where what is stored
    does not answer, StoreError where it is damaged.
    """
    changes = [asking.parse(text) for text in texts]
    stages = asking.ruled(version, store)
    new = asking.changed(stages, changes)
    books = Books(version, store, stages)
    judged = books.judge(new)
    was, now = _ends(version, store, judged)
    index = version.index(["doc_id", "source", "language", "url", "text_bytes", "tokens"])
    moves, keys = _moves(was, now, index["doc_id"], judged.kept["doc_id"], stages, new), judged.kept["doc_id"]
    known = _known(books, index, moves["doc_id"])
    before, after = index, _rows(known, keys)
    return Answer(
        address=version.address,
        changes=list(map(str, changes)),
        before=_count(before),
        after=_count(after),
        groups={name: _groups(_with_domain(before), _with_domain(after), name) for name in BY},
        reasons=_reasons(was, now, stages, new),
        moves=_described(moves, known),
        margins=list(_margins(books, judged, stages, new, changes, _words(was, now, index, keys), most)),
    )


def sweep(store: Store, version: Version, texts: Sequence[str], axes: Sequence[str]) -> Iterator[Point]:
    """What would be kept at each point of one or two grids, on top of the changes. Raises as `ask` does but that a
    point that needs a new measurement says so."""
    fixed = [asking.parse(text) for text in texts]
    stages = asking.ruled(version, store)
    points = list(asking.grid(axes))
    rules = [asking.changed(stages, [*fixed, *point]) for point in points]
    books = Books(version, store, stages)
    for point, said in zip(points, rules, strict=True):
        values = tuple(change.value or "" for change in point)
        try:
            kept = books.judge(said).kept
        except Unmeasured as refused:
            yield Point(values, None, None, refused.documents)
            continue
        yield Point(values, kept.num_rows, pc.sum(kept["text_bytes"]).as_py() or 0)


def _ends(version: Version, store: Store, judged: Judged) -> tuple[pa.Table, pa.Table]:
    """The ledger as it stands, and as it would."""
    return bookkeeping.ledger(store, version.build_keys()).combine_chunks(), judged.ledger


def _keyed(ledger: pa.Table, stages: Sequence[Ruled]) -> pa.Array:
    """What each row of a ledger left by: stage, verdict and reason, but for a rule's bound."""
    bare = {(rule.stage, rule.reason): _bare(rule) for stage in stages for rule in stage.rules}
    told = pc.binary_join_element_wise(ledger["stage"], ledger["verdict"], ledger["reason"], "\0").combine_chunks()
    coded = told.dictionary_encode()
    names = []
    for said in coded.dictionary.to_pylist():
        stage, verdict, reason = said.split("\0", 2)
        names.append("\0".join((stage, verdict, bare.get((stage, reason), reason))))
    return pa.array(names, pa.string()).take(coded.indices)


def _bare(rule: Rule) -> str:
    """A rule without its bound."""
    return f"{rule.column} {rule.operator}"


def _moves(
    was: pa.Table,
    now: pa.Table,
    kept: pa.ChunkedArray,
    keeps: pa.ChunkedArray,
    stages: Sequence[Ruled],
    new: Sequence[Ruled],
) -> pa.Table:
    """Every document whose end is another: kept and not, or by another rule."""
    columns = [was["doc_id"], now["doc_id"], kept, keeps]
    ids = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    table: dict[str, Any] = {"doc_id": ids}
    keys = []
    for name, ledger, here, rules in (("before", was, kept, stages), ("after", now, keeps, new)):
        at = pc.index_in(ids, ledger["doc_id"].combine_chunks())
        stays = pc.is_in(ids, here.combine_chunks())
        gone = ledger["verdict"].combine_chunks().take(at)
        table[name] = pc.if_else(stays, "kept", pc.fill_null(gone, "not made"))
        table[f"{name}_stage"] = ledger["stage"].combine_chunks().take(at)
        table[f"{name}_reason"] = ledger["reason"].combine_chunks().take(at)
        table[f"{name}_detail"] = ledger["detail"].combine_chunks().take(at)
        keys.append(pc.fill_null(_keyed(ledger, rules).take(at), pc.if_else(stays, "kept", "not made")))
    enters = pc.and_(pc.equal(table["after"], "kept"), pc.not_equal(table["before"], "kept"))
    leaves = pc.and_(pc.equal(table["before"], "kept"), pc.not_equal(table["after"], "kept"))
    table["change"] = pc.if_else(enters, ENTERS, pc.if_else(leaves, LEAVES, OTHERWISE))
    moved = pa.table(table).filter(pc.not_equal(*keys))
    order = pc.sort_indices(moved, [("change", "ascending"), ("doc_id", "ascending")])
    return moved.take(order).combine_chunks()


def _known(books: Books, index: pa.Table, wanted: pa.ChunkedArray) -> pa.Table:
    """source, language, url, text_bytes and tokens: of the version's documents, and of `wanted` others as they were
    when they were measured last."""
    names = ["doc_id", "source", "language", "url"]
    tables = [index]
    missing = wanted.filter(pc.invert(pc.is_in(wanted, index["doc_id"].combine_chunks()))).combine_chunks()
    for segment in reversed(books.segments):
        if not len(missing):
            break
        parts = [read_parquet(segment.store.file(key, "documents.parquet"), names) for key in segment.keys.parts]
        table = pa.concat_tables(parts).append_column("text_bytes", segment.documents["text_bytes"])
        table = table.filter(pc.is_in(table["doc_id"], missing))
        tables.append(table.append_column("tokens", pa.nulls(table.num_rows, pa.int32())))
        missing = missing.filter(pc.invert(pc.is_in(missing, table["doc_id"].combine_chunks())))
    return pa.concat_tables(table.select(index.column_names) for table in tables).combine_chunks()


def _rows(table: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    return table.take(pc.index_in(ids, table["doc_id"].combine_chunks()))


def _with_domain(table: pa.Table) -> pa.Table:
    return table.append_column("domain", domains.of(table["url"].combine_chunks()))


def _described(moves: pa.Table, known: pa.Table) -> pa.Table:
    about = _with_domain(_rows(known, moves["doc_id"]))
    for name in ("source", "language", "domain", "text_bytes", "tokens"):
        moves = moves.append_column(name, about[name])
    return moves.select(MOVES)


def _count(table: pa.Table) -> Count:
    size, tokens = (pc.sum(table[name]).as_py() or 0 for name in ("text_bytes", "tokens"))
    return Count(table.num_rows, size, tokens, table["tokens"].null_count)


def _groups(before: pa.Table, after: pa.Table, by: str) -> list[Group]:
    """What is kept of each; those that change most first. Empty where nobody has one."""
    sides = [_grouped(table, by) for table in (before, after)]
    if set(sides[0]) | set(sides[1]) <= {None}:
        return []
    found = [
        Group(str(name) if name is not None else "unknown", *(side.get(name, Count()) for side in sides))
        for name in sides[0].keys() | sides[1].keys()
    ]
    return sorted(found, key=lambda g: (-abs(g.after.documents - g.before.documents), -g.before.documents, g.name))


def _grouped(table: pa.Table, by: str) -> dict[str | None, Count]:
    blind = pc.cast(pc.is_null(table["tokens"]), pa.int64())
    sums = table.append_column("unknown", blind).group_by(by)
    rows = sums.aggregate([([], "count_all"), ("text_bytes", "sum"), ("tokens", "sum"), ("unknown", "sum")])
    return {
        row[by]: Count(row["count_all"], row["text_bytes_sum"] or 0, row["tokens_sum"] or 0, row["unknown_sum"] or 0)
        for row in rows.to_pylist()
    }


def _reasons(was: pa.Table, now: pa.Table, stages: Sequence[Ruled], new: Sequence[Ruled]) -> list[Reason]:
    """Counts by reason in the order of the stages, the licence and the source first."""
    counts: dict[str, list[int]] = {}
    words: dict[str, list[str]] = {}
    for side, (ledger, rules) in enumerate(((was, stages), (now, new))):
        for row in pc.value_counts(_keyed(ledger, rules)).to_pylist():
            counts.setdefault(row["values"], [0, 0])[side] = row["counts"]
        for rule in (rule for stage in rules for rule in stage.rules):
            key = "\0".join((rule.stage, "dropped", _bare(rule)))
            words.setdefault(key, ["", ""])[side] = rule.reason
    order = {stage.name: number for number, stage in enumerate(stages)}
    found = []
    for key, (before, after) in counts.items():
        stage, verdict, bare = key.split("\0", 2)
        old, reason = words.get(key, (bare, bare))
        said = reason if not old or old == reason else f"{old} -> {reason or 'no such rule'}"
        found.append(Reason(stage, verdict, said, before, after))
    return sorted(found, key=lambda r: (order.get(r.stage, -1), r.verdict, -max(r.before, r.after), r.reason))


def _words(was: pa.Table, now: pa.Table, index: pa.Table, keeps: pa.ChunkedArray) -> Any:
    """What becomes of one document, in words: before and after."""
    sides = [(ledger, ledger["doc_id"].combine_chunks()) for ledger in (was, now)]
    stays = [set(ids.to_pylist()) for ids in (index["doc_id"], keeps)]

    def ends(doc_id: str) -> tuple[str, str]:
        said = []
        for (ledger, ids), kept in zip(sides, stays, strict=True):
            at = -1 if doc_id in kept else pc.index(ids, doc_id).as_py()
            words = "kept" if doc_id in kept else "not made"
            said.append(f"{ledger['stage'][at]}: {ledger['reason'][at]}" if at >= 0 else words)
        return said[0], said[1]

    return ends


def _margins(
    books: Books,
    judged: Judged,
    stages: Sequence[Ruled],
    new: Sequence[Ruled],
    changes: Sequence[Change],
    ends: Any,
    most: int,
) -> Iterator[Margin]:
    """One for each changed column, in the order of the changes."""
    named: Mapping[str, tuple[Ruled, Ruled]] = {old.name: (old, other) for old, other in zip(stages, new, strict=True)}
    for signal in dict.fromkeys(change.signal for change in changes):
        mine = [change for change in changes if change.signal == signal]
        yield margin(books, judged, *named[mine[0].stage], mine, ends, most)
