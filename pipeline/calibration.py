"""Bounds of a recipe's rules learnt from a reference sample, as FineWeb-2 sets them for each language.

A bound that was found on English pages says nothing of a language with other words, or without words. FineWeb-2
(Penedo et al. 2025, arXiv 2506.20920, on adapting filters to a language) tries these:

    tail          the share `tail` of the sample lies beyond the bound (their "10Tail" with .1)
    quantile      as much of the sample lies beyond it as of the origin's beyond the origin's bound
    median-ratio  it is to the sample's median what the origin's bound is to the origin's median
    mean-std      it lies as many standard deviations from the sample's mean as the origin's from its mean

The origin is a recipe whose bounds are trusted where they were made, with its own sources. A sample is what a recipe's
rules over lists (its languages, say) let through of its sources, and its rules over numbers where these are not
calibrated themselves; documents are measured by all its stages, and compared with no others.

The law: a bound by `tail` or `quantile` removes no more of the sample than it says, and any tighter one that has as
few digits would. Nothing is stored, and the order of documents decides nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import plan, remaking, rules, stage
from pipeline.choices import bounded
from pipeline.recipe import Recipe, Step
from pipeline.rules import Rule
from pipeline.run import run
from pipeline.runner import Progress
from pipeline.stage import ConfigError, suggest

METHODS = ("tail", "quantile", "median-ratio", "mean-std")
# Documents that lie beyond a bound, at the least, for it to be more than chance; and digits behind the point.
FEWEST, DIGITS = 10, 3
Values = NDArray[np.float64]
# A bound for a rule from the sorted values of a sample, or why there is none.
Learn = Callable[[Rule, Values], float | str]


@dataclass(frozen=True)
class Bound:
    """One rule: the recipe's bound and the one that was learnt, which is the same where `kept` says why.

    `removed` and `was_removed` are the shares of the sample that lie beyond the two.
    """

    rule: str
    was: float
    was_removed: float
    bound: float
    removed: float
    median: float
    documents: int
    kept: str | None = None


@dataclass
class Answer:
    """What a sample says of a recipe's rules; `toml` has its stages with the learnt bounds."""

    recipe: str
    method: str
    tail: float | None
    origin: str | None
    sources: list[str]
    read: int
    documents: int
    bounds: list[Bound] = field(default_factory=list)
    toml: str = ""


def ask(
    recipe: Recipe,
    method: str = "tail",
    tail: float = 0.1,
    origin: Recipe | None = None,
    stages: Sequence[str] = (),
    documents: int | None = None,
    batch_rows: int = 4096,
    progress: Progress | None = None,
) -> Answer:
    """Learn the bounds of the rules over numbers, of these `stages` or of all, from the recipe's sources.

    `documents` bounds what is read of each source. Raises ConfigError where nothing can be learnt, or the sample is too
    small, and what reading the sources raises.
    """
    _check(recipe, method, tail, origin, stages)
    asked = _calibrated(recipe, stages)
    if not asked:
        raise ConfigError(f"{recipe.name}: no rule bounds a number before documents are compared; nothing to calibrate")
    read, count, values = _sample(recipe, asked, stages, documents, batch_rows, progress)
    answer = Answer(recipe.name, method, None, None, [card.name for card in recipe.sources], read, count)
    if method == "tail":
        answer.tail = tail
        _enough(recipe, count, math.ceil(FEWEST / tail - 1e-9))
        learn: Learn = partial(_beyond, tail)
    else:
        assert origin is not None
        answer.origin = origin.name
        _enough(recipe, count, 10 * FEWEST)
        learn = _after(origin, method, asked, stages, documents, batch_rows, progress)
    answer.bounds = [_bound(rule, values[rule.signal], learn) for rule in asked]
    answer.toml = _toml(recipe, asked, answer.bounds)
    return answer


def quantile(values: Values, operator: str, share: float) -> float:
    """The bound beyond which at most `share` of sorted values lie, the tightest of `DIGITS` digits."""
    n = values.size
    beyond = min(math.floor(share * n + 1e-9), n - 1)
    scale = 10**DIGITS
    if operator == "above":
        return math.ceil(float(values[n - 1 - beyond]) * scale - 1e-6) / scale
    return math.floor(float(values[beyond]) * scale + 1e-6) / scale


def _beyond(share: float, rule: Rule, values: Values) -> float | str:
    return quantile(values, rule.operator, share)


def removed(values: Values, operator: str, bound: float) -> float:
    """The share of values that a rule removes."""
    return float(np.mean(values > bound if operator == "above" else values < bound))


def _check(recipe: Recipe, method: str, tail: float, origin: Recipe | None, stages: Sequence[str]) -> None:
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}{suggest(method, METHODS)}")
    if not 0 < tail < 0.5:
        raise ConfigError(f"tail must lie between 0 and .5, not {tail}")
    if (origin is None) != (method == "tail"):
        need = "needs none" if method == "tail" else "needs --origin RECIPE, whose bounds are carried over"
        raise ConfigError(f"method {method} {need}")
    names = [step.stage.name for step in _steps(recipe)]
    if unknown := [name for name in stages if name not in names]:
        raise ConfigError(f"{recipe.name} has no stage {unknown[0]!r} that measures{suggest(unknown[0], names)}")


def _enough(recipe: Recipe, count: int, least: int) -> None:
    if count < least:
        raise ConfigError(
            f"{recipe.name}: {count} documents of its sources pass the rules that are not calibrated, at least {least} "
            "are needed: give a larger sample"
        )


def _steps(recipe: Recipe) -> list[Step]:
    """What looks at a document alone, on either side of a barrier."""
    return [step for step in recipe.steps if step.stage.kind in ("measure", "rewrite")]


def _calibrated(recipe: Recipe, stages: Sequence[str]) -> list[Rule]:
    found = (rule for step in _steps(recipe) if not stages or step.stage.name in stages for rule in step.rules)
    return [rule for rule in found if rule.operator in ("below", "above")]


def _sample(
    recipe: Recipe,
    asked: Sequence[Rule],
    stages: Sequence[str],
    most: int | None,
    batch_rows: int,
    progress: Progress | None,
) -> tuple[int, int, dict[str, Values]]:
    """(documents read, documents of the sample, sorted values of each asked signal)."""
    steps = _steps(recipe)
    mine = _calibrated(recipe, stages)
    choosing = [*rules.of_licence(recipe.licence.model_dump())] if recipe.licence else []
    choosing += [rule for step in steps for rule in step.rules if rule not in mine]
    columns: dict[str, list[Values]] = {rule.signal: [] for rule in asked}
    parts = list(plan.partitions(plan.look(recipe), 8_000_000))
    if progress:
        progress.phase(f"measure {recipe.name}", len(parts))
    read = count = 0
    left: dict[str, int] = {}
    for part in parts:
        found = run(
            list(bounded(part, left, most)), [s.stage for s in steps], [], batch_rows, recipe.licence is not None
        )
        gone = rules.judge(found.signals, choosing)["doc_id"]
        chosen = found.signals.filter(pc.invert(pc.is_in(found.signals["doc_id"], gone.combine_chunks())))
        read += found.entered.num_rows
        count += chosen.num_rows
        for name, several in columns.items():
            several.append(pc.drop_null(chosen[name]).combine_chunks().cast(pa.float64()).to_numpy())
        if progress:
            progress.advance()
    return read, count, {name: np.sort(np.concatenate([np.empty(0), *several])) for name, several in columns.items()}


def _after(
    origin: Recipe,
    method: str,
    asked: Sequence[Rule],
    stages: Sequence[str],
    most: int | None,
    batch_rows: int,
    progress: Progress | None,
) -> Learn:
    """What carries a bound of the origin over; it says why where it cannot."""
    known = {(rule.signal, rule.operator): rule for rule in _calibrated(origin, stages)}
    there = [known[rule.signal, rule.operator] for rule in asked if (rule.signal, rule.operator) in known]
    if not there:
        raise ConfigError(f"{origin.name} has no rule that {', '.join(rule.name for rule in asked[:3])} could follow")
    _, count, values = _sample(origin, there, stages, most, batch_rows, progress)
    _enough(origin, count, 10 * FEWEST)

    def learn(rule: Rule, here: Values) -> float | str:
        theirs = known.get((rule.signal, rule.operator))
        if theirs is None or not values[rule.signal].size:
            return f"{origin.name} has no such rule" if theirs is None else f"{origin.name} measures nothing"
        old, bound = values[rule.signal], float(theirs.bound)
        if method == "quantile":
            return quantile(here, rule.operator, removed(old, rule.operator, bound))
        if method == "median-ratio":
            middle = _median(old)
            return f"the median of {origin.name} is 0" if middle == 0 else round(bound / middle * _median(here), DIGITS)
        spread = _deviation(old)
        if spread == 0:
            return f"all of {origin.name} have one value"
        return round(_mean(here) + _deviation(here) * (bound - _mean(old)) / spread, DIGITS)

    return learn


def _bound(rule: Rule, values: Values, learn: Learn) -> Bound:
    was = rule.bound
    if not values.size:
        return Bound(rule.name, was, 0.0, was, 0.0, math.nan, 0, "nothing was measured")
    found = learn(rule, values)
    extreme = float(values[0] if rule.operator == "above" else values[-1])
    if not isinstance(found, str) and found == extreme:
        share = float(np.mean(values == extreme))
        found = f"{share:.1%} have {extreme:g}, and the rest is no tail of them"
    kept = found if isinstance(found, str) else None
    bound = was if isinstance(found, str) else found
    if isinstance(was, int) and bound == int(bound):
        bound = int(bound)
    shares = [round(removed(values, rule.operator, one), 4) for one in (was, bound)]
    return Bound(rule.name, was, shares[0], bound, shares[1], round(_median(values), 6), values.size, kept)


def _median(values: Values) -> float:
    middle = values.size // 2
    return float(values[middle]) if values.size % 2 else (float(values[middle - 1]) + float(values[middle])) / 2


def _mean(values: Values) -> float:
    return math.fsum(values) / values.size


def _deviation(values: Values) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((values - mean) ** 2) / values.size)


def _toml(recipe: Recipe, asked: Sequence[Rule], bounds: Sequence[Bound]) -> str:
    """The calibrated stages as a recipe has them, with the parameters that are not their defaults."""
    learnt = {rule.name: bound.bound for rule, bound in zip(asked, bounds, strict=True)}
    tables = []
    for step in _steps(recipe):
        drop: dict[str, dict[str, Any]] = {}
        for rule in step.rules:
            if rule.name in learnt:
                drop.setdefault(rule.column, {})[rule.operator] = learnt[rule.name]
        if drop:
            tables.append({"use": step.stage.use, **dict(_stated(step)), "drop": drop})
    return remaking.toml({"stage": tables}).lstrip("\n")


def _stated(step: Step) -> Iterator[tuple[str, Any]]:
    defaults = inspect.signature(stage.find(step.stage.use)).parameters
    return ((name, value) for name, value in step.stage.params.items() if value != defaults[name].default)
