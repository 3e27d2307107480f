"""What may be extended, by what: everything is checked before a document is read, and nothing is written.

A version can be extended under survivor rule "earliest" alone: under "best" a new document could take the place of one
that is kept. Nor can one whose stages cut what several documents share, or add documents: both look at the whole corpus
and would change what was kept. A stage whose code has changed since measures otherwise than it measured then.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import addresses, ingredients, plan, recorded
from pipeline import recipe as recipes
from pipeline.agreement import CHAT, rows_of
from pipeline.books import BuildKeys
from pipeline.catalog import cards
from pipeline.catalog.cards import Card
from pipeline.manifest import Version
from pipeline.recipe import Recipe
from pipeline.stage import ConfigError
from pipeline.store import Store, file_digest

ANEW = "build the recipe with all sources anew"
# Tables of a recipe by their names in a manifest.
STATED = {"seed": "seed", "licence": "licence", "stage": "stages", "tokens": "tokens", "pack": "pack"}


@dataclass(frozen=True)
class Request:
    """The version to extend, the sources that come (names of cards or their files), and the name of what comes out.

    `stated` are tables of a recipe that the version has to have been built by, `file` where they were read.
    """

    address: str
    sources: tuple[str, ...]
    name: str | None = None
    stated: Mapping[str, Any] | None = None
    file: str = ""


@dataclass(frozen=True)
class Plan:
    """A version, where its books lie, the recipe of what comes out and the sources that are new in it."""

    version: Version
    keys: BuildKeys
    recipe: Recipe
    new: tuple[Card, ...]


def request_of(recipe: str) -> Request | None:
    """What a recipe file with `extends` asks for; None for any other. Raises ConfigError for one that cannot be."""
    path = Path(recipe)
    try:
        table = tomllib.loads(path.read_text("utf-8")) if path.suffix == ".toml" else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None  # to read it as a recipe says why
    if "extends" not in table:
        return None
    if not isinstance(table["extends"], str):
        raise ConfigError(f"{path}: extends must be the address of a version (NAME@VERSION), got {table['extends']!r}")
    stated = {key: value for key, value in table.items() if key != "extends"}
    recipes.parse(stated, str(path), path.parent)
    sources = tuple(str(path.parent / name) if name.endswith(".toml") else name for name in table["sources"])
    return Request(table["extends"], sources, table["name"], stated, str(path))


def check(store: Store, request: Request, data: Path | None = None) -> Plan:
    """Raises ConfigError, StoreError, and what loading a card raises."""
    version, keys = addresses.find(store, request.address)
    old = recorded.recipe_of(store, version, keys, data)
    _check_stages(version, old)
    _check_tokenizer(version)
    _check_stated(version, request, data)
    new = tuple(_card(version, name, data) for name in request.sources)
    if not new:
        raise ConfigError(f"say what comes to {version.address}: --source CARD")
    if twice := sorted(card.name for card in new if [each.name for each in new].count(card.name) > 1):
        raise ConfigError(f"source {twice[0]!r} is named twice; document ids would collide")
    name = request.name or old.name
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ConfigError(f"--name must be lower-case letters, digits and hyphens, got {name!r}")
    _check_targets(store, version, keys, new)
    _check_code(store, version, keys, old)
    return Plan(version, keys, replace(old, name=name, sources=(*old.sources, *new)), new)


def _check_stages(version: Version, recipe: Recipe) -> None:
    """Raise ConfigError for a stage that looks at the whole corpus in a way that new documents would change."""
    if recipe.mix:
        raise ConfigError(f"{version.address} cannot be extended: [mix] shares out what all sources have; {ANEW}")
    for step in recipe.steps:
        stage, place = step.stage, f"{version.address} cannot be extended: stage {step.stage.name}"
        if stage.kind == "extend":
            raise ConfigError(f"{place} adds documents, and may add what a new document already says; {ANEW}")
        if stage.cuts:
            raise ConfigError(f"{place} cuts what several documents share, and would cut kept texts again; {ANEW}")
        if stage.kind == "relate" and not stage.grows:
            raise ConfigError(f"{place} has no compare_new and cluster_new to hold new documents against old; {ANEW}")
        if stage.params.get("survivor", "earliest") != "earliest":
            raise ConfigError(
                f'{place} has survivor = "{stage.params["survivor"]}", so a new document could take the place of one '
                f'that is kept; build it with survivor = "earliest", or {ANEW}'
            )
    if len(related := [segment for segment in recipe.segments if segment.relates]) > 1:
        names = [segment.relates[0].stage.name for segment in related]
        raise ConfigError(
            f"{version.address} cannot be extended: {' and '.join(names)} stand in two segments; put them side by "
            f"side, or {ANEW}"
        )


def _check_tokenizer(version: Version) -> None:
    said = version.manifest["tokenizer"]
    path = version.folder / said["file"]
    if not path.is_file() or file_digest(path, "sha256") != said["sha256"]:
        raise ConfigError(f"{path} is not the tokenizer of {version.address}: it was changed or is gone; restore it")


def _check_stated(version: Version, request: Request, data: Path | None) -> None:
    """Raise ConfigError where a recipe states what the version was not built by."""
    if request.stated is None:
        return
    folder = Path(request.file).parent
    parsed = recipes.parse(request.stated, request.file, folder, data)
    mine, theirs = parsed.resolved(), version.manifest["recipe"]
    here = dict(theirs)
    for key, name in STATED.items():
        if isinstance(table := request.stated.get(key), dict) and theirs[name] is not None:
            here[name] = {**theirs[name], **{k: mine[name][k] for k in table if k != "tokenizer"}}
        elif key in request.stated:
            here[name] = mine[name]
    for what, before, after in ingredients.recipe(version.manifest, {"recipe": here}):
        raise ConfigError(
            f"{request.file}: {what} is {after} there and {before} in {version.address}, which it extends; leave the "
            f"table out, or {ANEW}"
        )
    given = parsed.tokenizer
    if given and not (given.is_file() and file_digest(given, "sha256") == version.manifest["tokenizer"]["sha256"]):
        raise ConfigError(
            f"{request.file} [tokens] tokenizer: {given} is not the tokenizer of {version.address}, by which its "
            "shards were made; leave it out"
        )


def _card(version: Version, name: str, data: Path | None) -> Card:
    card = cards.load(name, data)
    if card.name in {source["name"] for source in version.manifest["sources"]}:
        raise ConfigError(
            f"source {card.name!r} is in {version.address} already; a new dump of it is a card of its own, with "
            "another name"
        )
    return card


def _check_targets(store: Store, version: Version, keys: BuildKeys, new: Sequence[Card]) -> None:
    """Raise ConfigError for a card that maps a target where the version's rows have none."""
    for card in new:
        maps = rows_of(card) == CHAT or "target" in (card.params.get("columns") or {})
        if maps and store.result(keys.packed)["targets"] is None:
            raise ConfigError(
                f"card {card.name!r} ({card.file}) maps a target, and the rows of {version.address} have none; take it "
                f"out of the card's columns, or {ANEW}"
            )


def _check_code(store: Store, version: Version, keys: BuildKeys, recipe: Recipe) -> None:
    """Raise ConfigError where a partition that is there would have another key now: other code, or another model."""
    for number, segment in enumerate(recipe.segments):
        key, spec = _made_by(store, keys.segments[number].parts[0])
        if plan.segment_key(recipe, segment, number, spec) != key:
            names = ", ".join(step.stage.name for step in (*segment.steps, *segment.relates)) or "reading"
            raise ConfigError(
                f"{version.address} cannot be extended: the code behind {names} (a stage, a kernel, or a package or "
                "model that it uses) is not what built it, and would measure new documents otherwise; build it again "
                "from its recipe first"
            )


def _made_by(store: Store, key: str) -> tuple[str, plan.Spec]:
    """The key and specification of the task that made an output, before anybody was taken out of it."""
    try:
        spec = store.spec(key)
        while "of" in spec:
            key, spec = spec["of"], store.spec(spec["of"])
    except (OSError, ValueError) as error:
        raise ConfigError(f"the plan of {key} is not in {store.root} ({error!r}); build the version again") from error
    return key, spec
