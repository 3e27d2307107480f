"""Cards against their JSON schema: the shipped ones hold, and schema and loader refuse the same damage."""

from __future__ import annotations

import json
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
VALUES: list[Any] = [
    *("", " ", "grain", "Grain", "two words", "a-b", "a_b.C", ".a", "a.", "9", "磨坊", "a/b"),
    *("https://example.org", "http://e", "https://", "https:///x", "https://a b", "ftp://example.org"),
    *("MIT", "CC0 1.0", "GPL-2.0-or-later WITH Font-exception-2.0", "(MIT OR CC0-1.0) AND LGPL-2.1+", "MIT AND"),
    *([], ["en"], ["en", "en"], ["mul"], ["mul", "de"], ["de", "zh-Hans"], ["English"], ["EN"], [""], [3], [None]),
    *({}, {"paths": []}, {"en": 1}, None, 0, 3, 1.5, True),
]


def shipped(name: str) -> dict[str, Any]:
    return tomllib.loads((cards.shipped() / f"{name}.toml").read_text("utf-8"))


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


@pytest.mark.parametrize("field", GOOD)
def test_schema_and_loader_agree_on_any_value(field: str) -> None:
    verdicts = set()
    for value in VALUES:
        table = {**GOOD, field: value}
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
