"""What lies around a threshold: how a measured column is spread, and the documents next to the bound on either side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.changes import Change, Ruled
from pipeline.rejudge import Books, Judged
from pipeline.rules import Rule, licence_of, of_licence
from pipeline.store import read_parquet
from pipeline.stored import Stored

BINS, VALUES, EXCERPT = 40, 20, 240
# The tails beyond these shares of the values are counted in the outermost bins.
TAIL = 0.005
# Says what becomes of a document: before and after.
Ends = Callable[[str], tuple[str, str]]


@dataclass(frozen=True)
class Example:
    """A document near a bound: what was measured of it, what becomes of it, and how its text begins."""

    doc_id: str
    value: Any
    before: str
    after: str
    excerpt: str


@dataclass
class Margin:
    """One changed column: its bounds before and after, how its values lie, and who is next to the bound.

    A histogram of numbers has counts[i] values in [edges[i], edges[i + 1]), the outermost bins open; one of words has
    a count for each of the commonest `values`, and `others`.
    """

    signal: str
    old: dict[str, Any]
    new: dict[str, Any]
    measured: int
    unmeasured: int
    edges: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    others: int = 0
    passing: list[Example] = field(default_factory=list)
    breaking: list[Example] = field(default_factory=list)


def bounds(stage: Ruled, column: str) -> dict[str, Any]:
    """The bounds of a column as a change writes them: {"below": 30} or {"keep": ["en"]}."""
    if stage.kind == "licence":
        return licence_of(stage.rules)
    words = {"in": "drop", "not in": "keep"}
    return {words.get(rule.operator, rule.operator): rule.bound for rule in stage.rules if rule.column == column}


def margin(
    books: Books, judged: Judged, old: Ruled, new: Ruled, changes: Sequence[Change], ends: Ends, most: int
) -> Margin:
    """What the changes of one column look like, with up to `most` documents on either side of it.

    Those whose end hangs on this column come before those who leave by another rule in any case.
    """
    column = changes[0].column
    table = books.values(judged, new, column)
    values = table["value"].combine_chunks()
    known = pc.invert(pc.is_null(values, nan_is_null=True))
    table, values = table.filter(known), values.filter(known)
    found = Margin(changes[0].signal, bounds(old, column), bounds(new, column), len(values), len(known) - len(values))
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        marks = [limit for said in (found.old, found.new) for limit in said.values() if not isinstance(limit, list)]
        numbers = values.to_numpy(zero_copy_only=False)
        found.edges, found.counts = histogram(numbers, marks, pa.types.is_integer(values.type))
    else:
        counted = sorted(pc.value_counts(values).to_pylist(), key=lambda one: (-one["counts"], str(one["values"])))
        found.values = [one["values"] for one in counted[:VALUES]]
        found.counts = [one["counts"] for one in counted[:VALUES]]
        found.others = sum(one["counts"] for one in counted[VALUES:])
    segment = books.segments[new.segment]
    told = pc.is_in(table["doc_id"], _decided(judged, new.name, column)).to_numpy()
    for side, breaks in ((found.passing, False), (found.breaking, True)):
        chosen = _nearest(table, values, found, changes, breaks, told, most)
        side += _examples(segment, table.take(pa.array(chosen)), ends)
    return found


def histogram(values: NDArray[Any], marks: Sequence[float], whole: bool) -> tuple[list[float], list[int]]:
    """(edges, counts): at most BINS bins over the bulk of the values and all `marks`; narrower near nought where they
    spread over orders of magnitude."""
    if not len(values):
        return [], []
    low, middle, high = (float(q) for q in np.quantile(values, [TAIL, 0.5, 1 - TAIL], method="nearest"))
    low, high = min(low, *marks, math.inf), max(high, *marks, -math.inf)
    if low == high:
        high = low + 1
    if low >= 0 and high > 20 * (abs(middle) + 1):
        edges = np.expm1(np.linspace(math.log1p(low), math.log1p(high), BINS + 1))
        edges[0], edges[-1] = low, high
    else:
        edges = np.linspace(low, high, BINS + 1)
    if whole:
        edges = np.unique(np.append(np.floor(edges), math.floor(high) + 1))
        if len(edges) > BINS + 1:
            edges = np.append(edges[:BINS], edges[-1])
    inner = np.searchsorted(edges, values, side="right") - 1
    counts = np.bincount(np.clip(inner, 0, len(edges) - 2), minlength=len(edges) - 1)
    return edges.tolist(), counts.tolist()


def _nearest(
    table: pa.Table,
    values: pa.Array,
    found: Margin,
    changes: Sequence[Change],
    breaks: bool,
    told: NDArray[np.bool_],
    most: int,
) -> NDArray[np.int64]:
    """Rows next to the changed bound, on the side that passes it or on the one that does not; the nearest first."""
    chosen: dict[int, float] = {}
    for change in changes:
        if change.verb in ("below", "above"):
            limit = found.new.get(change.verb, found.old.get(change.verb))
            numbers = values.to_numpy(zero_copy_only=False).astype(float)
            wrong = numbers < limit if change.verb == "below" else numbers > limit
            rows, far = np.flatnonzero(wrong == breaks), np.abs(numbers - limit)
        else:
            wrong = _listed(values, found.new)
            moved = wrong != _listed(values, found.old)
            rows, far = np.flatnonzero((wrong == breaks) & moved), np.zeros(len(values))
        rows = rows[told[rows]] if told[rows].any() else rows
        if len(rows) > most > 0:
            rows = rows[far[rows] <= np.partition(far[rows], most - 1)[most - 1]]
        for row in rows.tolist():
            chosen[row] = min(float(far[row]), chosen.get(row, math.inf))
    rows = np.array(list(chosen), np.int64)
    ids = table["doc_id"].take(pa.array(rows))
    order = pc.sort_indices(
        pa.table({"far": pa.array([chosen[row] for row in rows.tolist()], pa.float64()), "doc_id": ids}),
        [("far", "ascending"), ("doc_id", "ascending")],
    )
    return rows[order.to_numpy()[:most]]


def _decided(judged: Judged, stage: str, column: str) -> pa.Array:
    """Ids of those who are kept, and of those who leave by a rule over this column."""
    ledger = judged.ledger
    mine = pc.and_(pc.equal(ledger["stage"], stage), pc.starts_with(ledger["reason"], f"{column} "))
    chunks = [*judged.kept["doc_id"].chunks, *ledger.filter(mine)["doc_id"].chunks]
    return pa.chunked_array(chunks, pa.string()).combine_chunks()


def _listed(values: pa.Array, said: dict[str, Any]) -> NDArray[np.bool_]:
    """Which values break the lists of a column."""
    wrong = np.zeros(len(values), bool)
    if "unknown" in said:
        rules = list(of_licence(said))
    else:
        lists = {verb: bound for verb, bound in said.items() if isinstance(bound, list)}
        rules = [Rule("", "", "in" if verb == "drop" else "not in", bound) for verb, bound in lists.items()]
    for rule in rules:
        wrong |= pc.fill_null(rule.broken(values), True).to_numpy(zero_copy_only=False)
    return wrong


def _examples(segment: Stored, chosen: pa.Table, ends: Ends) -> list[Example]:
    ids = chosen["doc_id"].to_pylist()
    texts = _texts(segment, ids)
    return [
        Example(doc_id, value, *ends(doc_id), texts[doc_id])
        for doc_id, value in zip(ids, chosen["value"].to_pylist(), strict=True)
    ]


def _texts(segment: Stored, ids: list[str]) -> dict[str, str]:
    """How the texts of some documents begin, on one line, as they stood when they were measured."""
    documents, found = segment.documents, {}
    places = documents.take(pc.index_in(pa.array(ids, pa.string()), documents["doc_id"].combine_chunks()))
    for part in sorted(set(places["part"].to_pylist())):
        mine = places.filter(pc.equal(places["part"], part))
        texts = read_parquet(segment.store.file(segment.keys.parts[part], "documents.parquet"), ["text"])["text"]
        for doc_id, row in zip(mine["doc_id"].to_pylist(), mine["row"].to_pylist(), strict=True):
            found[doc_id] = " ".join(texts[row].as_py()[: 4 * EXCERPT].split())[:EXCERPT]
    return found
