"""The layout of examples: one row a document, with its label and, where the version maps them, a target text.

    tokens list   label int32 (-1: none)   document   target list (may be empty)

A text or target of more than `length` tokens was cut before its closing end-of-text, which stays its last token. A row
is laid out as one piece behind which lies padding of end-of-text, so whatever reads packed rows reads these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from training.manifest import Manifest
from training.shards.arrow import by_block, numbered, view
from training.shards.rows import Ints, Row, Rows, Texts


class Lists(NamedTuple):
    """A text a row: that of row r is values[ends[r]:ends[r + 1]]."""

    values: Ints
    ends: Ints


class Block(NamedTuple):
    """The columns of one record batch as views."""

    tokens: Lists
    label: Ints
    document: Ints
    target: Lists | None


@dataclass(frozen=True)
class Layout:
    """How rows lie in the shards of one version: `labels` are so many, and padding is `eot`."""

    length: int
    dtype: np.dtype[np.unsignedinteger]
    eot: int
    labels: int
    targets: bool
    name: str = "an examples"

    @classmethod
    def of(cls, manifest: Manifest) -> Layout:
        labels = len(manifest.labels or ())
        targets = manifest.targets is not None
        return cls(manifest.length, np.dtype(manifest.dtype), manifest.tokenizer.eot, labels, targets)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Type of each column."""
        text = pa.list_(pa.from_numpy_dtype(self.dtype))
        plain = {"tokens": text, "label": pa.int32(), "document": pa.int32()}
        return {**plain, "target": text} if self.targets else plain

    def block(self, batch: pa.RecordBatch) -> Block:
        """Views of a record batch."""

        def lists(name: str) -> Lists:
            return Lists(view(batch.column(name).values), view(batch.column(name).offsets))

        target = lists("target") if self.targets else None
        return Block(lists("tokens"), view(batch.column("label")), view(batch.column("document")), target)

    def used(self, block: Block) -> Ints:
        """Real tokens of each row."""
        return _sizes(block.tokens)

    def row(self, block: Block, r: int, first_document: int) -> Row:
        """Views of row `r` of a block, whose documents are numbered from `first_document` on."""
        low, high = block.tokens.ends[r], block.tokens.ends[r + 1]
        zero = np.zeros(1, np.int32)
        document = block.document[r : r + 1] + first_document
        return Row(block.tokens.values[low:high], int(high - low), zero, document, zero)

    def pieces(self, block: Block) -> tuple[Ints, Ints, Ints]:
        """Row, document (both counted within the block and its shard) and tokens: a row is a document."""
        return np.arange(len(block.document)), block.document, _sizes(block.tokens)

    def broken_promise(self, block: Block, vocabulary: int, documents: int) -> str | None:
        """The first promise of the layout that a block breaks, in words."""
        if len(block.label) == 0:
            return None
        for name, texts in (("row", block.tokens), ("target", block.target)):
            if texts is None:
                continue
            least = 1 if name == "row" else 0
            if _sizes(texts).min() < least or _sizes(texts).max() > self.length:
                return f"a {name} has fewer than {least} or more than {self.length} tokens"
            if texts.values[texts.ends[0] : texts.ends[-1]].max(initial=0) >= vocabulary:
                return f"a token of a {name} outside the vocabulary of {vocabulary}"
        if block.label.min() < -1 or block.label.max() >= self.labels:
            wrong = block.label[(block.label < -1) | (block.label >= self.labels)][0]
            return f"label {wrong}, which is none of the {self.labels} of the manifest (-1 is no label)"
        if block.document.min() < 0 or block.document.max() >= documents:
            return f"a row names a document outside the {documents} of this shard"
        return None

    def take(self, blocks: Sequence[Block], at: Ints, local: Ints, index: Ints, first_documents: Ints) -> Rows:
        """Lay out the rows `local` of the blocks `at`, which are `index` in the split.

        `first_documents` is where the documents of each row's block begin.
        """
        documents, labels = first_documents.astype(np.int32), np.empty(len(index), np.int32)
        tokens, targets = (self._padding(len(index)) for _ in range(2))
        for number, where in by_block(at):
            block, mine = blocks[number], local[where]
            labels[where], documents[where] = block.label[mine], documents[where] + block.document[mine]
            for texts, given in ((tokens, block.tokens), (targets, block.target)):
                if given is not None:
                    _fill(texts, where, given, mine)
        one, zero = np.arange(len(index)), np.zeros(len(index), np.int32)
        pieces = (one, zero, tokens.used, documents, zero)
        return Rows(index, *tokens, *pieces, labels=labels, targets=targets if self.targets else None)

    def _padding(self, rows: int) -> Texts:
        return Texts(np.full((rows, self.length), self.eot, self.dtype), np.zeros(rows, np.int32))


def _sizes(texts: Lists) -> Ints:
    sizes: Ints = np.diff(texts.ends)
    return sizes


def _fill(texts: Texts, where: Ints, given: Lists, rows: Ints) -> None:
    """Put these rows of `given` at `where`."""
    begins = given.ends[rows].astype(np.int64)
    size = given.ends[rows + 1] - begins
    nth = numbered(size)
    texts.tokens[np.repeat(where, size), nth] = given.values[np.repeat(begins, size) + nth]
    texts.used[where] = size
