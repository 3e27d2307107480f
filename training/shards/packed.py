"""The packed layout: rows of one length, filled with pieces of documents.

tokens fixed_size_list[length]   used   starts, documents, offsets: a list each, one entry a piece
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from training.manifest import Manifest
from training.shards.arrow import numbered, runs, view
from training.shards.rows import Ints, Row, Rows

LISTS = ("starts", "documents", "offsets")


class Block(NamedTuple):
    """The columns of one record batch as views."""

    tokens: Ints
    used: Ints
    ends: Ints  # [rows + 1]: row r has pieces [ends[r], ends[r + 1])
    starts: Ints
    documents: Ints
    offsets: Ints


@dataclass(frozen=True)
class Layout:
    """How rows lie in the shards of one version."""

    length: int
    dtype: np.dtype[np.unsignedinteger]
    name: str = "a packed"

    @classmethod
    def of(cls, manifest: Manifest) -> Layout:
        return cls(manifest.length, np.dtype(manifest.dtype))

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Type of each column."""
        lists = {name: pa.list_(pa.int32()) for name in LISTS}
        return {"tokens": pa.list_(pa.from_numpy_dtype(self.dtype), self.length), "used": pa.int32(), **lists}

    def block(self, batch: pa.RecordBatch) -> Block:
        """Views of a record batch. Raises ValueError where its lists do not agree."""
        lists = [batch.column(name) for name in LISTS]
        ends = [view(column.offsets) for column in lists]
        if not all(np.array_equal(ends[0], other) for other in ends[1:]):
            raise ValueError("starts, documents and offsets of a row differ in number")
        tokens = view(batch.column("tokens").flatten()).reshape(-1, self.length)
        return Block(tokens, view(batch.column("used")), ends[0], *(view(column.values) for column in lists))

    def used(self, block: Block) -> Ints:
        """Real tokens of each row."""
        return block.used

    def row(self, block: Block, r: int, first_document: int) -> Row:
        """Views of row `r` of a block, whose documents are numbered from `first_document` on."""
        low, high = block.ends[r], block.ends[r + 1]
        documents = block.documents[low:high] + first_document
        return Row(block.tokens[r], int(block.used[r]), block.starts[low:high], documents, block.offsets[low:high])

    def pieces(self, block: Block) -> tuple[Ints, Ints, Ints]:
        """Row, document (both counted within the block and its shard) and tokens of every piece of a block."""
        row = np.repeat(np.arange(len(block.used)), np.diff(block.ends))
        return row, block.documents[block.ends[0] : block.ends[-1]], _lengths(block)

    def broken_promise(self, block: Block, vocabulary: int, documents: int) -> str | None:
        """The first promise of the layout that a block breaks, in words."""
        if len(block.used) == 0:
            return None
        if block.used.min() < 1 or block.used.max() > self.length:
            return f"a row uses fewer than 1 or more than {self.length} tokens"
        if (np.diff(block.ends) < 1).any():
            return "a row without a document piece"
        lengths = _lengths(block)
        if (block.starts[block.ends[:-1]] != 0).any() or (lengths < 1).any():
            return "document pieces of a row do not start at 0 and ascend within its used tokens"
        if block.documents.min() < 0 or block.documents.max() >= documents or block.offsets.min() < 0:
            return f"a piece names a document outside the {documents} of this shard"
        if block.tokens.size and block.tokens.max() >= vocabulary:
            return f"a token outside the vocabulary of {vocabulary}"
        return None

    def take(self, blocks: Sequence[Block], at: Ints, local: Ints, index: Ints, first_documents: Ints) -> Rows:
        """Lay out the rows `local` of the blocks `at`, which are `index` in the split.

        `first_documents` is where the documents of each row's block begin.
        """
        # Block by block, where what is read lies together; `back` is the order that was asked for.
        order = np.argsort(at, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        local = local[order]
        groups = [(blocks[number], here) for number, here in runs(at[order])]
        tokens = np.empty((len(index), self.length), self.dtype)
        used, low, high = (np.empty(len(index), np.int32) for _ in range(3))
        for block, here in groups:
            mine = local[here]
            block.tokens.take(mine, 0, tokens[here], "clip")  # "raise" would copy twice
            used[here], low[here], high[here] = block.used[mine], block.ends[mine], block.ends[mine + 1]
        count = high - low
        ends = np.cumsum(count)
        nth = numbered(count)
        origin = np.repeat(low, count) + nth
        lists = np.empty((3, len(origin)), np.int32)
        first = 0
        for block, here in groups:
            last = int(ends[here.stop - 1])
            where = origin[first:last]
            for column, values in zip(lists, (block.starts, block.documents, block.offsets), strict=True):
                values.take(where, None, column[first:last], "clip")
            first = last
        if len(groups) > 1:
            begins = (ends - count)[back]
            tokens, used, count = tokens[back], used[back], count[back]
            ends = np.cumsum(count)
            lists = lists[:, np.repeat(begins, count) + numbered(count)]
        starts, documents, offsets = lists
        documents += np.repeat(first_documents, count)
        lengths = np.empty_like(starts)
        np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
        lengths[ends - 1] = used - starts[ends - 1]
        return Rows(index, tokens, used, np.repeat(np.arange(len(index)), count), starts, lengths, documents, offsets)


def _lengths(block: Block) -> Ints:
    """Tokens of each piece: to the next start, and for the last piece of a row to `used`."""
    following = np.append(block.starts[block.ends[0] + 1 : block.ends[-1]], 0)
    following[block.ends[1:] - block.ends[0] - 1] = block.used
    lengths: Ints = following - block.starts[block.ends[0] : block.ends[-1]]
    return lengths
