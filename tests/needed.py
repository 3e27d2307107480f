"""What a stage cannot do without, for whoever tries every stage there is: parameters that have no default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import stage as stages
from pipeline.stage import Stage

ITEMS = str(Path(__file__).parent / "laws" / "items.jsonl")
SAMPLES = Path(__file__).parents[1] / "catalogs" / "samples"
NEEDED: dict[str, dict[str, Any]] = {
    "decontaminate": {"sets": [ITEMS]},
    "importance": {"target": [str(SAMPLES / "zh.jsonl")], "raw": [str(SAMPLES / "en.jsonl")]},
}


def load(use: str, params: Mapping[str, Any] | None = None) -> Stage:
    """A shipped stage with what it needs, and these parameters."""
    return stages.load(use, {**NEEDED.get(use, {}), **(params or {})})
