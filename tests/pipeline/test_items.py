"""Evaluation sets become versions whose document index holds what is asked, to the byte; bad items are told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import audit, manifest
from pipeline import recipe as recipes
from pipeline.build import Mill
from pipeline.forgetting import operation
from pipeline.forgetting.selecting import Request
from pipeline.recipe import Recipe
from pipeline.sources._rows import RowError
from pipeline.sources.items import asking
from pipeline.stage import ConfigError
from pipeline.store import Store

CARD = """
name = "riddles"
kind = "items"
title = "Riddles"
description = "Made by the tests."
homepage = "https://example.org"
licence = "CC0-1.0"
languages = ["en"]
[params]
paths = ["data/riddles.*"]
"""
RECIPE: dict[str, Any] = {
    "name": "riddles",
    "sources": ["riddles.toml"],
    "tokens": {"vocab_size": 300},
    "pack": {"layout": "examples", "length": 16, "split": {}},
}
# White space at the ends, both Unicode forms of an e with an accent, CRLF, NUL, right-to-left marks, and an emoji.
ODD = ["  What?  ", "cafe\u0301", "café", "a\r\nb", "nul\x00", "\u202eabc", "👩‍🚀", "tab\t", "{query}", "e\n\n"]


def recipe(folder: Path, params: str = "", **changes: Any) -> Recipe:
    (folder / "riddles.toml").write_text(CARD + params, "utf-8")
    return recipes.parse({**RECIPE, **changes}, "riddles", folder)


def write(folder: Path, rows: list[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "riddles.jsonl").write_bytes("\n".join(lines).encode())


def built(folder: Path, params: str = "", **changes: Any) -> tuple[Store, manifest.Version]:
    store = Store(folder / "store")
    return store, Mill(store).build(recipe(folder, params, **changes))


def items(version: manifest.Version) -> list[dict[str, Any]]:
    table = version.index().sort_by("doc_id").to_pylist()
    rows = sorted(table, key=lambda row: int(row["doc_id"].rpartition(":")[2]))
    return [json.loads(row["item"]) for row in rows]


def test_texts_are_those_of_the_file_to_the_byte(tmp_path: Path) -> None:
    rows = [{"query": text, "choices": [text + "1", text, "z"], "gold": n % 3} for n, text in enumerate(ODD)]
    write(tmp_path, rows)
    _, version = built(tmp_path, stage=[{"use": "normalise"}])
    found = [(i["contexts"][0], i["continuations"], i["gold"]) for i in items(version)]
    assert found == [(row["query"], row["choices"], row["gold"]) for row in rows]
    assert not list(manifest.verify(version))


def test_the_text_of_a_document_is_the_item_with_its_right_answer(tmp_path: Path) -> None:
    write(tmp_path, [{"query": "A mill has", "choices": ["wings", "a wheel"], "gold": 1}] * 2)
    _, version = built(tmp_path, stage=[{"use": "exact", "drop": {"dup_rank": {"above": 0}}}])
    (row,) = version.index().to_pylist()
    assert (row["text_bytes"], row["label"]) == (len("A mill has a wheel"), "1")


def test_what_is_no_item_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    good = {"query": "Q", "choices": ["a", "b"], "gold": 0}
    bad: dict[str, Any] = {
        "wrong_gold": {**good, "gold": 2},
        "empty_choice": {**good, "choices": ["a", ""]},
        "too_few_choices": {**good, "choices": ["a"]},
        "no_choices": {**good, "choices": "ab"},
        "empty_query": {**good, "query": " "},
        "missing_query": {"choices": ["a", "b"], "gold": 0},
        "malformed_json": "{",
    }
    more = [{**good, "gold": value} for value in (-1, "1", True, None)]
    write(tmp_path, [good, *bad.values(), *more])
    store, version = built(tmp_path)
    assert version.manifest["documents"]["rows"] == 1
    found = version.manifest["accounting"][0]["reasons"]
    assert {name.rpartition(".")[2]: n for name, n in found.items()} == {**dict.fromkeys(bad, 1), "wrong_gold": 5}
    assert not audit.audit(version, store).problems


def test_a_column_inside_of_another_names_the_choices() -> None:
    """As the sets of the Hub have it; a name that no choice has, and names that are not one a choice, are told."""
    asked = asking(None, query="{q.text}", choices="c.text", gold="key", golds="c.label")
    good: dict[str, Any] = {"q": {"text": "Q"}, "c": {"text": ["a", "b"], "label": ["1", "2"]}, "key": "2"}
    assert asked.wanted == ["q", "c", "key"]
    item = json.loads(asked.document(good)["item"])
    assert item == {"contexts": ["Q"], "continuations": ["a", "b"], "gold": 1}
    bad = [
        ("wrong_gold", "'key' is '3', none of 1, 2", {**good, "key": "3"}),
        ("wrong_gold", "'c.label' names 1 choices, and there are 2", {**good, "c": {**good["c"], "label": ["1"]}}),
        ("wrong_gold", "'c.label' names 0 choices, and there are 2", {**good, "c": {"text": ["a", "b"]}}),
        ("no_choices", "'c.text' is no list of strings", {**good, "c": ["a", "b"]}),
        ("missing_query", "no 'q.text'; has: q, c, key", {**good, "q": "Q"}),
    ]
    for reason, said, row in bad:
        with pytest.raises(RowError, match=re.escape(said)) as found:
            asked.document(row)
        assert found.value.reason == reason


def test_forms_of_the_field(tmp_path: Path) -> None:
    cases = {
        "form = 'cloze'": (
            {"context": "HISTORY: flew", "continuation": "Byrd"},
            {"contexts": ["HISTORY: flew"], "continuations": ["Byrd"], "gold": 0},
        ),
        "form = 'contexts'": (
            {"context_options": ["x because A", "x because B"], "continuation": "feared.", "gold": 1},
            {"contexts": ["x because A", "x because B"], "continuations": ["feared."], "gold": 1},
        ),
        """query = "{premise}{question}"
choices = ["{choice1}", "{choice2}"]
gold = "label"
words = {question = {cause = "因为", effect = "所以"}}""": (
            {"premise": "那人打开水龙头。", "choice1": "满。", "choice2": "流。", "question": "effect", "label": 1},
            {"contexts": ["那人打开水龙头。所以"], "continuations": ["满。", "流。"], "gold": 1},
        ),
        """query = "{Q}\\nA. {A}\\nB. {B}\\n答案："
choices = ["A", "B"]
gold = "Answer"
golds = ["A", "B"]""": (
            {"Q": "甲？", "A": "一", "B": "二", "Answer": "B"},
            {"contexts": ["甲？\nA. 一\nB. 二\n答案："], "continuations": ["A", "B"], "gold": 1},
        ),
    }
    for number, (params, (row, item)) in enumerate(cases.items()):
        (folder := tmp_path / str(number)).mkdir()
        write(folder, [row])
        assert items(built(folder, params)[1]) == [item]
        (folder / "data" / "riddles.jsonl").unlink()
        pq.write_table(pa.Table.from_pylist([row]), folder / "data" / "riddles.parquet")
        assert items(built(folder, params)[1]) == [item]


def test_an_item_that_is_forgotten_is_gone_with_its_texts(tmp_path: Path) -> None:
    write(tmp_path, [{"query": f"Q{n}", "choices": ["a", "b"], "gold": 0} for n in range(6)])
    store, version = built(tmp_path)
    made = operation.plan(store, version, version.build_keys(), Request(doc=("riddles:riddles.jsonl:3",)))
    left = operation.forget(Mill(store), version, version.build_keys(), made, lambda *_: [], False)
    assert [item["contexts"] for item in items(left)] == [[f"Q{n}"] for n in (0, 1, 3, 4, 5)]


@pytest.mark.parametrize(
    ("params", "changes", "said"),
    [
        ("", {"pack": {"layout": "packed"}}, 'write layout = "examples"'),
        ("", {"stage": [{"use": "exact"}, {"use": "eda", "children": 2}]}, "leave this stage out"),
        ("form = 'contexts'\nquery = 'x'", {}, "has no query"),
        ("form = 'cloze'\nchoices = 'x'", {}, "has no choices"),
        ("choices = ['x']", {}, "one is no choice"),
        ("form = 'quiz'", {}, "form"),
    ],
)
def test_cards_that_cannot_be(tmp_path: Path, params: str, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, [{"query": "Q", "choices": ["a", "b"], "gold": 0}])
    with pytest.raises(ConfigError, match=said):
        built(tmp_path, params, **changes)
