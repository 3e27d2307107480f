"""Shipped recipes over real data, built for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import recipe
from pipeline.build import Mill
from pipeline.manifest import Version
from pipeline.store import Store, read_parquet


@dataclass
class Built:
    version: Version
    store: Store

    def texts(self, segment: int = 0) -> dict[str, str]:
        """Every document's text as the last stage of a segment left it."""
        found: dict[str, str] = {}
        for part in self.version.build_keys().segments[segment].parts:
            table = read_parquet(self.store.file(part, "documents.parquet"), ["doc_id", "text"])
            found.update(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))
        return found


def built(name: str, data: Path, folder: Path) -> Built:
    store = Store(folder)
    return Built(Mill(store).build(recipe.load(name, data)), store)
