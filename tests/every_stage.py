"""One recipe with every stage that there is, over a corpus that gives each of them something to do.

The recipe is made from the folder of stages, so a new one is in it by itself: with its defaults, or what `PARAMETERS`
says, and a rule that a few documents break. `write` leaves corpus and recipe in a folder, `read` takes them from there:
so another process builds the very same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import recipe as recipes
from pipeline import stage as stages
from pipeline.models import ModelError, language_model
from pipeline.recipe import Recipe
from pipeline.run import widen
from pipeline.schema import documents
from pipeline.stage import Stage
from tests import builds
from tests.needed import NEEDED

# The corpus is a thousandth of a real one, so passages are short, and its lines end without a full stop.
PARAMETERS: dict[str, dict[str, Any]] = {
    **NEEDED,
    "c4_lines": {"terminal_punctuation": False},
    "paragraphs": {"min_characters": 5},
    "substring": {"length": 12},
    "eda": {"children": 1},
}
RULES: dict[str, dict[str, Any]] = {
    "exact": {"dup_rank": {"above": 0}},
    "near": {"dup_rank": {"above": 0}},
    "decontaminate": {"cut_share": {"above": 0.8}},
    "paragraphs": {"cut_share": {"above": 0.8}},
    "substring": {"cut_share": {"above": 0.8}},
}
FEW, SOME = 0.005, 0.03


def write(folder: Path, store: Path, documents: int = 1100) -> Recipe:
    """Write corpus and recipe into `folder`; `store` is for trying the rules. A partition has over 1,000 documents."""
    _with_passages(builds.with_lines(builds.write_corpus(folder, documents)))
    texts = [row["text"] for row in _rows(folder.glob("*.jsonl"))]
    table = {
        "name": "test",
        "seed": 5,
        "sources": ["grain.toml", "samples"],
        "licence": {"deny": ["LicenseRef-none"], "unknown": "keep"},
        "stage": [_table(stage, texts) for stage in in_order()],
        "tokens": {"vocab_size": 400, "sample": "1MB"},
        "pack": {"length": 64, "split": {"val": 0.1}},
    }
    allowed = builds.allowing_all(recipes.parse(table, "test recipe", folder), store).allow_dead
    (folder / "recipe.json").write_text(json.dumps({"recipe": table, "allow_dead": allowed}), "utf-8")
    return read(folder)


def read(folder: Path) -> Recipe:
    """The recipe that was written into a folder."""
    said = json.loads((folder / "recipe.json").read_text("utf-8"))
    return recipes.parse(said["recipe"], "test recipe", folder).allowing(said["allow_dead"])


def in_order() -> list[Stage]:
    """Every stage that can be had here: what rewrites and measures, half of it behind the first barrier, and births."""
    found = [stages.load(use, PARAMETERS.get(use, {})) for use in stages.available() if _to_be_had(use)]
    of = {kind: [stage for stage in found if stage.kind == kind] for kind in ("rewrite", "measure", "relate", "extend")}
    assert len(found) == sum(map(len, of.values())), "a kind of stage that this recipe has no place for"
    compared = [stage for stage in of["relate"] if not stage.cuts]
    cut = [stage for stage in of["relate"] if stage.cuts]
    first, then = of["measure"][::2], of["measure"][1::2]
    return [*chain(of["rewrite"], first, compared, then, cut, of["extend"])]


def _to_be_had(use: str) -> bool:
    if use != "language":
        return True
    try:
        language_model()
    except ModelError:
        return False
    return True


def _table(stage: Stage, texts: Sequence[str]) -> dict[str, Any]:
    """What a recipe says of a stage."""
    rules = RULES.get(stage.use) or (_rule(stage, texts) if stage.kind == "measure" else {})
    return {"use": stage.use, **PARAMETERS.get(stage.use, {}), **({"drop": rules} if rules else {})}


def _rule(stage: Stage, texts: Sequence[str]) -> dict[str, Any]:
    """A bound on the first column that has one over which some of the documents lie, and not many."""
    rows = [{"doc_id": f"{n}", "text": text, "source": "grain"} for n, text in enumerate(texts)]
    measured: Mapping[str, pa.Array] = stage(widen(documents(rows)))
    for name, values in measured.items():
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            known = pc.drop_null(values).to_numpy(zero_copy_only=False)
            bound = np.quantile(known, 1 - SOME, method="lower").item()
            if FEW <= (known > bound).mean() <= SOME:
                return {name: {"above": bound}}
    return {}


def _with_passages(corpus: Path) -> None:
    """Give one document in eleven a passage that others have too, in a line of which the rest is its own; and a few an
    evaluation item."""
    passage = "and whoever comes with the last cart of the day waits until every stone stands still"
    item = "The miller asks how many sacks of rye a cart with two wheels can carry up the hill: nine."
    for path in sorted(corpus.glob("*.jsonl")):
        lines = path.read_text("utf-8").split("\n")
        for at in range(3, len(lines), 11):
            lines[at] = lines[at].replace('{"text": "', f'{{"text": "number {at} of {path.stem}: {passage} ', 1)
        lines[45] = lines[45].replace('{"text": "', f'{{"text": "{item} ', 1)
        path.write_text("\n".join(lines), "utf-8")


def _rows(paths: Any) -> list[dict[str, Any]]:
    """Documents of the corpus that can be read."""
    found = []
    for line in chain.from_iterable(path.read_text("utf-8").splitlines() for path in sorted(paths)):
        try:
            row = json.loads(line)
            row["text"].encode()
        except (ValueError, KeyError):
            continue
        found.append(row)
    return random.Random(1).sample(found, min(400, len(found)))
