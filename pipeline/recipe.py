"""A recipe: what goes into a version, as TOML, checked whole before anything runs.

Every name in it (source, stage, parameter, column, key) is looked up at load; an error
names the file, the table and what exists. What comes out is frozen and resolved: all
defaults are filled in, so the manifest can state exactly what was built.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import agreement, bands, licences, mixing, rules, stage
from pipeline.bands import Bands
from pipeline.catalog import cards
from pipeline.mixing import Mix
from pipeline.rules import Rule
from pipeline.stage import ConfigError, Stage, suggest

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Licence(_Table):
    """Which licences may enter, and whether documents do of which nobody knows it (`licences`)."""

    allow: list[str] | None = Field(None, min_length=1)
    deny: list[str] | None = Field(None, min_length=1)
    unknown: Literal["keep", "drop"]


class Tokens(_Table):
    """A tokenizer.json that exists, or a byte-level BPE trained on a declared sample of the documents that are kept and
    that no stage made of others. `lowercase` gives it texts in lower case, as BERT's uncased models have it (Devlin et
    al. 2019, arXiv 1810.04805, section 4): an encoder then knows a word by one entry, and a decoder writes no capital.
    """

    tokenizer: str | None = None
    vocab_size: int = Field(8192, ge=258, le=1_000_000)
    sample: str = "32MB"
    lowercase: bool = False


class Pack(_Table):
    """Rows of `length` tokens; `split` gives each split but train its share of the split groups, or its sources."""

    layout: Literal["packed", "examples"] = "packed"
    length: int = Field(512, ge=8, le=1_048_576)
    split: dict[str, float | list[str]] = {"val": 0.01}


@dataclass(frozen=True)
class Step:
    """One stage table of a recipe, with its rules in the order in which they are written."""

    stage: Stage
    rules: tuple[Rule, ...]
    bands: Bands = field(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        told = {
            "use": self.stage.use,
            "kind": self.stage.kind,
            "params": self.stage.params,
            "rules": [{"column": r.column, "operator": r.operator, "bound": r.bound} for r in self.rules],
        }
        return {**told, "expect": bands.plain(self.bands)} if self.bands else told


@dataclass(frozen=True)
class Segment:
    """A run of per-document stages, and the relating stages behind it that end it."""

    steps: tuple[Step, ...]
    relates: tuple[Step, ...]

    @property
    def cuts(self) -> bool:
        """Whether text is cut where its survivors enter the next segment."""
        return bool(self.relates) and self.relates[-1].stage.cuts


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `tokenizer` is the file that `tokens` names, `file` where the recipe was read.

    `allow_dead` names rules that may be dead in this build; it is none of the recipe's own content.
    """

    name: str
    seed: int
    sources: tuple[cards.Card, ...]
    licence: Licence | None
    steps: tuple[Step, ...]
    tokens: Tokens
    pack: Pack
    tokenizer: Path | None = None
    file: str = ""
    allow_dead: tuple[str, ...] = ()
    mix: Mix | None = None

    def place(self, number: int) -> str:
        """How an error names the stage of this number, counted from 1."""
        return f"{self.file or self.name} stage {number} ({self.steps[number - 1].stage.use})"

    @property
    def segments(self) -> list[Segment]:
        """The stages cut at their barriers: at least one segment, each but the last ended by relating stages.

        A stage that cuts ends its segment, so that what follows meets the text as it now stands; behind the last of
        them there is always a segment, if an empty one, before anything is born or packed.
        """
        segments: list[Segment] = []
        steps: list[Step] = []
        relates: list[Step] = []
        for number, step in enumerate(self.steps):
            if relates and (relates[-1].stage.cuts or step.stage.kind != "relate"):
                segments.append(Segment(tuple(steps), tuple(relates)))
                steps, relates = [], []
                if segments[-1].cuts and _only_adds(self.steps[number:]):
                    segments.append(Segment((), ()))
            (relates if step.stage.kind == "relate" else steps).append(step)
        segments.append(Segment(tuple(steps), tuple(relates)))
        return [*segments, Segment((), ())] if segments[-1].cuts else segments

    @property
    def assigning(self) -> int:
        """Number of the segment whose survivors get their splits: when all are compared and cut, and nobody is born."""
        segments = self.segments
        last = max((number for number, segment in enumerate(segments) if segment.relates), default=0)
        return last + segments[last].cuts

    @property
    def foreign(self) -> bool:
        """Whether code may run that holds the GIL for long: somebody's own, a stage that says so (`HOLDS_LOCK`), or a
        source that parses in Python.
        """
        locked = any(getattr(step.stage.module, "HOLDS_LOCK", "." in step.stage.use) for step in self.steps)
        return locked or any(card.kind != "files" for card in self.sources)

    @property
    def rules(self) -> list[Rule]:
        """Every rule that can remove a document, in the order in which they are judged; those of [licence] first."""
        licence = rules.deciding(self.licence.model_dump()) if self.licence else []
        return [*licence, *(rule for step in self.steps for rule in step.rules)]

    @property
    def signals(self) -> dict[str, pa.DataType]:
        """What the stages measure of every document, by stage and column."""
        steps = [step for segment in self.segments for step in segment.steps]
        return {f"{s.stage.name}.{column}": kind for s in steps for column, kind in s.stage.signals.items()}

    def allowing(self, names: Sequence[str]) -> Recipe:
        """The same recipe, of which these rules may be dead. Raises ConfigError for a name that no rule has."""
        known = [rule.name for rule in self.rules]
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"--allow-dead {unknown[0]}: the recipe has no such rule{suggest(unknown[0], known)}")
        return replace(self, allow_dead=tuple(names))

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain data."""
        return {
            "name": self.name,
            "seed": self.seed,
            "sources": [card.name for card in self.sources],
            "licence": self.licence.model_dump() if self.licence else None,
            "stages": [step.resolved() for step in self.steps],
            "tokens": self.tokens.model_dump(),
            "pack": self.pack.model_dump(),
            # Only where it is said: a recipe that mixes nothing is what it was.
            **({"mix": self.mix.model_dump()} if self.mix else {}),
        }


def _only_adds(steps: Sequence[Step]) -> bool:
    """Whether documents are born in these last stages, and compared no more."""
    kinds = {step.stage.kind for step in steps}
    return "extend" in kinds and "relate" not in kinds


def available() -> list[str]:
    """Names of the recipes that ship in `catalogs/recipes`."""
    return sorted(path.stem for path in shipped().glob("*.toml"))


def shipped() -> Path:
    """The folder of the shipped recipes, wherever the package is installed."""
    return Path(str(importlib.resources.files("catalogs") / "recipes"))


def load(name_or_path: str, data: Path | None = None) -> Recipe:
    """Read a recipe: the name of a shipped one, or a path. `data` replaces `{data}` in the cards."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in available():
            raise ConfigError(
                f"unknown recipe {name_or_path!r}{suggest(name_or_path, available())} (or give a .toml file)"
            )
        path = shipped() / f"{name_or_path}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        shipped_ones = ", ".join(available())
        raise ConfigError(f"{path}: no such recipe: {error.strerror}; shipped ones: {shipped_ones}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return parse(table, str(path), path.parent, data)


def parse(table: Mapping[str, Any], where: str, folder: Path, data: Path | None = None) -> Recipe:
    """Check a recipe's table. Relative card paths, tokenizers and files of stages are looked up from `folder`."""
    known = {"name", "seed", "sources", "licence", "stage", "tokens", "pack", "mix"}
    if unknown := sorted(set(table) - known):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}{suggest(unknown[0], known)}")
    name = table.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ConfigError(f"{where}: name must be lower-case letters, digits and hyphens, got {name!r}")
    seed = table.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"{where}: seed must be a whole number, got {seed!r}")
    tables = table.get("stage", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(f"{where}: stages are written as [[stage]] tables, with double brackets")
    tokens = _model(Tokens, table.get("tokens", {}), f"{where} [tokens]")
    if tokens.tokenizer and tokens.lowercase:
        raise ConfigError(
            f"{where} [tokens]: {tokens.tokenizer} reads texts as it was trained; leave lowercase out, or the tokenizer"
        )
    recipe = Recipe(
        name=name,
        seed=seed,
        sources=_sources(table.get("sources"), where, folder, data),
        licence=_licence(table["licence"], f"{where} [licence]") if "licence" in table else None,
        steps=tuple(_step(t, f"{where} stage {n}", folder, data) for n, t in enumerate(tables, 1)),
        tokens=tokens,
        pack=_model(Pack, table.get("pack", {}), f"{where} [pack]"),
        tokenizer=(folder / tokens.tokenizer).resolve() if tokens.tokenizer else None,
        file=where,
        mix=_model(Mix, table["mix"], f"{where} [mix]") if "mix" in table else None,
    )
    if recipe.mix:
        mixing.check(recipe.mix, [card.name for card in recipe.sources], recipe.signals, f"{where} [mix]")
    parse_size(recipe.tokens.sample, f"{where} [tokens] sample")
    agreement.check(recipe, where)
    return recipe


def parse_size(text: str, where: str = "size") -> int:
    """'64MB' to bytes, in decimal units. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", text)
    if not match or (size := int(float(match[1]) * UNITS[match[2]])) < 1:
        raise ConfigError(f"{where}: {text!r} is no size; write it like 64MB or 2GB")
    return size


def _sources(names: Any, where: str, folder: Path, data: Path | None) -> tuple[cards.Card, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{where}: sources must be a list of card names or paths; `gristmill sources` lists the cards"
        )
    loaded = []
    for name in names:
        path = folder / name
        loaded.append(cards.load(str(path) if name.endswith(".toml") else name, data))
    twice = {card.name for card in loaded if [c.name for c in loaded].count(card.name) > 1}
    if twice:
        raise ConfigError(f"{where}: sources name {sorted(twice)[0]!r} twice; document ids would collide")
    return tuple(loaded)


def _step(table: dict[str, Any], where: str, folder: Path, data: Path | None) -> Step:
    table = dict(table)
    use = table.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f"{where}: a stage table needs `use`{suggest('use', stage.available())}")
    verbs = {verb: table.pop(verb, {}) for verb in ("keep", "drop")}
    expected = table.pop("expect", {})
    bound = stage.load(use, table, where, folder, data)
    for verb, columns in verbs.items():
        if not isinstance(columns, dict):
            raise ConfigError(f"{where} ({use}): write {verb}.COLUMN = ..., not {verb} = {columns!r}")
    place = f"{where} ({use})"
    ruled = tuple(rules.parse(bound.name, verbs, bound.signals, place))
    return Step(bound, ruled, bands.parse(expected, ruled, place))


def _licence(table: Any, where: str) -> Licence:
    if isinstance(table, dict) and "unknown" not in table:
        raise ConfigError(
            f'{where}: unknown = "keep" or unknown = "drop" is missing: say what becomes of documents of which nobody '
            "states a licence"
        )
    found: Licence = _model(Licence, table, where)
    for name in ("allow", "deny"):
        for entry in getattr(found, name) or ():
            licences.check_entry(entry, f"{where} {name}")
    return found


def _model(model: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table")
    if unknown := sorted(set(table) - set(model.model_fields)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}{suggest(unknown[0], model.model_fields)}")
    try:
        return model(**table)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']} (got {first['input']!r})"
        ) from error
