"""Small real builds for tests: a corpus with every kind of trouble, and a recipe over it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pipeline import recipe as recipes
from pipeline.build import Mill
from pipeline.manifest import Version
from pipeline.recipe import Recipe
from pipeline.runner import Local, workers
from pipeline.store import Store

WORDS = (
    "the mill wheel turns with water from that river and be kind to have a stone which grinds grain into flour "
    "of many kinds while people carry sacks along paths between fields under wide skies near old bridges"
).split()

CARD = """
name = "grain"
kind = "files"
title = "Test grain"
description = "Made by the tests."
homepage = "https://example.org"
licence = "CC0-1.0"
languages = ["en"]
[params]
paths = ["*.jsonl"]
"""


def write_corpus(folder: Path, documents: int = 240, seed: int = 3) -> Path:
    """Six JSONL files: prose, short texts, exact and near duplicates, labels, and rows that cannot be read."""
    draw = random.Random(seed)
    rows: list[Any] = []
    for number in range(documents):
        words = [draw.choice(WORDS) + (str(draw.randrange(40)) if draw.random() < 0.3 else "") for _ in range(90)]
        text = " ".join(words)
        if number % 9 == 4:
            text = " ".join(words[:12])
        elif number % 9 == 5 and rows:
            text = draw.choice([row["text"] for row in rows[-30:]])
        elif number % 9 == 6 and rows:
            parent = draw.choice([row["text"] for row in rows[-30:]]).split()
            parent[draw.randrange(len(parent))] = "changed"
            text = " ".join(parent)
        rows.append({"text": text, "label": str(number % 2), "url": f"https://example.org/{number}"})
    lines = [json.dumps(row) for row in rows]
    lines.insert(7, "{not json")
    lines.insert(19, json.dumps({"label": "1"}))
    lines.insert(33, '{"text": "lone \\ud800 surrogate"}')
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate("abcdef"):
        (folder / f"{name}.jsonl").write_text("\n".join(lines[number::6]) + "\n" * (number % 2), "utf-8")
    card = CARD + 'columns = {text = "text", label = "label", url = "url"}\n'
    (folder / "grain.toml").write_text(card, "utf-8")
    return folder


STAGES: list[dict[str, Any]] = [
    {"use": "normalise"},
    {"use": "gopher", "drop": {"word_count": {"below": 20}}},
    {"use": "exact", "drop": {"dup_rank": {"above": 0}}},
    {"use": "near", "drop": {"dup_rank": {"above": 0}}},
]


def make_recipe(folder: Path, stages: list[dict[str, Any]] | None = None, **tables: Any) -> Recipe:
    table = {
        "name": "test",
        "seed": 5,
        "sources": ["grain.toml"],
        "stage": STAGES if stages is None else stages,
        "tokens": {"vocab_size": 400, "sample": "1MB"},
        "pack": {"length": 64, "split": {"val": 0.1}},
        **tables,
    }
    return recipes.parse(table, "test recipe", folder)


def build(recipe: Recipe, store: Path, count: int = 1, apart: bool = False, **settings: Any) -> Version:
    with workers(count, apart or recipe.foreign) as pool:
        return Mill(Store(store), Local(pool), workers=count, **settings).build(recipe)
