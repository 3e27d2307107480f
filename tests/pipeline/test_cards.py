"""Cards against their JSON schema: the shipped ones hold, and schema and loader refuse the same damage."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from pipeline.catalog import cards
from pipeline.stage import ConfigError

SCHEMA = json.loads((Path(__file__).parents[2] / "catalogs" / "schemas" / "card.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GOOD: dict[str, Any] = {
    "name": "grain",
    "kind": "files",
    "title": "Test grain",
    "description": "Made by the tests.",
    "homepage": "https://example.org/grain",
    "licence": "CC0-1.0",
    "languages": ["en"],
    "params": {"paths": ["*.jsonl"]},
}
# What a card may say and need not.
MORE: dict[str, Any] = {
    "category": "web",
    "size": "about 3 GB",
    "citation": "Somebody 2024, arXiv 2401.00001",
    "problems": ["Crawled pages."],
}
VALUES: list[Any] = [
    *("web", "evaluation"),
    *("", " ", "grain", "Grain", "two words", "a-b", "a_b.C", ".a", "a.", "9", "磨坊", "a/b"),
    *("https://example.org", "http://e", "https://", "https:///x", "https://a b", "ftp://example.org"),
    *("MIT", "CC0 1.0", "GPL-2.0-or-later WITH Font-exception-2.0", "(MIT OR CC0-1.0) AND LGPL-2.1+", "MIT AND"),
    *([], ["en"], ["en", "en"], ["mul"], ["mul", "de"], ["de", "zh-Hans"], ["English"], ["EN"], [""], [3], [None]),
    *({}, {"paths": []}, {"en": 1}, None, 0, 3, 1.5, True),
]


def shipped(name: str) -> dict[str, Any]:
    [path] = cards.shipped().rglob(f"{name}.toml")
    return tomllib.loads(path.read_text("utf-8"))


def loader_takes(table: dict[str, Any]) -> bool:
    try:
        cards.Card.model_validate(table)
    except ValidationError:
        return False
    return True


def test_the_schema_is_a_schema_with_the_keys_of_a_card() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == set(cards.Card.model_fields)
    assert set(SCHEMA["required"]) == {name for name, field in cards.Card.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("name", cards.available())
def test_a_shipped_card_holds_for_schema_and_loader(name: str) -> None:
    VALIDATOR.validate(shipped(name))
    assert cards.load(name).name == name == shipped(name)["name"]


HUB = [name for name in cards.available() if shipped(name)["kind"] == "hub"]


def test_many_open_data_sets_have_a_card_of_each_category() -> None:
    """Names are unique in all folders, whatever folder they lie in."""
    files = [path.stem for path in cards.shipped().rglob("*.toml")]
    assert sorted(files) == cards.available() and len(HUB) >= 40
    known = [cards.load(name) for name in HUB]
    few = {"web": 5, "code": 2, "books": 2, "encyclopaedia": 2, "instruction": 5, "classification": 5, "evaluation": 8}
    for category, least in few.items():
        assert sum(card.category == category for card in known) >= least, category
    assert sum("zh" in card.languages for card in known) >= 10 and sum("mul" in card.languages for card in known) >= 2
    assert len({(card.params["dataset"], card.params["subset"], str(card.params["files"])) for card in known}) == len(
        HUB
    )


@pytest.mark.parametrize("name", HUB)
def test_a_card_of_the_hub_says_what_who_looks_for_one_asks(name: str) -> None:
    card = cards.load(name)
    assert card.category and card.size and card.citation and card.problems
    owner, _, dataset = card.params["dataset"].partition("/")
    assert owner and dataset and card.homepage == f"https://huggingface.co/datasets/{owner}/{dataset}"
    told = [name for name in ("columns", "chat", "items") if card.params[name] is not None]
    assert len(told) == 1 and (told != ["columns"] or "text" in card.params["columns"])
    # A branch is refused with the commit that it is at: the card says that there is one to be pinned.
    pinned = re.fullmatch("[0-9a-f]{40}", card.params["revision"])
    assert pinned or (card.params["revision"] == "main" and any("not pinned" in p for p in card.problems))
    if card.licence == "NOASSERTION" or card.licence.startswith("LicenseRef"):
        assert any(re.search("licence|copyright|terms|research|commercial|agreement", p) for p in card.problems), name


@pytest.mark.parametrize("field", [*GOOD, *MORE])
def test_schema_and_loader_agree_on_any_value(field: str) -> None:
    verdicts = set()
    for value in VALUES:
        table = {**GOOD, **MORE, field: value}
        assert VALIDATOR.is_valid(table) == loader_takes(table), value
        verdicts.add(loader_takes(table))
    assert verdicts == {True, False}


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_key_is_refused_by_both_but_for_params(field: str) -> None:
    table = {name: value for name, value in GOOD.items() if name != field}
    assert VALIDATOR.is_valid(table) == loader_takes(table) == (field == "params")


def test_a_mistyped_key_is_refused_by_both_and_the_loader_names_the_right_one() -> None:
    table = {**GOOD, "license": "MIT"}
    assert not VALIDATOR.is_valid(table)
    with pytest.raises(ConfigError, match=r"here: unknown key 'license'; did you mean 'licence'"):
        cards.parse(table, "here")


def test_a_mistyped_parameter_is_for_the_loader_to_find() -> None:
    """The schema leaves parameters to the kind: it does not know what kinds there are."""
    table = {**GOOD, "params": {"path": ["*.jsonl"]}}
    assert VALIDATOR.is_valid(table)
    with pytest.raises(ConfigError, match=r"unknown parameter 'path'; did you mean 'paths'"):
        cards.parse(table, "here")
