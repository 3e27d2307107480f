"""One mapped file of a version, of either layout, and what is checked before a row of it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.manifest import Manifest, ManifestError, ShardEntry
from training.shards import examples, packed
from training.shards.arrow import batches, buffers_digest
from training.shards.rows import Row

Layout = packed.Layout | examples.Layout


def layout(manifest: Manifest) -> Layout:
    """The layout of a version's rows."""
    return packed.Layout.of(manifest) if manifest.layout == "packed" else examples.Layout.of(manifest)


class Shard:
    """One mapped file. Raises ManifestError when its columns are not those of the layout."""

    def __init__(self, folder: Path, entry: ShardEntry, layout: Layout) -> None:
        self.path, self.entry = folder / entry.file, entry
        self.layout: Any = layout  # each layout takes its own kind of block
        self._batches = batches(self.path, layout.columns, layout.name)
        try:
            self.blocks: list[Any] = [self.layout.block(batch) for batch in self._batches]
        except ValueError as error:
            raise ManifestError(f"{self.path}: {error}") from error
        self.firsts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def row(self, i: int) -> Row:
        """Views of row `i`."""
        at = int(np.searchsorted(self.firsts, i, side="right")) - 1
        found: Row = self.layout.row(self.blocks[at], i - int(self.firsts[at]), self.entry.first_document)
        return found

    def check(self, vocabulary: int, documents: int) -> None:
        """Raise ManifestError unless every row keeps the layout's promises and the entry's counts and digest.

        `documents` is the number of rows of the document index.
        """
        entry = self.entry
        if entry.first_document + entry.documents > documents:
            raise ManifestError(f"{self.path}: its documents end beyond the index of {documents}")
        for block in self.blocks:
            if broken := self.layout.broken_promise(block, vocabulary, entry.documents):
                raise ManifestError(f"{self.path}: {broken}")
        if self.digest() != entry.digest:
            raise ManifestError(f"{self.path}: the digest of its columns is not the manifest's; copy it again")
        tokens = sum(int(self.layout.used(block).sum()) for block in self.blocks)
        if (len(self), tokens) != (entry.rows, entry.tokens):
            raise ManifestError(
                f"{self.path}: {len(self)} rows of {tokens} tokens, the manifest says {entry.rows} of {entry.tokens}"
            )

    def target_tokens(self) -> int:
        """Tokens of all texts to be written."""
        found = [block.target for block in self.blocks if isinstance(block, examples.Block)]
        return sum(len(target.values) for target in found if target is not None)

    def digest(self) -> str:
        """Digest of the columns' buffers, in the order of the file."""
        return buffers_digest(self._batches, self._batches[0].schema.names if self._batches else [])
