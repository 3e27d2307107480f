"""Changes to the rules of a version, as a person writes them, and the rules that come out.

    gopher.word_count.below=30       a bound of a rule that stands, or of a new one over any measured column
    fineweb.short_line.above=.8
    language.lang.keep=en,zh         keep or drop a list of values
    gopher.hash_ratio.above=none     no such bound any more
    licence.allow=CC0-1.0,CC-BY-*    the recipe's licence rule; licence.deny and licence.unknown=keep too

A changed rule keeps its place; the rules are parsed as a recipe's are, so what is asked here is what a recipe with the
change would say.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import addresses, licences, rules
from pipeline.manifest import Version
from pipeline.rules import Rule
from pipeline.stage import ConfigError, suggest
from pipeline.store import Store, StoreError

LICENCE = ("licence.allow", "licence.deny", "licence.unknown")
VERBS = ("below", "above", "keep", "drop")
GRAMMAR = "write STAGE.COLUMN.below=30, .above=0.8, .keep=en,zh or .drop=x; =none removes a bound"
GRID = "write STAGE.COLUMN.below=FIRST:LAST:STEP, like gopher.word_count.below=10:100:10"
MOST_STEPS = 1000


@dataclass(frozen=True)
class Ruled:
    """A stage of a sealed version: what it measured, and the rules over that."""

    name: str
    use: str
    kind: str
    params: dict[str, Any]
    segment: int
    columns: dict[str, pa.DataType]
    rules: tuple[Rule, ...]

    def tables(self) -> dict[str, dict[str, Any]]:
        """The rules as a recipe writes them: `keep` and `drop`."""
        found: dict[str, dict[str, Any]] = {"keep": {}, "drop": {}}
        for rule in self.rules:
            if rule.operator in ("below", "above"):
                found["drop"].setdefault(rule.column, {})[rule.operator] = rule.bound
            else:
                found["drop" if rule.operator == "in" else "keep"][rule.column] = rule.bound
        return {verb: columns for verb, columns in found.items() if columns}


@dataclass(frozen=True)
class Change:
    """One bound of one column; `value` is None where it goes."""

    stage: str
    column: str
    verb: str
    value: str | None

    @property
    def path(self) -> str:
        return f"licence.{self.verb}" if self.stage == "licence" else f"{self.stage}.{self.column}.{self.verb}"

    @property
    def signal(self) -> str:
        return f"{self.stage}.{self.column}"

    def __str__(self) -> str:
        return f"{self.path}={'none' if self.value is None else self.value}"


def parse(text: str) -> Change:
    """Read one change. Raises ConfigError saying how to write it."""
    path, equals, value = (part.strip() for part in text.partition("="))
    stage, dot, rest = path.partition(".")
    column, _, verb = rest.rpartition(".")
    if equals and value and path in LICENCE:
        return Change(stage, "licence", rest, None if value == "none" else value)
    if not (equals and value and stage and dot and column) or verb not in VERBS:
        raise ConfigError(f"cannot read the change {text!r}: {GRAMMAR}")
    return Change(stage, column, verb, None if value == "none" else value)


def axis(text: str) -> list[Change]:
    """The changes of a `--grid`: a bound from FIRST to LAST, both included, by STEP. Raises ConfigError."""
    path, _, values = text.partition("=")
    try:
        first, last, step = (Decimal(value.strip()) for value in values.split(":"))
    except (ValueError, InvalidOperation) as error:
        raise ConfigError(f"cannot read the grid {text!r}: {GRID}") from error
    if not all(value.is_finite() for value in (first, last, step)) or step == 0 or (last - first) / step < 0:
        raise ConfigError(f"the grid {text!r} has no steps: {GRID}")
    count = int((last - first) / step) + 1
    if count > MOST_STEPS:
        raise ConfigError(f"the grid {text!r} has {count:,} steps; at most {MOST_STEPS:,} are tried")
    found = [parse(f"{path}={first + step * number:f}") for number in range(count)]
    if found[0].verb not in ("below", "above"):
        raise ConfigError(f"the grid {text!r} sweeps no bound: {GRID}")
    return found


def grid(axes: Sequence[str]) -> Iterator[tuple[Change, ...]]:
    """Every combination of one or two grids. Raises ConfigError."""
    if len(axes) > 2:
        raise ConfigError(f"--grid is given once or twice, not {len(axes)} times")
    found = [axis(text) for text in axes]
    if math.prod(map(len, found)) > MOST_STEPS:
        raise ConfigError(f"the grids have {math.prod(map(len, found)):,} points; at most {MOST_STEPS:,} are tried")
    return itertools.product(*found)


def ruled(version: Version, store: Store) -> list[Ruled]:
    """The stages of a version in the recipe's order, with the columns that were stored; the licence rule first.

    Raises ConfigError where its books are not in this store, StoreError where they are damaged.
    """
    recipe, segments = version.manifest["recipe"], addresses.books(store, version).segments
    none = ("source", "forget", "licence", "mix")
    placed = [entry for entry in version.manifest["accounting"] if entry["kind"] not in none]
    found = []
    if recipe["licence"]:
        said = rules.of_licence(recipe["licence"])
        found.append(Ruled("licence", "licence", "licence", {}, 0, {"licence": pa.string()}, said))
    for entry, said in zip(placed, recipe["stages"], strict=True):
        name, keys = entry["stage"], segments[entry["segment"]]
        related = {relate["stage"]: store.file(relate["cluster"], "relation.parquet") for relate in keys.relates}
        columns = _columns(related.get(name) or store.file(keys.parts[0], "signals.parquet"), name)
        bounds = tuple(Rule(name, rule["column"], rule["operator"], rule["bound"]) for rule in said["rules"])
        found.append(Ruled(name, said["use"], said["kind"], said["params"], entry["segment"], columns, bounds))
    return found


def _columns(path: Path, stage: str) -> dict[str, pa.DataType]:
    """What was stored of a stage, and its types."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return {field.name.removeprefix(f"{stage}."): field.type for field in schema if field.name.startswith(f"{stage}.")}


def changed(stages: Sequence[Ruled], changes: Sequence[Change]) -> list[Ruled]:
    """The stages with their rules changed. Raises ConfigError for a stage, column, bound or value that cannot be."""
    known = {stage.name: stage for stage in stages}
    twice = [change.path for change in changes if sum(change.path == other.path for other in changes) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is changed twice; state it once")
    for change in changes:
        if change.stage not in known:
            raise ConfigError(f"{change}: the version has no stage {change.stage!r}{suggest(change.stage, known)}")
        known[change.stage] = _with(known[change.stage], change)
    return [known[stage.name] for stage in stages]


def _with(stage: Ruled, change: Change) -> Ruled:
    if change.column not in stage.columns:
        raise ConfigError(
            f"{change}: stage {stage.name!r} measured no such column{suggest(change.column, stage.columns)}"
        )
    if stage.name == "licence":
        return replace(stage, rules=rules.of_licence(_licence(rules.licence_of(stage.rules), change)))
    kind = stage.columns[change.column]
    value = None if change.value is None else _value(change, change.value, kind)
    tables = stage.tables()
    if change.verb in ("keep", "drop"):
        _member(tables.setdefault(change.verb, {}), change.column, value, change)
    else:
        bounds = tables.setdefault("drop", {}).setdefault(change.column, {})
        if isinstance(bounds, list):
            raise ConfigError(
                f"{change}: a list of values is dropped there; remove it first: {_path(change)}.drop=none"
            )
        _member(bounds, change.verb, value, change)
        if not bounds:
            del tables["drop"][change.column]
    return replace(stage, rules=tuple(rules.parse(stage.name, tables, stage.columns, str(change))))


def _licence(table: dict[str, Any], change: Change) -> dict[str, Any]:
    """The [licence] table with one entry changed."""
    if change.verb == "unknown":
        if change.value not in ("keep", "drop"):
            raise ConfigError(f"{change}: write licence.unknown=keep or licence.unknown=drop")
        return {**table, "unknown": change.value}
    if change.value is None and change.verb not in table:
        raise ConfigError(f"{change}: there is no such bound to remove")
    entries = None if change.value is None else _words(change.value, change)
    for entry in entries or ():
        licences.check_entry(entry, str(change))
    return {**table, change.verb: entries}


def _member(table: dict[str, Any], name: str, value: Any, change: Change) -> None:
    """Set or take away one entry. Raises ConfigError where there is nothing to take away, or a rule of another kind."""
    if value is None:
        if name not in table or (change.verb == "drop" and isinstance(table[name], dict)):
            raise ConfigError(f"{change}: there is no such bound to remove")
        del table[name]
        return
    if change.verb == "drop" and isinstance(table.get(name), dict):
        bounds = " ".join(f"{_path(change)}.{bound}=none" for bound in table[name])
        raise ConfigError(f"{change}: the column has bounds; remove them first: {bounds}")
    table[name] = value


def _path(change: Change) -> str:
    return f"{change.stage}.{change.column}"


def _value(change: Change, text: str, kind: pa.DataType) -> Any:
    """The bound or the list that a text means for a column of this type."""
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if change.verb in ("below", "above"):
        if not numeric:
            raise ConfigError(f"{change}: the column holds {kind}, which has no {change.verb}; use .keep= or .drop=")
        return number(text, str(change))
    words = _words(text, change)
    if pa.types.is_boolean(kind):
        if wrong := [word for word in words if word not in ("true", "false")]:
            raise ConfigError(f"{change}: the column holds true or false, not {wrong[0]!r}")
        return [word == "true" for word in words]
    if not numeric:
        return words
    values = [number(word, str(change)) for word in words]
    if pa.types.is_integer(kind) and any(isinstance(value, float) for value in values):
        raise ConfigError(f"{change}: the column holds whole numbers")
    return list(map(float, values)) if pa.types.is_floating(kind) else values


def _words(text: str, change: Change) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ConfigError(f"{change}: a list of values is written with commas, none of them empty: en,zh")
    return words


def number(text: str, where: str) -> int | float:
    """A whole number or a finite one, as TOML writes them (`100_000`, `.8` and `1e5` too). Raises ConfigError."""
    if re.fullmatch(r"[+-]?\d+(_\d+)*", text):
        return int(text)
    try:
        found = float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is no number; {GRAMMAR}") from error
    if not math.isfinite(found):
        raise ConfigError(f"{where}: a bound is a finite number; =none removes it")
    return found
