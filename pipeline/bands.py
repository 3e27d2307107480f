"""Bands: how much a stage or a rule may remove, as its recipe expects it.

    expect = {min = 0.01, max = 0.4}            of the documents that reach the stage, what leaves there
    expect.word_count = {max = 0.2}             what leaves there by the rules over one column

The law: a removal rate outside its band stops the build at its segment, before anything is made of the survivors. A
document that a rule cannot judge leaves by it; one that broke a stage leaves by the stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.rules import Rule
from pipeline.stage import ConfigError, suggest


class Band(BaseModel):
    """Shares of the documents that reach a stage."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    min: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    max: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)


# By column; the stage's own under an empty name.
Bands = dict[str, Band]


def parse(table: Any, rules: Sequence[Rule], place: str) -> Bands:
    """The bands of one stage table's `expect`. Raises ConfigError naming the place."""
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: write expect = {{min = .., max = ..}} or expect.COLUMN = {{..}}, not {table!r}")
    ruled = {rule.column for rule in rules}
    own = {name: value for name, value in table.items() if not isinstance(value, dict)}
    bands = {"": _band(own, f"{place}: expect")} if own else {}
    for column, band in table.items():
        if not isinstance(band, dict):
            continue
        if column not in ruled:
            raise ConfigError(f"{place}: expect.{column}: no rule of this stage reads it{suggest(column, ruled)}")
        bands[column] = _band(band, f"{place}: expect.{column}")
    return bands


def _band(table: Mapping[str, Any], place: str) -> Band:
    if not table:
        raise ConfigError(f"{place}: states no bound; has: max, min")
    if unknown := sorted(set(table) - {"min", "max"}):
        raise ConfigError(f"{place}: unknown bound {unknown[0]!r}{suggest(unknown[0], ['min', 'max'])}")
    try:
        band = Band(**table)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{place}: {first['loc'][0]}: {first['msg']} (got {first['input']!r})") from error
    if band.min > band.max:
        raise ConfigError(f"{place}: min {band.min:g} is above max {band.max:g}")
    return band


def plain(bands: Bands) -> dict[str, Any]:
    """As a recipe writes them."""
    told: dict[str, Any] = {}
    for column, band in bands.items():
        said = band.model_dump(exclude_unset=True)
        told |= {column: said} if column else said
    return told


def check(entry: Mapping[str, Any], rules: Sequence[Rule], bands: Bands, place: str) -> None:
    """Hold a stage's entry in the books to its bands. Raises ConfigError for the first that it leaves."""
    came = entry["entered"] + entry["added"]
    for column, band in bands.items():
        reasons = {r: n for r, n in entry["reasons"].items() if not column or r in _reasons(column, rules)}
        gone = sum(reasons.values())
        rate = gone / came if came else 0.0
        if band.min <= rate <= band.max:
            continue
        who = f"the rules over {column}" if column else f"stage {entry['stage']!r}"
        most = "; ".join(f"{reason} ({count:,})" for reason, count in list(reasons.items())[:3])
        raise ConfigError(
            f"{place}: {who} removed {rate:.4%} of what came, {gone:,} of {came:,} documents, outside expect"
            f"{f'.{column}' if column else ''} = {_words(band)}; by: {most or 'no rule'}. Change the rule, or the band "
            "where this is right: what was measured is kept, and the next build goes on from here."
        )


def _words(band: Band) -> str:
    return "{" + ", ".join(f"{name} = {value:g}" for name, value in band.model_dump(exclude_unset=True).items()) + "}"


def _reasons(column: str, rules: Iterable[Rule]) -> set[str]:
    return {f"{column} unmeasured", *(rule.reason for rule in rules if rule.column == column)}
