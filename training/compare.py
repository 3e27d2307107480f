"""Complete runs over one version side by side: what the report of each shows, from their run.json alone.

What compares with what hangs on the targets. Runs that scored the same targets stand together, the best first; a
causal model predicts every token from what stands before it, one that fills gaps sees both sides of a few.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVALUATED = ("measure", "perplexity", "bits_per_byte", "split", "targets", "bytes", "split_bytes")
TRAINED = ("family", "form", "objective", "parameters", "tokens_per_second", "mfu")


def row(table: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison says of the run that run.json describes."""
    parts = ((table, ("name", "tokens_read")), (table["trained"], TRAINED), (table["evaluation"], EVALUATED))
    return {name: part.get(name) for part, names in parts for name in names}


def rows(runs: Path, manifest: str) -> list[dict[str, Any]]:
    """A row for each complete run in a folder of runs over the version whose manifest has this sha256.

    A run.json that cannot be read, or that says nothing of these, has none.
    """
    return ordered([row(table) for path in sorted(runs.glob("*/run.json")) if (table := _complete(path, manifest))])


def ordered(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with the same targets together, the fewest bits per byte first."""

    def key(entry: dict[str, Any]) -> tuple[Any, ...]:
        targets = (str(entry[name]) for name in ("objective", "split", "targets", "bytes"))
        bits = entry["bits_per_byte"]
        return (*targets, bits is None, bits or 0.0, str(entry["name"]))

    return sorted(found, key=key)


def _complete(path: Path, manifest: str) -> dict[str, Any] | None:
    try:
        table = json.loads(path.read_text("utf-8"))
        whole = table["status"] == "complete" and table["version"]["sha256"] == manifest
        return table if whole and {"trained", "evaluation"} <= table.keys() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
