"""Canaries: every rule of a recipe is tried, at each build, on documents that must and must not trip it.

The law: a rule that cannot fire stops the build and is named. The documents are what the stage of the rule offers
(`examples`), and of the [licence] table what `licence_examples` does; they are a partition of their own, go through the
real segment (and what earlier ones rewrite), meet the real rule, and are gone: no count, cluster or shard knows of
them. A rule comes out as one of

    fires      some document that must trip it does, and none that must not
    dead       none does
    always     every document that can be judged does, also those that must not
    wrong      one that must not does, with nothing between its text and the stage
    untested   its stage offers none, none small enough, or none that what rewrites text before it leaves on its side

All but the first and the last refuse the build, unless the rule is allowed by its name. What rewrites text before a
rule may move a document over its limit; so one on each side is enough where there is such a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import licence_examples, run, stage
from pipeline.contract import ContractError
from pipeline.digests import digest, source_digest
from pipeline.examples import Examples, Item, OutOfReach, batch, related
from pipeline.limits import Limits
from pipeline.manifest import canary_digest
from pipeline.recipe import Recipe, Segment
from pipeline.relating import named
from pipeline.rules import Rule, deciding
from pipeline.schema import DOCUMENT, LEDGER
from pipeline.sources import Chunk
from pipeline.stage import ConfigError, Stage
from pipeline.store import Store, Writing

REFUSED = ("dead", "always", "wrong")
ALIVE = {"fires": "fires", "untested": "is untested"}
SHOWN = 4


def written(rule: Rule) -> str:
    """A rule as its recipe says it: drop.word_count = {below = 50}."""
    if rule.operator == "unknown":
        return f'unknown = "{rule.bound}"'
    if rule.operator == "unlicensed":
        return ", ".join(f"{name} = {entries}" for name, entries in rule.bound.items() if entries)
    if rule.operator in ("below", "above"):
        return f"drop.{rule.column} = {{{rule.operator} = {rule.bound}}}"
    return f"{'drop' if rule.operator == 'in' else 'keep'}.{rule.column} = {rule.bound}"


# Plan and do


def task(store: Store, recipe: Recipe) -> str:
    """Plan the trial of every rule of a recipe; its result says how each came out."""
    segments = [
        {
            "before": [_said(s) for s in _rewrites(recipe.segments[:number])],
            "stages": [_said(step.stage) for step in segment.steps],
            "relates": [_said(step.stage) for step in segment.relates],
            "rules": [[rule.stage, rule.column, rule.operator, rule.bound] for rule in _rules(segment)],
        }
        for number, segment in enumerate(recipe.segments)
    ]
    code = [[step.stage.identity, source_digest(step.stage.module.__name__, True)] for step in recipe.steps]
    spec: dict[str, Any] = {"task": "canaries", "segments": segments}
    if recipe.licence:
        spec["licence"] = recipe.licence.model_dump()
    return store.plan(digest([code, source_digest(__name__), spec]), spec)


def _said(stage: Stage) -> list[Any]:
    return [stage.use, stage.params]


def _rewrites(segments: Sequence[Segment]) -> list[Stage]:
    """What has changed a document's text before it enters a segment."""
    return [step.stage for segment in segments for step in segment.steps if step.stage.kind == "rewrite"]


def _rules(segment: Segment) -> list[Rule]:
    return [rule for step in (*segment.steps, *segment.relates) for rule in step.rules]


def execute(store: Store, spec: Mapping[str, Any], out: Writing, limits: Limits) -> None:
    """Output nothing; the result has how each rule came out."""
    found: dict[str, Any] = _licensed(deciding(spec["licence"])) if "licence" in spec else {}
    for table in spec["segments"]:
        before, stages, relates = ([stage.load(*said) for said in table[n]] for n in ("before", "stages", "relates"))
        found |= _tried(before, stages, relates, [Rule(*said) for said in table["rules"]])
    out.result = {"rules": found}


def _licensed(found: Sequence[Rule]) -> dict[str, dict[str, Any]]:
    """How each rule of the [licence] table came out, by its name."""
    return {rule.name: _licence_outcome(rule) for rule in found}


def _licence_outcome(rule: Rule) -> dict[str, Any]:
    try:
        trips, passes = licence_examples.examples(rule)
    except ValueError as error:
        return _said_of("dead", why=str(error))
    stated = [*trips, *passes]
    met = batch([(f"canary {n}",) for n in range(len(stated))]).select(DOCUMENT.names)
    at = met.schema.get_field_index("licence")
    met = met.set_column(at, met.schema.field(at), pa.array(stated, pa.string()))
    signals = run.run([Chunk(met, pa.RecordBatch.from_pylist([], LEDGER))], [], [], len(met), licence=True).signals
    broken = rule.broken(signals[rule.signal]).to_pylist()
    counts = len(stated), sum(map(bool, broken))
    wrong = [str(text) for n, (text, hit) in enumerate(zip(stated, broken, strict=True)) if hit != (n < len(trips))]
    if not trips:
        return _said_of("dead", *counts, f"{passes[0]} passes, and so does every other licence")
    if not passes:
        return _said_of("always", *counts, "it names every licence there is")
    return _said_of("wrong", *counts, f"of {wrong[0]} it says the opposite") if wrong else _said_of("fires", *counts)


def _tried(
    before: Sequence[Stage], stages: Sequence[Stage], relates: Sequence[Stage], rules: Sequence[Rule]
) -> dict[str, dict[str, Any]]:
    """How each rule of a segment came out, by its name."""
    of = {s.name: s for s in (*stages, *relates)}
    offered = [_offered(of[rule.stage], rule) for rule in rules]
    items = [item for o in offered if isinstance(o, Examples) for side in o for item in side]
    seen = Seen.of(items, [*before, *stages])
    return {
        rule.name: _outcome(rule, found, of[rule.stage], before, stages, seen)
        for rule, found in zip(rules, offered, strict=True)
    }


def _offered(stage: Stage, rule: Rule) -> Examples | dict[str, Any]:
    """The examples of a stage for a rule, or the outcome where there are none. Raises ContractError."""
    examples = getattr(stage.module, "examples", None)
    if examples is None:
        return _said_of("untested", why=f"{stage.use} offers no examples")
    try:
        trips, passes = examples(rule, rule.bound, **stage.params)
        return Examples(*([i if isinstance(i, tuple) else (i,) for i in side] for side in (trips, passes)))
    except OutOfReach as error:
        return _said_of("untested", why=str(error))
    except ValueError as error:
        return _said_of("dead", why=str(error))
    except run.MACHINE:
        raise
    except Exception as error:
        raise ContractError(f"stage {stage.name}: examples() broke on {written(rule)}: {error!r}") from error


def _said_of(verdict: str, documents: int = 0, tripped: int = 0, why: str = "") -> dict[str, Any]:
    return {"verdict": verdict, "documents": documents, "tripped": tripped, "why": why}


@dataclass
class Seen:
    """What stages made of the canaries: each item's documents that are still there, with their signals, and errors."""

    places: dict[int, list[str]]
    documents: pa.Table
    signals: pa.Table
    rows: dict[str, int]
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Sequence[Item], stages: Sequence[Stage]) -> Seen:
        whole = batch([tuple(d[1] if isinstance(d, tuple) else d for d in item) for item in items])
        ids = iter(whole["doc_id"].to_pylist())
        places = {id(item): [next(ids) for _ in item] for item in items}
        chunk = Chunk(whole.select(DOCUMENT.names), pa.RecordBatch.from_pylist([], LEDGER))
        out = run.run([chunk], stages, [], batch_rows=max(len(whole), 1))
        rows = {doc_id: row for row, doc_id in enumerate(out.documents["doc_id"].to_pylist())}
        told = zip(*(out.errors[name].to_pylist() for name in ("doc_id", "reason", "detail")), strict=True)
        errors = {doc_id: f"{reason}: {detail}" for doc_id, reason, detail in told}
        return cls(places, out.documents, out.signals, rows, errors)

    def value(self, item: Item, rule: Rule, stage: Stage) -> pa.Array:
        """What the rule reads of the item's last document: one value, or none where that did not come through."""
        here = [self.rows[doc_id] for doc_id in self.places[id(item)] if doc_id in self.rows]
        if not here or self.places[id(item)][-1] not in self.rows:
            return pa.nulls(1, stage.signals[rule.column])
        if stage.kind != "relate":
            return self.signals[rule.signal].take(pa.array(here[-1:])).combine_chunks()
        met = self.documents.take(pa.array(here)).combine_chunks().to_batches()[0]
        if any(isinstance(document, tuple) for document in item):
            named_ = [document[0] for document in item if isinstance(document, tuple)]
            met = met.set_column(0, met.schema.field(0), pa.array(named_, pa.string()))
        last = met["doc_id"][-1]
        table = named(stage.name, related(stage, met, self.signals.take(pa.array(here))))
        return table.filter(pa.compute.equal(table["doc_id"], last))[rule.signal].combine_chunks()


def _outcome(
    rule: Rule,
    offered: Examples | dict[str, Any],
    stage: Stage,
    before: Sequence[Stage],
    stages: Sequence[Stage],
    seen: Seen,
) -> dict[str, Any]:
    if isinstance(offered, dict):
        return offered
    values: list[Any] = []

    def tripped(items: Sequence[Item], by: Seen) -> list[Item]:
        found = []
        for item in items:
            value = by.value(item, rule, stage)
            values.append(value[0].as_py())
            if rule.broken(pa.chunked_array([value]))[0].as_py():
                found.append(item)
        return found

    hit, missed = tripped(offered.trips, seen), tripped(offered.passes, seen)
    counts = len(offered.trips) + len(offered.passes), len(hit) + len(missed)
    said = _range(rule, values, seen.errors)
    if hit and offered.passes and not missed:
        return _said_of("fires", *counts)
    position = next((n for n, s in enumerate(stages) if s is stage), len(stages))
    rewriting = [s for s in (*before, *stages[:position]) if s.kind == "rewrite"]
    names = ", ".join(s.name for s in rewriting)
    alone = [stage] if stage.kind != "relate" else list(stages) if stage.reads else []
    if not hit:
        if offered.trips and rewriting and tripped(offered.trips, Seen.of(offered.trips, alone)):
            # A text that is made otherwise may well come through and trip it.
            return _said_of("untested", *counts, f"{said}, because of what {names} does to the text before")
        return _said_of("dead", *counts, said)
    moved = bool(rewriting) and not tripped(missed, Seen.of(missed, alone))
    if len(missed) == len(offered.passes):
        if moved and missed:
            return _said_of("untested", *counts, f"{names} moves every example over the limit")
        return _said_of("always", *counts, said)
    return _said_of("fires" if moved else "wrong", *counts, "" if moved else said)


def _range(rule: Rule, values: Sequence[Any], errors: Mapping[str, str]) -> str:
    """What was measured of a column, in words."""
    known = [value for value in values if value is not None]
    if not known:
        told = f" ({next(iter(errors.values()))})" if errors else ""
        return f"nothing was measured of {rule.column} in {len(values)} documents{told}"
    if isinstance(known[0], str):
        some = list(dict.fromkeys(known))
        more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
        return f"{rule.column} was {', '.join(map(repr, some[:SHOWN]))}{more} in {len(values)} documents"
    low, high = min(known), max(known)
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{rule.column} was {span} in {len(values)} documents"


# Tell


def judge(recipe: Recipe, rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for a rule that cannot be and is not allowed, and for one that is allowed and need not be."""
    for name in recipe.allow_dead:
        if (verdict := rules[name]["verdict"]) not in REFUSED:
            raise ConfigError(f"--allow-dead {name}: the rule is not dead: it {ALIVE[verdict]}; leave it out")
    open_ = [name for name in _refused(recipe, rules) if name not in recipe.allow_dead]
    if open_:
        more = f" Also: {', '.join(open_[1:])}." if open_[1:] else ""
        raise ConfigError(_refusal(recipe, open_[0], rules[open_[0]]) + more)


def summary(recipe: Recipe, rules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a manifest says of the canaries."""
    told = {name: {key: out[key] for key in ("verdict", "documents", "tripped")} for name, out in rules.items()}
    said = {"rules": told, "allowed": _refused(recipe, rules)}
    return {**said, "digest": canary_digest(said)}


def _refused(recipe: Recipe, rules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = [rule.name for rule in recipe.rules]
    return [name for name in names if rules[name]["verdict"] in REFUSED]


def _refusal(recipe: Recipe, name: str, outcome: Mapping[str, Any]) -> str:
    rule = next(rule for rule in recipe.rules if rule.name == name)
    numbers = [number for number, step in enumerate(recipe.steps, 1) if rule in step.rules]
    place = recipe.place(numbers[0]) if numbers else f"{recipe.file or recipe.name} [licence]"
    how = {
        "dead": "can never fire: no canary trips it",
        "always": "fires on every document: also on canaries that must not trip it",
        "wrong": "is not what it says: a canary that must not trip it does",
    }[outcome["verdict"]]
    return (
        f"{place}: {written(rule)} {how}; {outcome['why']}. "
        f"{_fix(outcome['verdict'])}, or build with --allow-dead {name}."
    )


def _fix(verdict: str) -> str:
    return {
        "dead": "Change the bound or take the rule out",
        "always": "Change the bound or take the rule out",
        "wrong": "Mend the stage",
    }[verdict]
