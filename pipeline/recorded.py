"""What a version recorded of how it was made: its recipe, and the input of its sources.

The recipe is the manifest's; cards and the places of their files are those that the build planned; a tokenizer that was
given lies in the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import bands, stage
from pipeline.books import BuildKeys
from pipeline.catalog import cards
from pipeline.catalog.cards import Card
from pipeline.manifest import Version
from pipeline.mixing import Mix
from pipeline.plan import Input
from pipeline.recipe import Licence, Pack, Recipe, Step, Tokens
from pipeline.rules import Rule
from pipeline.sources import Item, SourceError, survey
from pipeline.stage import ConfigError
from pipeline.store import Store


def recorded(store: Store, version: Version, keys: BuildKeys, data: Path | None = None) -> tuple[Recipe, list[Input]]:
    """The recipe and the input behind a version; `data` replaces the data folder of then.

    Raises ConfigError where this code no longer knows what was used, SourceError where a source has changed.
    """
    found = recipe_of(store, version, keys, data)
    sources = {source["name"]: source for source in version.manifest["sources"]}
    return found, [_input(version, card, sources[card.name]) for card in found.sources]


def recipe_of(store: Store, version: Version, keys: BuildKeys, data: Path | None = None) -> Recipe:
    """The recipe behind a version; its sources are not looked at. Raises ConfigError as `recorded`."""
    table = version.manifest["recipe"]
    given = _cards(store, keys, data)
    if missing := [name for name in table["sources"] if name not in given]:
        raise ConfigError(f"{version.address}: the card of source {missing[0]!r} is not in the store's plans")
    return Recipe(
        name=table["name"],
        seed=table["seed"],
        sources=tuple(given[name] for name in table["sources"]),
        licence=Licence(**table["licence"]) if table["licence"] else None,
        steps=tuple(_step(entry, f"{version.address} stage {n}") for n, entry in enumerate(table["stages"], 1)),
        tokens=Tokens(**table["tokens"]),
        pack=Pack(**table["pack"]),
        tokenizer=_tokenizer(version) if table["tokens"]["tokenizer"] else None,
        file=version.address,
        mix=Mix(**table["mix"]) if "mix" in table else None,
        allow_dead=tuple(version.manifest["summaries"].get("canaries", {}).get("allowed", [])),
    )


def planned(store: Store, recipe: Recipe, keys: BuildKeys) -> list[Input]:
    """The input of every source as the build planned it, whatever became of the files."""
    items: dict[str, list[Item]] = {card.name: [] for card in recipe.sources}
    for key in keys.segments[0].parts:
        source = store.spec(key)["source"]
        items[source["card"]["name"]] += [Item.from_dict(item) for item in source["items"]]
    return [Input(card, tuple(items[card.name])) for card in recipe.sources]


def _cards(store: Store, keys: BuildKeys, data: Path | None) -> dict[str, Card]:
    """The cards of the first segment's plans, which know where each lay and which data folder it read."""
    found: dict[str, Card] = {}
    for key in keys.segments[0].parts:
        try:
            source = store.spec(key)["source"]
            name, file = source["card"]["name"], Path(source["file"])
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"the plan of {key} is not in {store.root}, or older than this program ({error!r}); build the version "
                "again from its recipe"
            ) from error
        if name not in found:
            folder = data or (Path(source["data"]) if source["data"] else None)
            found[name] = cards.again(source["card"], file, folder)
    return found


def _step(table: Mapping[str, Any], where: str) -> Step:
    bound = stage.load(table["use"], table["params"], where)
    rules = tuple(Rule(bound.name, r["column"], r["operator"], r["bound"]) for r in table["rules"])
    return Step(bound, rules, bands.parse(table.get("expect", {}), rules, where))


def _tokenizer(version: Version) -> Path:
    return version.folder.absolute() / str(version.manifest["tokenizer"]["file"])


def _input(version: Version, card: Card, said: Mapping[str, Any]) -> Input:
    """The items of the files that the manifest names. Files that came since are none of this version's."""
    known = {file["path"]: file for file in said["files"]}
    found = Input(card, tuple(item for item in survey(card) if item.path in known))
    there = {file["path"]: file for file in found.files()}
    drifted = [path for path in known if there.get(path, {}).get("sha256") != known[path]["sha256"]]
    if drifted:
        path, others = drifted[0], len(drifted) - 1
        place = next((item.location for item in found.items if item.path == path), path)
        now = there[path]["sha256"] if path in there else "nothing: the file is gone"
        more = f" ({others:,} files more differ)" if others else ""
        raise SourceError(
            f"source {card.name} has changed since {version.address} was built: {place} had sha256 "
            f"{known[path]['sha256']}, and now has {now}{more}; bring it back, or build a new version"
        )
    return found
