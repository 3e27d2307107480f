"""Files that stages are given in tests that run over every stage, where they cannot do without.

The filter, where the recipe dclm-lite looks for one, comes from the samples that ship:
    gristmill train-filter given --positive catalogs/samples/en.jsonl --negative catalogs/samples/de.jsonl --out given
        --documents 24 --hold-back 0.4 --dim 4 --bucket 400 --lr 0.5 --epoch 100
bigrams.arpa has the commonest words and pairs of words of six English samples, discounted by half a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import stage as stages
from pipeline.stage import Stage

HERE = Path(__file__).parent
DATA = HERE / "data"
FILTER = DATA / "filters" / "dclm-lite"
ITEMS = str(HERE / "items.jsonl")
SAMPLES = HERE.parents[1] / "catalogs" / "samples"
GIVEN: dict[str, dict[str, Any]] = {
    "classifier": {"model": str(FILTER / "model.bin")},
    "decontaminate": {"sets": [ITEMS]},
    "importance": {"target": [str(SAMPLES / "zh.jsonl")], "raw": [str(SAMPLES / "en.jsonl")]},
    "perplexity": {"model": str(HERE / "bigrams.arpa")},
    "toxicity": {"words": [str(HERE / "words.txt")]},
    "url": {"hosts": str(HERE / "hosts.txt"), "words": str(HERE / "url_words.txt")},
}


def load(use: str, params: Mapping[str, Any] | None = None) -> Stage:
    """A shipped stage with what it must be given, and these parameters."""
    return stages.load(use, {**GIVEN.get(use, {}), **(params or {})})
