"""Which documents hang on a dialect: the verdicts of a recipe with one stage's dialect changed, against its own.

Tools give one rule several meanings, and a stage with a parameter `dialect` knows each (`stages/gopher`). The law: both
sides are measured by the stages themselves on the same documents and judged by the same rules, all rules of the
segment; what the first barrier (exact, near) would drop is not asked. A rule over a column that a dialect does not
have is left out there, and said to be. Nothing is stored: sources are read, a partition at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import excerpts, plan, rules, stage, tasks
from pipeline.plan import Partition
from pipeline.recipe import Recipe, Step
from pipeline.rules import Rule
from pipeline.run import Outcome, run
from pipeline.runner import Progress
from pipeline.sources import Chunk
from pipeline.stage import ConfigError

KEPT = "kept"


@dataclass
class RuleCount:
    """Documents that break one rule, taken alone, under the recipe's dialect only, the other only, or both."""

    rule: str
    recipe_only: int = 0
    other_only: int = 0
    both: int = 0


@dataclass(frozen=True)
class Example:
    """A document whose verdict hangs on the dialect: what becomes of it under each, and how its text begins."""

    doc_id: str
    recipe: str
    other: str
    excerpt: str | None


@dataclass
class Choice:
    """One stage with another dialect than the recipe's. `refused` says why that cannot be."""

    stage: str
    recipe: str
    other: str
    refused: str | None = None
    absent: list[str] = field(default_factory=list)
    enters: int = 0
    leaves: int = 0
    other_reason: int = 0
    rules: list[RuleCount] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


@dataclass
class Answer:
    """What a recipe's dialects decide. `beyond` are stages with a dialect that stand behind a barrier: not asked."""

    name: str
    documents: int
    kept: int
    choices: list[Choice]
    beyond: list[str]


@dataclass
class _Variant:
    """The recipe's steps with one stage's dialect changed, and what is counted of them."""

    choice: Choice
    steps: list[Step]
    rules: list[Rule]
    mine: list[Rule]


def dialects(use: str) -> list[str]:
    """The dialects of a stage, in the order of its signature; none where it has no such parameter."""
    found = inspect.signature(stage.find(use), eval_str=True).parameters.get("dialect")
    return [str(value) for value in get_args(found.annotation)] if found else []


def ask(
    recipe: Recipe,
    most: int = 5,
    documents: int | None = None,
    batch_rows: int = 4096,
    progress: Progress | None = None,
) -> Answer:
    """Compare every other dialect of every stage of the first segment, with up to `most` examples of each.

    `documents` bounds what is read of each source. Raises ConfigError where no stage of the recipe has a dialect, and
    what reading the sources raises.
    """
    first, *later = recipe.segments
    steps = [step for step in first.steps if step.stage.kind in ("measure", "rewrite")]
    variants = [found for step in steps for found in _variants(steps, step)]
    beyond = [step.stage.name for segment in later for step in segment.steps if dialects(step.stage.use)]
    if not variants:
        where = f"; behind the first barrier: {', '.join(beyond)}" if beyond else ""
        raise ConfigError(f"no stage of {recipe.name} before the first barrier has a dialect to choose{where}")
    own = [*rules.of_licence(recipe.licence.model_dump())] if recipe.licence else []
    answer = Answer(recipe.name, 0, 0, [variant.choice for variant in variants], beyond)
    parts = list(plan.partitions(plan.look(recipe), 8_000_000))
    if progress:
        progress.phase("compare dialects", len(parts))
    left: dict[str, int] = {}
    for part in parts:
        chunks = list(bounded(part, left, documents))
        base = run(chunks, [s.stage for s in steps], [], batch_rows, bool(own))
        judged = _judged(base, [*own, *_rules(steps)])
        answer.documents += base.entered.num_rows
        answer.kept += base.entered.num_rows - len(judged)
        for variant in variants:
            if variant.choice.refused is None:
                there = run(chunks, [s.stage for s in variant.steps], [], batch_rows, bool(own))
                _count(variant, base, judged, there, _judged(there, [*own, *variant.rules]), most)
        if progress:
            progress.advance()
    return answer


def _variants(steps: Sequence[Step], chosen: Step) -> Iterator[_Variant]:
    """The other dialects of one step."""
    bound = chosen.stage
    for other in dialects(bound.use):
        if other == bound.params["dialect"]:
            continue
        choice = Choice(bound.name, bound.params["dialect"], other)
        try:
            loaded = stage.load(bound.use, {**bound.params, "dialect": other}, f"stage {bound.name}")
        except ConfigError as error:
            choice.refused = str(error)
            yield _Variant(choice, [], [], [])
            continue
        known = [rule for rule in chosen.rules if rule.column in loaded.signals]
        choice.absent = [rule.reason for rule in chosen.rules if rule not in known]
        # What a changed text does to the rules of the stages behind it is the dialect's doing, too.
        after = steps[[step is chosen for step in steps].index(True) :] if bound.kind == "rewrite" else []
        mine = [*known, *(rule for step in after for rule in step.rules)]
        choice.rules = [RuleCount(f"{rule.stage}: {rule.reason}") for rule in mine]
        changed = [replace(step, stage=loaded, rules=tuple(known)) if step is chosen else step for step in steps]
        yield _Variant(choice, changed, _rules(changed), mine)


def _rules(steps: Sequence[Step]) -> list[Rule]:
    return [rule for step in steps for rule in step.rules]


def bounded(part: Partition, left: dict[str, int], most: int | None) -> Iterator[Chunk]:
    """The documents of a partition, as far as `most` of its source are not read yet."""
    spec = {"card": part.card.model_dump(mode="json"), "items": [asdict(item) for item in part.items]}
    if most is None:
        yield from tasks.from_source(spec)
        return
    room = left.setdefault(part.card.name, most)
    for chunk in islice(tasks.from_source(spec), most) if room > 0 else ():
        if room <= 0:
            break
        cut = Chunk(chunk.documents.slice(0, room), chunk.rejects.slice(0, room))
        room -= cut.documents.num_rows + cut.rejects.num_rows
        yield cut
    left[part.card.name] = room


def _judged(outcome: Outcome, broken: Sequence[Rule]) -> dict[str, tuple[str, str]]:
    """(stage: reason, detail) of every document that leaves, by its id."""
    gone = pa.concat_tables([outcome.errors, rules.judge(outcome.signals, broken)])
    names = ("doc_id", "stage", "reason", "detail")
    rows = zip(*(gone[name].to_pylist() for name in names), strict=True)
    return {doc_id: (f"{who}: {reason}", detail or "") for doc_id, who, reason, detail in rows}


def _count(
    variant: _Variant,
    base: Outcome,
    was: dict[str, tuple[str, str]],
    there: Outcome,
    now: dict[str, tuple[str, str]],
    most: int,
) -> None:
    choice = variant.choice
    moved = []
    for doc_id in was.keys() | now.keys():
        before, after = was.get(doc_id), now.get(doc_id)
        if before and after:
            choice.other_reason += before[0] != after[0]
            continue
        choice.enters += after is None
        choice.leaves += before is None
        moved.append(doc_id)
    for counted, rule in zip(choice.rules, variant.mine, strict=True):
        sides = [set(rules.judge(side.signals, [rule])["doc_id"].to_pylist()) for side in (base, there)]
        counted.recipe_only += len(sides[0] - sides[1])
        counted.other_only += len(sides[1] - sides[0])
        counted.both += len(sides[0] & sides[1])
    for doc_id in sorted(moved)[: most - len(choice.examples)]:
        ends = _said(was.get(doc_id)), _said(now.get(doc_id))
        choice.examples.append(Example(doc_id, *ends, _text(base, doc_id)))


def _said(verdict: tuple[str, str] | None) -> str:
    return " ".join(filter(None, verdict)) if verdict else KEPT


def _text(outcome: Outcome, doc_id: str) -> str | None:
    row = pc.index(outcome.documents["doc_id"], doc_id).as_py()
    return excerpts.excerpt(outcome.documents["text"][row].as_py()) if row >= 0 else None
