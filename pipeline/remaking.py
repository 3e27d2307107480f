"""Write the recipe of a sealed version again, with its rules changed, so that building it computes only what changed.

The manifest states the resolved recipe and the store what the sources were; comments and defaults that were left
unsaid are not kept. A partition that was measured is not measured again: partitions are cut as they were.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import changes as asking
from pipeline import recipe as recipes
from pipeline.catalog import cards
from pipeline.changes import Ruled
from pipeline.digests import digest
from pipeline.manifest import Version
from pipeline.rules import licence_of
from pipeline.sources import Item
from pipeline.stage import ConfigError
from pipeline.store import Store, room, write_text

PARTITION = 8_000_000


@dataclass(frozen=True)
class Remade:
    """A changed recipe, the version that it comes from, and how that was built."""

    path: Path
    parent: str
    partition_size: str
    data: str | None


def write(
    store: Store,
    version: Version,
    changes: Sequence[str],
    name: str | None = None,
    out: Path | None = None,
    data: Path | None = None,
) -> Remade:
    """Write the recipe of a version with its rules changed, to `out` or into the store.

    Raises ConfigError for a change that cannot be, a card that is not what it was, or books that are not in this store.
    """
    if version.manifest.get("forgotten"):
        raise ConfigError(
            f"in {version.address} documents were forgotten, and a build from its sources would read them again: take "
            "them out of the sources and build the recipe"
        )
    if version.manifest.get("extended"):
        raise ConfigError(
            f"{version.address} was extended, and a build from its sources would not keep whom it keeps: change its "
            f"first parent, {version.manifest['parents'][0]}, and extend what comes of it"
        )
    said = asking.changed(asking.ruled(version, store), [asking.parse(text) for text in changes])
    sources = _sources(store, version)
    folder = data or next((Path(s["data"]) for s in sources.values() if s.get("data")), None)
    table = _table(store, version, said, name or version.manifest["name"])
    table["sources"] = [_card(sources.get(source), source, folder) for source in table["sources"]]
    text = f"# The rules of {version.address}, changed: {', '.join(changes) or 'not at all'}.\n{toml(table)}"
    path = out or store.root / "recipes" / f"{table['name']}-{digest(text)[:8]}.toml"
    if out and (out.suffix != ".toml" or not out.absolute().parent.is_dir()):
        raise ConfigError(f"{out}: a recipe is a .toml file in a folder that exists")
    recipes.parse(tomllib.loads(text), str(path), path.parent, folder)
    with room(store.root):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return Remade(path, version.address, f"{_partition_bytes(store, version)}B", str(folder) if folder else None)


def _sources(store: Store, version: Version) -> dict[str, dict[str, Any]]:
    """Of each source: its card as it was, the card's file and the data folder."""
    parts = version.build_keys().segments[0].parts
    found = (_spec(store, key)["source"] for key in parts)
    return {source["card"]["name"]: source for source in found}


def _spec(store: Store, key: str) -> dict[str, Any]:
    try:
        return store.spec(key)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{store.root / 'plans' / key}.json cannot be read, so the sources of this version are not known here; "
            "change its recipe by hand and build that"
        ) from error


def _card(source: Mapping[str, Any] | None, name: str, data: Path | None) -> str:
    """How a recipe names a card that is still what it was: the name of a shipped one, or the path of a file."""
    files = [name] if name in cards.available() else []
    files += [source["file"]] if source and source.get("file") else []
    for file in files:
        if file == name or Path(file).is_file():
            card = cards.load(file, data)
            if source is None or card.model_dump() == cards.Card.model_validate(source["card"]).model_dump():
                return file
    where = files[-1] if files else f"of source {name}"
    raise ConfigError(f"the card {where} is not there, or not what it was when {name} was read: build from the recipe")


def _table(store: Store, version: Version, stages: Sequence[Ruled], name: str) -> dict[str, Any]:
    """The recipe as a table, with the rules of `stages`."""
    recipe = version.manifest["recipe"]
    table = {"name": name, "seed": recipe["seed"], "sources": recipe["sources"]}
    tokens = dict(recipe["tokens"])
    if tokens["tokenizer"]:
        tokens["tokenizer"] = _spec(store, version.build_keys().vocabulary)["tokenizer"]
    written = iter(recipe["stages"])
    for stage in stages:
        if stage.kind == "licence":
            table["licence"] = licence_of(stage.rules)
        else:
            entry = {"use": stage.use, **stage.params, **stage.tables(), **_bands(stage, next(written))}
            table.setdefault("stage", []).append(entry)
    return {**table, "tokens": tokens, "pack": recipe["pack"], **({"mix": recipe["mix"]} if "mix" in recipe else {})}


def _bands(stage: Ruled, written: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe expects of a stage, but for columns over which there is no rule any more."""
    ruled = {rule.column for rule in stage.rules}
    bands = {k: v for k, v in written.get("expect", {}).items() if k in ruled or not isinstance(v, Mapping)}
    return {"expect": bands} if bands else {}


def toml(table: Mapping[str, Any]) -> str:
    """A recipe's table as TOML: values first, then tables; what is None is left out."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *_entries(value)]
        elif _is_table(value):
            for entry in value:
                lines += ["", f"[[{key}]]", *_entries(entry)]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _entries(table: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in table.items():
        if key in ("keep", "drop"):
            lines += [f"{key}.{_key(column)} = {_value(bound)}" for column, bound in value.items()]
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines


def _key(text: str) -> str:
    return text if text.isascii() and text.replace("_", "").replace("-", "").isalnum() else _text(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _partition_bytes(store: Store, version: Version) -> int:
    """A partition size that cuts the sources as they were cut."""
    least, most = 0, math.inf
    runs = [_spec(store, key)["source"] for key in version.build_keys().segments[0].parts]
    for number, run in enumerate(runs):
        weights = [Item.from_dict(item).weight for item in run["items"]]
        least = max(least, sum(weights[:-1]))
        if number + 1 < len(runs) and runs[number + 1]["card"]["name"] == run["card"]["name"]:
            most = min(most, sum(weights))
    if least >= most:
        return PARTITION
    return int(most) if most < math.inf else max(least + 1, PARTITION)
