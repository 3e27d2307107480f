"""Rules: the only thing that removes a document.

    drop.word_count = {below = 50, above = 100_000}
    drop.score      = {below = 0.65}
    drop.lang       = ["xx"]
    keep.lang       = ["zh", "no"]

A rule reads one measured column. A value that is null or NaN was not measured, and a
document that a rule cannot judge is quarantined, never waved through. The rules of a
segment are judged at its end, in the recipe's order, and the first broken one speaks.
The rules of a recipe's [licence] table come before all others (`licences`).
Each is tried before a build begins (`canaries`), and may be held to a band (`bands`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import licences
from pipeline.schema import LEDGER
from pipeline.stage import ConfigError, suggest

Operator = Literal["below", "above", "in", "not in", "unknown", "unlicensed"]


@dataclass(frozen=True)
class Rule:
    """One bound on one column, written by one stage table of a recipe."""

    stage: str
    column: str
    operator: Operator
    bound: Any

    @property
    def signal(self) -> str:
        return f"{self.stage}.{self.column}"

    @property
    def name(self) -> str:
        """What a person calls it: gopher.word_count.below, language.lang.keep."""
        verb = {"in": "drop", "not in": "keep"}.get(self.operator, self.operator)
        return f"{self.signal}.{verb}"

    @property
    def reason(self) -> str:
        if self.operator == "unknown":
            return f"{self.column} unknown"
        if self.operator == "unlicensed":
            return f"{self.column} {licences.worded(self.bound)}"
        sign = {"below": "<", "above": ">"}.get(self.operator, self.operator)
        bound = ", ".join(map(str, self.bound)) if isinstance(self.bound, list) else self.bound
        return f"{self.column} {sign} {bound}"

    @property
    def blind(self) -> str:
        """The reason of who is quarantined because the rule cannot judge."""
        what = "is no SPDX expression" if self.operator == "unlicensed" else "unmeasured"
        return f"{self.column} {what}"

    def broken(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """True where the value breaks the rule; null where there is none, or none that can be judged."""
        match self.operator:
            case "below":
                return pc.less(values, self.bound)
            case "above":
                return pc.greater(values, self.bound)
            case "in":
                return pc.is_in(values, pa.array(self.bound, values.type))
            case "not in":
                return pc.invert(pc.is_in(values, pa.array(self.bound, values.type)))
            case "unknown":
                return pc.and_(pc.equal(values, licences.UNKNOWN), self.bound == "drop")
            case _:
                return licences.unlicensed(values, self.bound)


def of_licence(policy: Mapping[str, Any]) -> tuple[Rule, Rule]:
    """The rules of a recipe's [licence] table with its `allow`, `deny` and `unknown`."""
    bound = {name: policy.get(name) for name in ("allow", "deny")}
    return (
        Rule("licence", "licence", "unknown", policy["unknown"]),
        Rule("licence", "licence", "unlicensed", bound),
    )


def deciding(policy: Mapping[str, Any]) -> list[Rule]:
    """Those of its rules that can remove a document: it says so of unknown licences, or lists any."""
    unknown, listed = of_licence(policy)
    return [*([unknown] if unknown.bound == "drop" else []), *([listed] if any(listed.bound.values()) else [])]


def licence_of(found: Sequence[Rule]) -> dict[str, Any]:
    """The [licence] table of its rules: what it states and no more."""
    unknown, bound = (rule.bound for rule in found)
    return {**{name: entries for name, entries in bound.items() if entries is not None}, "unknown": unknown}


def parse(
    stage: str, tables: Mapping[str, Mapping[str, Any]], signals: Mapping[str, pa.DataType], where: str
) -> list[Rule]:
    """The rules of one stage table: `tables` holds its `keep` and `drop`. Raises ConfigError naming the place."""
    rules = []
    for verb in ("keep", "drop"):
        for column, bound in tables.get(verb, {}).items():
            place = f"{where}: {verb}.{column}"
            if column not in signals:
                raise ConfigError(f"{place}: stage {stage!r} measures no such column{suggest(column, signals)}")
            rules += _column_rules(stage, verb, column, bound, signals[column], place)
    return rules


def _column_rules(stage: str, verb: str, column: str, bound: Any, kind: pa.DataType, place: str) -> list[Rule]:
    if isinstance(bound, list):
        _check_members(bound, kind, place)
        return [Rule(stage, column, "not in" if verb == "keep" else "in", bound)]
    if verb == "keep" or not isinstance(bound, dict):
        raise ConfigError(f"{place}: expected a list of values" + (" or {below = .., above = ..}" * (verb == "drop")))
    if unknown := sorted(set(bound) - {"below", "above"}):
        raise ConfigError(f"{place}: unknown bound {unknown[0]!r}{suggest(unknown[0], ['below', 'above'])}")
    if not bound:
        raise ConfigError(f"{place}: states no bound; has: above, below")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ConfigError(f"{place}: the column holds {kind}, which has no below or above; give a list of values")
    if any(
        isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit)
        for limit in bound.values()
    ):
        raise ConfigError(f"{place}: bounds are finite numbers, got {bound}")
    return [Rule(stage, column, operator, limit) for operator, limit in bound.items()]


def _check_members(bound: Sequence[Any], kind: pa.DataType, place: str) -> None:
    if not bound:
        raise ConfigError(f"{place}: the list is empty")
    try:
        fits = pa.array(bound).type
        same = pa.types.is_string(fits) == pa.types.is_string(kind)
        pa.array(bound, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        same = False
    if not same:
        raise ConfigError(f"{place}: the column holds {kind}, the list holds something else: {bound}")


def judge(
    table: pa.Table,
    rules: Sequence[Rule],
    detail: Callable[[Rule, pa.Table], pa.Array] | None = None,
    exempt: Callable[[Rule, pa.Table], pa.Array] | None = None,
) -> pa.Table:
    """The ledger rows of the documents of `table` that break a rule or cannot be judged.

    `table` has `doc_id` and a column for each rule's signal. `detail` words what the ledger says of a value;
    `exempt` is true for documents that a rule does not concern. Documents that pass have no row.
    """
    decided = np.zeros(table.num_rows, bool)
    places, ledgers = [np.zeros(0, np.int64)], [LEDGER.empty_table()]
    for rule in rules:
        values = table[rule.signal].combine_chunks()
        broken = rule.broken(values)
        blind = pc.or_(pc.is_null(values, nan_is_null=True), pc.is_null(broken))
        hit = pc.or_(blind, pc.fill_null(broken, False))
        hit = pc.and_not(hit, exempt(rule, table)) if exempt else hit
        rows = np.flatnonzero(hit.to_numpy(zero_copy_only=False) & ~decided)
        if not rows.size:
            continue
        # Most documents break no rule, so only of those that do is anything put into words.
        decided[rows] = True
        places.append(rows)
        some = pa.array(rows)
        ledgers.append(_told(rule, table, some, values.take(some), blind.take(some), detail))
    order = np.argsort(np.concatenate(places), kind="stable")
    return pa.concat_tables(ledgers).take(pa.array(order)).combine_chunks()


def _told(
    rule: Rule,
    table: pa.Table,
    rows: pa.Array,
    values: pa.Array,
    blind: pa.Array,
    detail: Callable[[Rule, pa.Table], pa.Array] | None,
) -> pa.Table:
    """The ledger of some rows that break one rule, or cannot be judged by it."""
    columns = [
        table["doc_id"].combine_chunks().take(rows),
        pa.repeat(pa.scalar(rule.stage, pa.string()), len(rows)),
        pc.if_else(blind, "quarantined", "dropped"),
        pc.if_else(blind, rule.blind, rule.reason),
        detail(rule, table.take(rows)) if detail else described(rule.column, values),
    ]
    return pa.table(columns, schema=LEDGER)


def described(column: str, values: pa.Array) -> pa.Array:
    """'word_count=12' for every value; null where there is none."""
    return pc.binary_join_element_wise(column, values.cast(pa.string()), "=")
