"""MinHash signatures and their bands (Broder 1997; Indyk and Motwani 1998).

A permutation is x -> a x + b mod 2^32 with odd a, over the upper half of each 64-bit shingle hash: a bijection, so no
prime and no division. It is what datasketch calls `affine32`, its default since 2.0. Half the bits of the hash make
half the sketch, and on most processors a third of the work: two shingles of a document share 32 bits by chance, so an
estimate from n shingles is high by about n / 2^32, a millionth for 4,000 words.
Its parameters come from SplitMix64 of a seed, not from a library's random stream: a signature is the same for ever.
Two sets agree in one position with probability equal to their Jaccard similarity J; the share of `bands * rows`
positions that agree estimates J with variance J (1 - J) / (bands * rows). Two sets share all `rows` positions of at
least one of `bands` bands with probability 1 - (1 - J^rows)^bands: .924 at J = .8 for 14 x 8.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.random import stream
from pipeline.kernels.shingles import Sets, add_up, most_units, shingles
from pipeline.kernels.unicode import table
from pipeline.kernels.units import ONE, ZERO, Room, room

Words = NDArray[np.uint32]
MOST = np.uint32(0xFFFFFFFF)
S32 = np.uint64(32)
# Fewer shingles than that have a table that is mostly empty: a slot that is taken costs more than one that is cleared.
FEW = 1 << 14
# Permutations that are taken at a time, and the multiple that a document's hashes are filled up to with copies of the
# first: whole vectors on every processor, and a copy moves no minimum.
LANES, STEP = 8, 16


class Sketches(NamedTuple):
    """Of every document: signature uint32 [n, count], digest uint64 [n, 2], number of distinct shingles int64 [n].

    `sets` are the distinct shingles themselves, uint64, document after document, in no order within one; empty where
    they were not asked for.
    """

    signatures: Words
    digests: Hashes
    sizes: Ints
    sets: Hashes


@functools.cache
def permutations(count: int, seed: int) -> tuple[Words, Words]:
    """(a, b), uint32 [count] each, a odd: the upper halves of draws 0, 1, 2, ... of SplitMix64, taken in turn."""
    draws = (stream(seed, 2 * count) >> S32).astype(np.uint32)
    return draws[0::2] | np.uint32(1), draws[1::2].copy()


def sketches(
    text: pa.Array, ngram: int, count: int, seed: int, keep: bool = False, characters: Table | None = None
) -> Sketches:
    """Sign and digest the shingle set of every document, one document at a time in cache; `keep` the sets as well.

    `characters` is a table in the place of `unicode.table()`.

    An empty set has a signature of all ones, a digest of zeros and size 0. At most about 40 bytes are held for each
    unit of the longest document, and two for each of its bytes; sets that are kept take 8 bytes a shingle.
    """
    data, offsets = text_buffers(text)
    whole, rows = count + -count % LANES, len(text)
    sizes = np.diff(offsets)
    longest = int(sizes.max(initial=0))
    most = most_units(longest)
    # Pages that are not written take no memory.
    sets = np.empty(int(most_units(sizes).sum()) if keep else 0, np.uint64)
    out = Sketches(np.empty((rows, whole), np.uint32), np.zeros((rows, 2), np.uint64), np.zeros(rows, np.int64), sets)
    scratch, halves = np.empty((2, most), np.uint64), np.empty(most + STEP, np.uint32)
    a, b = permutations(whole, seed)
    known = table() if characters is None else characters
    sketch(data, offsets, known, ngram, frozen(a), frozen(b), room(longest), scratch, halves, *out)
    kept = sets[: int(out.sizes.sum())] if keep else sets
    return out._replace(signatures=out.signatures[:, :count], sets=kept)


def signatures(sets: Sets, count: int, seed: int) -> Words:
    """uint32 [n, count]: the least value of each permutation over each set; all ones for an empty set."""
    whole = count + -count % LANES
    out = np.empty((sets[1].size - 1, whole), np.uint32)
    a, b = permutations(whole, seed)
    halves = np.empty(int(np.diff(sets[1]).max(initial=0)) + STEP, np.uint32)
    values, starts = map(frozen, sets)
    sign_sets(values, starts, frozen(a), frozen(b), halves, out)
    return out[:, :count]


@allocating_kernel
def sketch(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ngram: int,
    a: Words,
    b: Words,
    room: Room,
    scratch: Hashes,
    halves: Words,
    signatures: Words,
    digests: Hashes,
    sizes: Ints,
    sets: Hashes,
) -> None:
    """Fill a row of each output for every document, and `sets` with their shingles where it has room."""
    memory = np.empty(1024, np.uint64)
    values = scratch[1]
    used = 0
    for d in range(offsets.size - 1):
        n = shingles(data, offsets[d], offsets[d + 1], table, ngram, room, scratch[0], values)
        needed = 64
        while needed < (4 if n < FEW else 2) * n:
            needed *= 2
        if needed > memory.size:
            memory = np.empty(needed, np.uint64)
        n = _distinct(values, n, memory[:needed])
        add_up(values, 0, n, digests[d])
        sizes[d] = n
        _sign(values, 0, n, a, b, halves, signatures[d])
        if sets.size:
            for k in range(n):
                sets[used + k] = values[k]
            used += n


@kernel
def sign_sets(values: Hashes, starts: Ints, a: Words, b: Words, halves: Words, out: Words) -> None:
    for d in range(starts.size - 1):
        _sign(values, starts[d], starts[d + 1], a, b, halves, out[d])


@kernel
def _distinct(values: Hashes, n: int, slots: Hashes) -> int:
    """Move the distinct ones of values[:n] (none is 0) to the front; return how many. `slots` is a power of two."""
    slots[:] = ZERO
    last = np.uint64(slots.size - 1)
    kept = 0
    for k in range(n):
        x = values[k]
        at = x & last
        while slots[at] != ZERO and slots[at] != x:
            at = (at + ONE) & last
        if slots[at] == ZERO:
            slots[at] = x
            values[kept] = x
            kept += 1
    return kept


@kernel
def _sign(values: Hashes, start: int, end: int, a: Words, b: Words, halves: Words, out: Words) -> None:
    """out[j] = the least of a[j] x + b[j] over the upper halves x of values[start:end]."""
    n = end - start
    if n == 0:
        out[:] = MOST
        return
    for k in range(n):
        halves[k] = np.uint32(values[start + k] >> S32)
    steps = (n + STEP - 1) // STEP
    for k in range(n, steps * STEP):
        halves[k] = halves[0]
    for j in range(0, a.size, LANES):
        _least(halves, steps, a, b, j, out)


@kernel
def _least(halves: Words, steps: int, a: Words, b: Words, j: int, out: Words) -> None:
    """Eight minima in registers: a row of minima in memory takes twice as long."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a[j], a[j + 1], a[j + 2], a[j + 3], a[j + 4], a[j + 5], a[j + 6], a[j + 7]
    b0, b1, b2, b3, b4, b5, b6, b7 = b[j], b[j + 1], b[j + 2], b[j + 3], b[j + 4], b[j + 5], b[j + 6], b[j + 7]
    m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = MOST
    for k in range(steps * STEP):
        x = halves[k]
        m0 = min(m0, np.uint32(a0 * x + b0))
        m1 = min(m1, np.uint32(a1 * x + b1))
        m2 = min(m2, np.uint32(a2 * x + b2))
        m3 = min(m3, np.uint32(a3 * x + b3))
        m4 = min(m4, np.uint32(a4 * x + b4))
        m5 = min(m5, np.uint32(a5 * x + b5))
        m6 = min(m6, np.uint32(a6 * x + b6))
        m7 = min(m7, np.uint32(a7 * x + b7))
    out[j], out[j + 1], out[j + 2], out[j + 3] = m0, m1, m2, m3
    out[j + 4], out[j + 5], out[j + 6], out[j + 7] = m4, m5, m6, m7
