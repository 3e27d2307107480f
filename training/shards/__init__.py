"""Rows of shards, read where they lie: memory-mapped Arrow buffers seen as numpy arrays.

Law: reading a row copies no token; only `take`, which lays a batch out, does.
Rows of a split are numbered through its shards in the manifest's order. On one core `take` lays out
some 450 million tokens a second, so no run needs loader processes.

Read the rooms in this order: `rows` (what a batch is), `arrow` (columns of a mapped file), `packed` and `examples`
(one file a layout), `shard` (one file, checked); here, the rows of a split through all its shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from training.manifest import ManifestError, Version
from training.shards.rows import Ints, Row, Rows
from training.shards.shard import Shard, layout

__all__ = ["Row", "Rows", "Shard", "Split", "layout"]


def _shards(version: Version, name: str, first: int) -> list[Shard]:
    """The shards of a version's split, its documents numbered from `first` on."""
    manifest = version.manifest
    if name not in manifest.splits:
        raise ManifestError(f"{version.folder}: no split {name!r}; has: {', '.join(sorted(manifest.splits))}")
    how = layout(manifest)
    moved = [e.model_copy(update={"first_document": e.first_document + first}) for e in manifest.splits[name].shards]
    return [Shard(version.folder, entry, how) for entry in moved]


class Split:
    """The rows of one split through all its shards, by global number; of several versions one after the other.

    Documents are numbered in the same way, through the indexes of the versions. `owners` says which version each
    shard is of.
    """

    def __init__(self, version: Version, name: str, *others: Version) -> None:
        self.name, self.length = name, version.manifest.length
        self._layout: Any = layout(version.manifest)
        self.shards: list[Shard] = []
        self.owners: list[int] = []
        first = 0
        for number, each in enumerate((version, *others)):
            shards = _shards(each, name, first)
            self.shards += shards
            self.owners += [number] * len(shards)
            first += each.manifest.documents.rows
        self.firsts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self._blocks = [block for shard in self.shards for block in shard.blocks]
        firsts = [shard.entry.first_document for shard in self.shards for _ in shard.blocks]
        self._first_documents = np.array(firsts, np.int32)
        sizes = [int(size) for shard in self.shards for size in np.diff(shard.firsts)]
        self._block_firsts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def locate(self, index: Ints) -> tuple[Ints, Ints]:
        """Shard number and row in that shard of each global row number."""
        shard = np.searchsorted(self.firsts, index, side="right") - 1
        return shard, index - self.firsts[shard]

    def __getitem__(self, i: int) -> Row:
        """Views of row `i` of the split; nothing is copied."""
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        shard = int(np.searchsorted(self.firsts, i, side="right")) - 1
        return self.shards[shard].row(i - int(self.firsts[shard]))

    def __iter__(self) -> Iterator[Row]:
        return (shard.row(i) for shard in self.shards for i in range(len(shard)))

    def take(self, index: Ints) -> Rows:
        """Lay out the rows with these numbers, in this order."""
        index = np.asarray(index, np.int64)
        at = np.searchsorted(self._block_firsts, index, side="right") - 1
        local, first_documents = index - self._block_firsts[at], self._first_documents[at]
        rows: Rows = self._layout.take(self._blocks, at, local, index, first_documents)
        return rows
