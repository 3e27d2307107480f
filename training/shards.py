"""Rows of packed shards, read where they lie: memory-mapped Arrow buffers seen as numpy arrays.

Law: reading a row copies no token; only `take`, which lays a batch out, does.
Rows of a split are numbered through its shards in the manifest's order. On one core `take` lays out
about 700 million tokens a second, so no run needs loader processes.

    row i:   tokens [length]   used   starts [pieces]   documents [pieces]   offsets [pieces]
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.manifest import ManifestError, ShardEntry, Version

Ints = NDArray[np.integer[Any]]


class Row(NamedTuple):
    """Views of one packed row: piece j is tokens[starts[j]:starts[j + 1]] (the last one ends at `used`)."""

    tokens: Ints
    used: int
    starts: Ints
    documents: Ints
    offsets: Ints


@dataclass(frozen=True)
class Rows:
    """B rows laid out for a batch, and their P pieces side by side in order of row and start.

    tokens [B, length], used [B], index [B] (number in the split); piece_row, starts, lengths, documents,
    offsets [P], where piece_row says which of the B rows a piece lies in.
    """

    index: Ints
    tokens: Ints
    used: Ints
    piece_row: Ints
    starts: Ints
    lengths: Ints
    documents: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.index)

    def slice(self, first: int, last: int) -> Rows:
        """Rows [first, last) of these."""
        low, high = np.searchsorted(self.piece_row, [first, last])
        pieces = (self.starts, self.lengths, self.documents, self.offsets)
        return Rows(
            self.index[first:last],
            self.tokens[first:last],
            self.used[first:last],
            self.piece_row[low:high] - first,
            *(values[low:high] for values in pieces),
        )

    def layout(self) -> tuple[Ints, Ints]:
        """(piece, position) of every place [B, length]: pieces numbered through the batch, padding one of its own
        with position -1."""
        count, length = self.tokens.shape
        begins = self.piece_row * length + self.starts
        padded = np.flatnonzero(self.used < length)
        edges = padded * length + self.used[padded]
        starts = np.sort(np.append(begins, edges))
        sizes = np.diff(starts, append=count * length)
        piece = np.repeat(np.arange(len(starts), dtype=np.int32), sizes)
        position = np.arange(count * length)
        position -= np.repeat(starts, sizes)
        position = position.reshape(count, length)
        for row in padded.tolist():
            position[row, self.used[row] :] = -1
        return piece.reshape(count, length), position


class _Block(NamedTuple):
    """The columns of one record batch as views."""

    tokens: Ints
    used: Ints
    ends: Ints  # [rows + 1]: row r has pieces [ends[r], ends[r + 1])
    starts: Ints
    documents: Ints
    offsets: Ints


class Shard:
    """One mapped file. Raises ManifestError when its columns are not those of a packed shard."""

    def __init__(self, folder: Path, entry: ShardEntry, length: int, dtype: str) -> None:
        self.path, self.entry, self.length = folder / entry.file, entry, length
        path = self.path
        wanted = {
            "tokens": pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), length),
            "used": pa.int32(),
            **{name: pa.list_(pa.int32()) for name in ("starts", "documents", "offsets")},
        }
        try:
            # The reader keeps the mapping alive; the arrays below are views of it.
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            raise ManifestError(f"{path}: not an Arrow IPC file that can be read ({error})") from error
        found = {field.name: field.type for field in self._reader.schema}
        for name in sorted(set(wanted) | set(found)):
            if not _same_type(found.get(name), wanted.get(name)):
                raise ManifestError(
                    f"{path}: column {name!r} is {found.get(name, 'absent')}, in a packed shard it is "
                    f"{wanted.get(name, 'absent')}"
                )
        self.columns = list(found)
        self.blocks = [self._block(batch) for batch in self._batches]
        self.firsts = np.cumsum([0, *(len(block.used) for block in self.blocks)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def _block(self, batch: pa.RecordBatch) -> _Block:
        if any(column.null_count for column in batch.columns):
            raise ManifestError(f"{self.path}: null values; a packed shard has none")
        lists = [batch.column(name) for name in ("starts", "documents", "offsets")]
        ends = [_view(column.offsets) for column in lists]
        if not all(np.array_equal(ends[0], other) for other in ends[1:]):
            raise ManifestError(f"{self.path}: starts, documents and offsets of a row differ in number")
        tokens = _view(batch.column("tokens").flatten()).reshape(-1, self.length)
        used = _view(batch.column("used"))
        return _Block(tokens, used, ends[0], *(_view(column.values) for column in lists))

    def row(self, i: int) -> Row:
        """Views of row `i`."""
        at = int(np.searchsorted(self.firsts, i, side="right")) - 1
        block, r = self.blocks[at], i - int(self.firsts[at])
        low, high = block.ends[r], block.ends[r + 1]
        documents = block.documents[low:high] + self.entry.first_document
        return Row(block.tokens[r], int(block.used[r]), block.starts[low:high], documents, block.offsets[low:high])

    def check(self, vocabulary: int, documents: int) -> None:
        """Raise ManifestError unless every row keeps the layout's promises and the entry's counts and digest.

        `documents` is the number of rows of the document index.
        """
        entry = self.entry
        if entry.first_document + entry.documents > documents:
            raise ManifestError(f"{self.path}: its documents end beyond the index of {documents}")
        for block in self.blocks:
            if broken := _broken_promise(block, self.length, vocabulary, entry.documents):
                raise ManifestError(f"{self.path}: {broken}")
        if self.digest() != entry.digest:
            raise ManifestError(f"{self.path}: the digest of its columns is not the manifest's; copy it again")
        tokens = sum(int(block.used.sum()) for block in self.blocks)
        if (len(self), tokens) != (entry.rows, entry.tokens):
            raise ManifestError(
                f"{self.path}: {len(self)} rows of {tokens} tokens, the manifest says {entry.rows} of {entry.tokens}"
            )

    def digest(self) -> str:
        """Digest of the columns' buffers: their names, sizes of lists, values; not of the file's bytes."""
        hasher = hashlib.blake2b(digest_size=16)
        for name in self.columns:
            hasher.update(name.encode())
            if name in ("starts", "documents", "offsets"):
                for block in self.blocks:
                    hasher.update(np.diff(block.ends).data)
            for block in self.blocks:
                values = getattr(block, name)
                if name in ("starts", "documents", "offsets"):
                    values = values[block.ends[0] : block.ends[-1]]
                hasher.update(np.ascontiguousarray(values).data)
        return hasher.hexdigest()


def _view(array: pa.Array) -> Ints:
    """The values of an array of integers without nulls, where they lie; its own `to_numpy` would load pandas."""
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _same_type(found: pa.DataType | None, wanted: pa.DataType | None) -> bool:
    """Equal but for the name and nullability of list items, which say nothing about the buffers."""
    if found is None or wanted is None:
        return False
    if pa.types.is_fixed_size_list(wanted) and pa.types.is_fixed_size_list(found):
        return bool(found.list_size == wanted.list_size and found.value_type == wanted.value_type)
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return bool(found.value_type == wanted.value_type)
    return bool(found == wanted)


def _broken_promise(block: _Block, length: int, vocabulary: int, documents: int) -> str | None:
    """The first promise of the packed layout that a block breaks, in words."""
    if len(block.used) == 0:
        return None
    if block.used.min() < 1 or block.used.max() > length:
        return f"a row uses fewer than 1 or more than {length} tokens"
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


def _lengths(block: _Block) -> Ints:
    """Tokens of each piece: to the next start, and for the last piece of a row to `used`."""
    following = np.append(block.starts[block.ends[0] + 1 : block.ends[-1]], 0)
    following[block.ends[1:] - block.ends[0] - 1] = block.used
    lengths: Ints = following - block.starts[block.ends[0] : block.ends[-1]]
    return lengths


def _shards(version: Version, name: str, first: int) -> list[Shard]:
    """The shards of a version's split, its documents numbered from `first` on."""
    manifest = version.manifest
    if name not in manifest.splits:
        raise ManifestError(f"{version.folder}: no split {name!r}; has: {', '.join(sorted(manifest.splits))}")
    if manifest.layout != "packed":
        raise ManifestError(f"{version.folder}: layout {manifest.layout!r} holds no packed rows to train on")
    moved = [e.model_copy(update={"first_document": e.first_document + first}) for e in manifest.splits[name].shards]
    return [Shard(version.folder, entry, manifest.length, manifest.dtype) for entry in moved]


class Split:
    """The rows of one split through all its shards, by global number; of several versions one after the other.

    Documents are numbered in the same way, through the indexes of the versions. `owners` says which version each
    shard is of.
    """

    def __init__(self, version: Version, name: str, *others: Version) -> None:
        self.name, self.length = name, version.manifest.length
        self.dtype = np.dtype(version.manifest.dtype)
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
        self._block_firsts = np.cumsum([0, *(len(block.used) for block in self._blocks)])

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
        local = index - self._block_firsts[at]
        tokens = np.empty((len(index), self.length), self.dtype)
        used, count = np.empty(len(index), np.int32), np.empty(len(index), np.int64)
        by_block = np.argsort(at, kind="stable")
        cuts = np.flatnonzero(np.diff(at[by_block], prepend=-1, append=-1))
        groups = [(self._blocks[at[by_block[a]]], by_block[a:z]) for a, z in itertools.pairwise(cuts)]
        for block, where in groups:
            tokens[where] = block.tokens[local[where]]
            used[where] = block.used[local[where]]
            count[where] = block.ends[local[where] + 1] - block.ends[local[where]]
        first = np.cumsum(count) - count
        row = np.repeat(np.arange(len(index)), count)
        starts, documents, offsets = (np.empty(len(row), np.int32) for _ in range(3))
        for block, where in groups:
            nth = np.arange(count[where].sum()) - np.repeat(np.cumsum(count[where]) - count[where], count[where])
            target = np.repeat(first[where], count[where]) + nth
            origin = np.repeat(block.ends[local[where]], count[where]) + nth
            for column, values in ((starts, block.starts), (documents, block.documents), (offsets, block.offsets)):
                column[target] = values[origin]
        documents += np.repeat(self._first_documents[at], count)
        ends = np.append(starts[1:], 0)
        ends[np.cumsum(count) - 1] = used
        return Rows(index, tokens, used, row, starts, ends - starts, documents, offsets)
