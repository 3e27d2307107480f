"""Best-fit packing of one block of documents into rows, without cutting what fits.

Documents longer than a row have to be cut, and it is free where. So rows that nothing fits into any more are filled
from their ends: a full row of the longest documents goes, piece by piece, into the room that others have left.

A packing block is a run of one source's documents in canonical order whose ends are set by
the hash of their ids, about 8,192 documents apart: packing depends neither on partitions
nor on workers, and adding or removing a document touches its block alone. No token is lost
(law 5); only a document longer than a row is cut.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.kernels.packing import best_fit, lay

BLOCK_DOCUMENTS = 8192
LEAST = 32  # tokens of a piece that fills a row, or half a row: room for less stays padding


@dataclass(frozen=True)
class Tokens:
    """Encoded documents side by side: document i is `flat[starts[i]:starts[i + 1]]`."""

    flat: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def blocks(doc_ids: Sequence[str]) -> list[tuple[int, int]]:
    """Bounds [first, last) of the packing blocks of documents in canonical order."""
    ends = [i + 1 for i, doc_id in enumerate(doc_ids) if _ends_block(doc_id)]
    if doc_ids and (not ends or ends[-1] != len(doc_ids)):
        ends.append(len(doc_ids))
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def _ends_block(doc_id: str) -> bool:
    digest = hashlib.blake2b(f"block:{doc_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BLOCK_DOCUMENTS == 0


def packed(tokens: Tokens, length: int, fill: int) -> pa.Table:
    """Rows of `length` tokens: tokens, used, starts, documents, offsets (positions are counted from 0).

    Pieces are laid by best-fit decreasing (Johnson 1974), and what room is left is filled from documents longer than a
    row; within a row pieces keep the order of the documents.
    """
    document, offset, size = _pieces(np.diff(tokens.starts), length)
    document, offset, size, row = _filled(document, offset, size, best_fit(size, length), length)
    order = np.lexsort((offset, document, row))
    document, offset, size, row = document[order], offset[order], size[order], row[order]
    rows = int(row[-1]) + 1 if len(row) else 0
    first = np.searchsorted(row, np.arange(rows + 1))
    before = np.concatenate([[0], np.cumsum(size)])
    start = before[:-1] - before[first[row]]
    matrix = np.full(rows * length, fill, tokens.flat.dtype)
    lay(tokens.flat, tokens.starts[document] + offset, size, matrix, row * length + start)
    lists = [pa.ListArray.from_arrays(first.astype(np.int32), v.astype(np.int32)) for v in (start, document, offset)]
    used = np.diff(before[first])
    return pa.table(
        [pa.FixedSizeListArray.from_arrays(pa.array(matrix), length), pa.array(used.astype(np.int32)), *lists],
        names=["tokens", "used", "starts", "documents", "offsets"],
    )


def _filled(
    document: np.ndarray, offset: np.ndarray, size: np.ndarray, row: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pieces and their rows after full rows of long documents went into the room of other rows."""
    loads = np.bincount(row, weights=size).astype(np.int64)
    pieces = np.bincount(document)[document] if len(document) else document
    full = np.flatnonzero((size == length) & (pieces > 1))
    # The deepest first: of the longest documents, which are cut most often anyhow.
    full = full[np.lexsort((document[full], -offset[full]))]
    poured = pour(length - loads, length, len(full), min(LEAST, -(-length // 2)))
    if not poured:
        return document, offset, size, row
    gone = full[: len(poured)]
    parts = [(piece, into, tokens) for piece, cut in zip(gone.tolist(), poured, strict=True) for into, tokens in cut]
    piece, into, tokens = np.array(parts, np.int64).T
    before = np.cumsum(tokens) - tokens
    inside = before % length  # each of them is a full row
    left = np.delete(np.arange(len(size)), gone)
    document, offset = (
        np.concatenate([values[left], added])
        for values, added in ((document, document[piece]), (offset, offset[piece] + inside))
    )
    size, row = np.concatenate([size[left], tokens]), np.concatenate([row[left], into])
    _, row = np.unique(row, return_inverse=True)
    return document, offset, size, row


def pour(rooms: np.ndarray, length: int, most: int, least: int) -> list[list[tuple[int, int]]]:
    """For each of at most `most` full rows that find room in others: (row, tokens) of its parts, none below `least`.

    The smallest room first, and what is left of a full row as soon as some room holds it: large ones are kept for that.
    """
    free = sorted((room, row) for row, room in enumerate(rooms.tolist()) if room >= least)
    poured: list[list[tuple[int, int]]] = []
    while len(poured) < most and (parts := _poured(free, length, least)):
        poured.append(parts)
    return poured


def _poured(free: list[tuple[int, int]], length: int, least: int) -> list[tuple[int, int]]:
    """The parts of one full row, taken out of the sorted `free`; none, and `free` as it was, where it has no room."""
    before, left, parts = list(free), length, list[tuple[int, int]]()
    while left:
        at = bisect.bisect_left(free, (left, -1))
        room, row = free.pop(at if at < len(free) else 0) if free else (0, 0)
        part = left if room >= left else room if left - room >= least else left - least
        if part < least:
            free[:] = before
            return []
        if room - part >= least:
            bisect.insort(free, (room - part, row))
        parts.append((row, part))
        left -= part
    return parts


def _pieces(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut documents longer than a row: document, offset and size of each piece."""
    count = -(-sizes // length)
    document = np.repeat(np.arange(len(sizes)), count)
    nth = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    offset = nth * length
    return document, offset, np.minimum(sizes[document] - offset, length)


def examples(
    tokens: Tokens, length: int, labels: np.ndarray, targets: Tokens | None = None
) -> tuple[pa.Table, int, int]:
    """One row a document: tokens, label, document, and the target where there are any; what is longer than `length`
    is cut as `_cut` does. Also returns the tokens cut out, and those of targets."""
    texts, truncated = _cut(tokens, length)
    columns = {
        "tokens": texts,
        "label": pa.array(labels.astype(np.int32)),
        "document": pa.array(np.arange(len(texts), dtype=np.int32)),
    }
    if targets is None:
        return pa.table(columns), truncated, 0
    written, lost = _cut(targets, length)
    return pa.table({**columns, "target": written}), truncated, lost


def _cut(tokens: Tokens, length: int) -> tuple[pa.ListArray, int]:
    """Every document as a list of at most `length` tokens, and how many were cut out in all.

    Of a longer one the first `length` - 1 tokens stay and the last, its end-of-text: what sums up a text, or ends what
    is written, stands there.
    """
    size = np.diff(tokens.starts)
    kept = np.minimum(size, length)
    ends = np.concatenate([[0], np.cumsum(kept)])
    flat = np.empty(int(ends[-1]), tokens.flat.dtype)
    lay(tokens.flat, tokens.starts[:-1], kept, flat, ends[:-1])
    some = kept > 0
    flat[ends[1:][some] - 1] = tokens.flat[tokens.starts[1:][some] - 1]
    return pa.ListArray.from_arrays(ends.astype(np.int32), pa.array(flat)), int((size - kept).sum())
