"""MinHash signatures and their bands (Broder 1997; Indyk and Motwani 1998).

A permutation is x -> a x + b mod 2^64 with odd a: a bijection of 64-bit hashes, so no 61-bit prime and no division.
Its parameters come from SplitMix64 of a seed, not from a library's random stream: a signature is the same for ever.
Two sets agree in one position with probability equal to their Jaccard similarity J; the share of `bands * rows`
positions that agree estimates J with variance J (1 - J) / (bands * rows). Two sets share all `rows` positions of at
least one of `bands` bands with probability 1 - (1 - J^rows)^bands: .924 at J = .8 for 14 x 8.
"""

from __future__ import annotations

import functools

import numpy as np

from pipeline.kernels._jit import Hashes, Ints, kernel
from pipeline.kernels.buffers import frozen
from pipeline.kernels.random import splitmix64, stream
from pipeline.kernels.shingles import GOLDEN, Sets, mix

Permutations = tuple[Hashes, Hashes]
HALF = np.uint64(1 << 63)
MOST = np.int64((1 << 63) - 1)
LANES = 4


@functools.cache
def permutations(count: int, seed: int) -> Permutations:
    """(a, b), uint64 [count] each, a odd: draws 0, 1, 2, ... of SplitMix64 from `seed`, taken in turn."""
    draws = stream(seed, 2 * count)
    return draws[0::2] | np.uint64(1), draws[1::2].copy()


def signatures(sets: Sets, count: int, seed: int) -> Hashes:
    """uint64 [n, count]: the least value of each permutation over each set; all ones for an empty set."""
    whole = count + -count % LANES
    out = np.empty((sets[1].size - 1, whole), np.uint64)
    sign(*map(frozen, (*sets, *permutations(whole, seed))), out)
    return out[:, :count]


def band_hashes(signatures: Hashes, bands: int) -> Hashes:
    """uint64 [bands, n]: one hash of each band of rows of each signature."""
    out = np.empty((bands, signatures.shape[0]), np.uint64)
    fold(frozen(signatures), signatures.shape[1] // bands, out)
    return out


def candidates(bands: Hashes, mixers: Hashes, most: int, neighbours: int) -> tuple[Ints, int]:
    """(pairs of sets that share a band, as sorted distinct codes low * n + high; buckets larger than `most`).

    Sets with an equal hash of one band (bands: uint64 [bands, n]) form a bucket. Of a bucket of up to `most` sets all
    pairs are taken. In a larger one, sorted by `mixers` (uint64 [n]) mixed with the band's number, each set is paired
    with the next `neighbours`, around the end: n * neighbours pairs instead of n^2 / 2, and other ones in each band.
    """
    found = [np.zeros(0, np.int64)]
    large = 0
    for band, hashes in enumerate(bands):
        order = np.lexsort((splitmix64(mixers, np.array(band, np.uint64)), hashes))
        begins = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
        begins = np.append(begins, hashes.size)
        sizes = np.diff(begins)
        large += int((sizes > most).sum())
        codes = np.empty(np.where(sizes <= most, sizes * (sizes - 1) // 2, sizes * neighbours).sum(), np.int64)
        if codes.size:
            pair(frozen(order), frozen(begins), most, neighbours, codes)
            found = [np.unique(np.concatenate([*found, codes]))]
    return found[0], large


@kernel
def sign(values: Hashes, starts: Ints, a: Hashes, b: Hashes, out: Hashes) -> None:
    """Fill out[set, permutation], LANES permutations at a time."""
    for d in range(starts.size - 1):
        for j in range(0, a.size, LANES):
            _least(values, starts[d], starts[d + 1], a, b, j, out[d])


@kernel
def _least(values: Hashes, start: int, end: int, a: Hashes, b: Hashes, j: int, out: Hashes) -> None:
    """Four minima in registers: twice as fast as a row of minima in memory.

    Processors compare signed integers, so the order is moved by half the range on the way in and back on the way out.
    """
    a0, a1, a2, a3 = a[j], a[j + 1], a[j + 2], a[j + 3]
    b0, b1, b2, b3 = b[j] ^ HALF, b[j + 1] ^ HALF, b[j + 2] ^ HALF, b[j + 3] ^ HALF
    m0 = m1 = m2 = m3 = MOST
    for k in range(start, end):
        x = values[k]
        m0 = min(m0, np.int64(a0 * x + b0))
        m1 = min(m1, np.int64(a1 * x + b1))
        m2 = min(m2, np.int64(a2 * x + b2))
        m3 = min(m3, np.int64(a3 * x + b3))
    out[j], out[j + 1] = np.uint64(m0) ^ HALF, np.uint64(m1) ^ HALF
    out[j + 2], out[j + 3] = np.uint64(m2) ^ HALF, np.uint64(m3) ^ HALF


@kernel
def fold(signatures: Hashes, rows: int, out: Hashes) -> None:
    """Fill out[band, set] with a hash of the band's rows and its number."""
    for d in range(signatures.shape[0]):
        for band in range(out.shape[0]):
            h = np.uint64(band)
            for r in range(band * rows, (band + 1) * rows):
                h = mix(h * GOLDEN + signatures[d, r])
            out[band, d] = h


@kernel
def pair(order: Ints, begins: Ints, most: int, neighbours: int, out: Ints) -> None:
    """Write the codes of the pairs of every bucket order[begins[k]:begins[k + 1]]."""
    n = 0
    for k in range(begins.size - 1):
        start, size = begins[k], begins[k + 1] - begins[k]
        for i in range(size):
            reach = size - 1 - i if size <= most else neighbours
            for step in range(1, reach + 1):
                a, b = order[start + i], order[start + (i + step) % size]
                out[n] = min(a, b) * order.size + max(a, b)
                n += 1
