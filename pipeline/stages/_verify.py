"""Candidate pairs become verified pairs: the part of `near` that goes back to the texts.

Each partition's texts are read once. The shingle sets of those that are in a candidate pair are laid into blocks,
sets that hang together by candidates side by side, so that nearly every pair lies within a block; pairs across
blocks are few unless a component is larger than a block. One block, or two, are in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Floats, Ints, Table
from pipeline.kernels.buffers import frozen
from pipeline.kernels.shingles import Sets, in_order, jaccards, set_digests, shingle_sets
from pipeline.kernels.unionfind import join
from pipeline.limits import Workspace
from pipeline.spill import Spill
from pipeline.stages._clusters import whole
from pipeline.stages._distinct import PAIR, SHARE, digests
from pipeline.threads import ahead

# Gives the texts, or the stored sets, of some rows of a partition.
Texts = Callable[[int, list[int]], pa.Array]
# Gives the shingle sets of some documents (PLACE records) of one partition.
Read = Callable[[NDArray], Sets]


def verified(
    places: NDArray, pairs: Spill, sets: Read, threshold: float, workspace: Workspace
) -> tuple[NDArray, Floats]:
    """(PAIR records with a Jaccard similarity of at least `threshold`, sorted; the similarities).

    Raises RuntimeError where a set is not the one that was sketched.
    """
    block, blocks = _blocks(places, pairs, workspace)
    read, local = _lay(places, block, blocks, sets, workspace)
    dealt = Spill(workspace, "dealt", PAIR, blocks * blocks)
    for records in pairs.runs(workspace.memory // SHARE):
        a, b = block[records["a"]].astype(np.int64), block[records["b"]].astype(np.int64)
        dealt.add(np.minimum(a, b) * blocks + np.maximum(a, b), records)
    found, similarity = [np.empty(0, PAIR)], [np.empty(0, np.float64)]
    held: dict[int, Sets] = {}
    for number in np.flatnonzero(dealt.sizes).tolist():
        wanted = divmod(number, blocks)
        held = {k: held[k] if k in held else read(k) for k in {*wanted}}
        records = dealt.take(number)
        left, right = records["a"], records["b"]
        swap = block[left] > block[right]
        left, right = np.where(swap, right, left), np.where(swap, left, right)
        alike = jaccards(held[wanted[0]], held[wanted[1]], local[left], local[right])
        kept = alike >= threshold
        found.append(records[kept])
        similarity.append(alike[kept])
    all_found, all_alike = np.concatenate(found), np.concatenate(similarity)
    order = np.lexsort((all_found["b"], all_found["a"]))
    return all_found[order], all_alike[order]


def _blocks(places: NDArray, pairs: Spill, workspace: Workspace) -> tuple[NDArray[np.int32], int]:
    """(block of every set, -1 where no pair needs it; number of blocks)."""
    block = np.full(len(places), -1, np.int32)
    parent = np.arange(len(places), dtype=np.int64)
    for records in pairs.runs(workspace.memory // SHARE, keep=True):
        left, right = (np.ascontiguousarray(records[end]) for end in "ab")
        block[left] = block[right] = 0
        join(parent, frozen(left), frozen(right))
    wanted = np.flatnonzero(block == 0)
    wanted = wanted[np.argsort(parent[wanted], kind="stable")]
    ends = np.cumsum(places["size"][wanted], dtype=np.int64) * 8
    room = max(workspace.memory // SHARE, 8)
    block[wanted] = (ends - 1) // room if ends.size and ends[-1] > workspace.memory // 4 else 0
    # A set larger than a block leaves numbers unused.
    if wanted.size:
        block[wanted] = np.cumsum(np.diff(block[wanted], prepend=block[wanted[0]]) > 0)
    return block, int(block.max(initial=0)) + 1


def _lay(
    places: NDArray, block: NDArray[np.int32], blocks: int, read: Read, workspace: Workspace
) -> tuple[Callable[[int], Sets], Ints]:
    """(what gives the sets of a block, position of each set in its block)."""
    wanted = np.flatnonzero(block >= 0)
    wanted = wanted[np.lexsort((places["row"][wanted], places["part"][wanted]))]
    arrived = wanted[np.argsort(block[wanted], kind="stable")]
    local = np.full(len(places), -1, np.int64)
    starts = []
    for members in _runs(block[arrived], arrived):
        local[members] = np.arange(members.size)
        starts.append(np.append(0, np.cumsum(places["size"][members], dtype=np.int64)))
    runs = list(_runs(places["part"][wanted], wanted))
    if len(starts) == 1:
        # They arrive in their order, so each partition's sets are laid where they stay.
        values, begins = np.empty(starts[0][-1], np.uint64), starts[0]

        def lay(members: Ints) -> None:
            found, _ = _read(places[members], read)
            values[begins[local[members[0]]] :][: found.size] = found

        deque(ahead(lay, runs, workspace.threads), maxlen=0)
        return lambda number: (values, begins), local
    sets = Spill(workspace, "sets", np.uint64, blocks)
    arriving = ahead(lambda members: _read(places[members], read)[0], runs, workspace.threads)
    for members, found in zip(runs, arriving, strict=True):
        sets.add(np.repeat(block[members], places["size"][members]), found)
    return lambda number: (sets.read(number), starts[number]), local


def _runs(keys: NDArray, members: Ints) -> Iterator[Ints]:
    """The members of each run of equal keys."""
    yield from np.split(members, np.flatnonzero(np.diff(keys)) + 1) if members.size else ()


def _read(places: NDArray, read: Read) -> Sets:
    """The shingle sets of some documents of one partition."""
    sets = read(places)
    if not set_digests(sets).equals(digests(places)):
        part = int(places["part"][0])
        raise RuntimeError(f"near: the texts of partition {part} are not those that were sketched: sketch again")
    return sets


def of_texts(texts: Texts, ngram: int, characters: Table | None = None) -> Read:
    """What makes the sets of documents from their texts."""

    def read(places: NDArray) -> Sets:
        text = texts(int(places["part"][0]), places["row"].tolist())
        return shingle_sets(whole(text) if isinstance(text, pa.ChunkedArray) else text, ngram, characters)

    return read


def of_stored(stored: Texts) -> Read:
    """What takes the sets of documents from their sketches, where they lie in no order."""

    def read(places: NDArray) -> Sets:
        found = stored(int(places["part"][0]), places["row"].tolist())
        column = whole(found) if isinstance(found, pa.ChunkedArray) else found
        starts = np.append(0, np.cumsum(places["size"], dtype=np.int64))
        raw = b"".join(value.as_buffer() for value in column)
        return in_order(np.frombuffer(raw, "<u8").astype(np.uint64, copy=False), starts)

    return read
