"""Small real builds for tests: a corpus with every kind of trouble, and a recipe over it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import canaries
from pipeline import recipe as recipes
from pipeline.build import Mill
from pipeline.manifest import Version, shard_digest, version_digest
from pipeline.recipe import Recipe
from pipeline.runner import Local, workers
from pipeline.store import Store, file_digest
from pipeline.tasks import execute

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


def with_lines(corpus: Path) -> Path:
    """The corpus with texts of several lines: some are common to many documents, and short texts hold nothing else."""
    common = [f"this line is number {n} of those that the mill writes under many of its pages" for n in range(5)]
    number = 0
    for path in sorted(corpus.glob("*.jsonl")):
        lines = path.read_text("utf-8").splitlines()
        for at, line in enumerate(lines):
            with contextlib.suppress(ValueError):
                row, number = json.loads(line), number + 1
                words = row.get("text", "").split()
                if len(words) > 20 and "surrogate" not in words:
                    own = [" ".join(words[k : k + 15]) for k in range(0, len(words), 15)]
                    row["text"] = "\n".join([*own, *common[: number % 4]])
                    lines[at] = json.dumps(row)
                elif len(words) == 12 and number % 2:
                    row["text"] = "\n".join(common[number % 5 : number % 5 + 2])
                    lines[at] = json.dumps(row)
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return corpus


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


def allowing_all(recipe: Recipe, store: Path) -> Recipe:
    """The same recipe, of which every rule may be dead that is: for laws that draw their rules by chance."""
    key = canaries.task(Store(store), recipe)
    execute(str(store), key)
    found = Store(store).result(key)["rules"]
    return recipe.allowing([name for name, outcome in found.items() if outcome["verdict"] in canaries.REFUSED])


def hand_sealed(store: Store, version: Version, change: Callable[[pa.Table], pa.Table]) -> tuple[str, str]:
    """Change the first shard of train, and write a manifest that vouches for it; returns address and shard."""
    name = version.manifest["name"]
    folder = store.root / "versions" / name / version.manifest["version"]
    table = json.loads((folder / "manifest.json").read_text("utf-8"))
    shard = table["splits"]["train"]["shards"][0]
    path = folder / shard["file"]
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    altered = change(rows)
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, altered.schema) as writer:
        writer.write_table(altered)
    shard |= {"sha256": file_digest(path, "sha256"), "digest": shard_digest(path), "bytes": path.stat().st_size}
    table["version"] = version_digest(table)
    (folder / "manifest.json").write_text(json.dumps(table), "utf-8")
    folder.rename(folder.with_name(table["version"]))
    return f"{name}@{table['version']}", shard["file"]
