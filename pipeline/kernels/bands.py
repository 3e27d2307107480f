"""Bands of signatures: who shares one with whom, and how many bands of how many rows to take.

Two sets are candidates where all `rows` positions of a band agree. A band is folded to one 64-bit hash, so two that
differ are taken for equal with probability 2^-64, and a pair too many is found out when it is verified.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Hashes, Ints, kernel
from pipeline.kernels.buffers import frozen
from pipeline.kernels.random import splitmix64
from pipeline.kernels.shingles import GOLDEN, mix

Words = NDArray[np.uint32]


def band_hashes(signatures: Words, bands: int) -> Hashes:
    """uint64 [n, bands]: one hash of each band of rows of each signature uint32 [n, bands * rows]."""
    out = np.empty((signatures.shape[0], bands), np.uint64)
    fold(frozen(signatures), signatures.shape[1] // bands, out)
    return out


def candidates(hashes: Hashes, sets: Ints, mixers: Hashes, most: int, neighbours: int) -> tuple[Ints, int]:
    """(pairs int64 [2, n] of `sets` with equal hashes of one band, how many buckets were too large for all pairs).

    All pairs of a bucket of up to `most` sets. In a larger one each set is paired with the next `neighbours` on a ring
    ordered by `mixers`, so n sets give n * neighbours pairs and not n^2 / 2.
    """
    order = np.argsort(hashes)
    begins = np.flatnonzero(hashes[order][1:] != hashes[order][:-1]) + 1
    begins = np.concatenate([[0], begins, [hashes.size]])
    sizes = np.diff(begins)
    # Most sets share a band with nobody.
    begins, sizes = begins[:-1][sizes > 1], sizes[sizes > 1]
    large = sizes > most
    for begin, size in zip(begins[large].tolist(), sizes[large].tolist(), strict=True):
        members = order[begin : begin + size]
        order[begin : begin + size] = members[np.lexsort((sets[members], mixers[members]))]
    out = np.empty((2, np.where(large, sizes * neighbours, sizes * (sizes - 1) // 2).sum()), np.int64)
    pair(*map(frozen, (sets[order], begins, sizes)), most, neighbours, out)
    return out, int(large.sum())


def ring(mixers: Hashes, band: int) -> Hashes:
    """Where sets stand on the ring of a band: another order for each band, which depends on the sets alone."""
    return splitmix64(mixers, np.array(band, np.uint64))


@functools.cache
def optimal(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows), bands * rows <= permutations, of the least area of wrong answers, half of it false positives.

    The areas under P(J) = 1 - (1 - J^rows)^bands below `threshold` and over it above, as in datasketch's MinHashLSH.
    Gauss and Legendre's rule is exact here: P is a polynomial of a degree up to `permutations`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(permutations // 2 + 1)
    below, above = (nodes + 1) / 2 * threshold, threshold + (nodes + 1) / 2 * (1 - threshold)
    least, best = np.inf, (1, 1)
    for bands in range(1, permutations + 1):
        for rows in range(1, permutations // bands + 1):
            positive = (weights * (1 - (1 - below**rows) ** bands)).sum() * threshold / 2
            negative = (weights * (1 - above**rows) ** bands).sum() * (1 - threshold) / 2
            if 0.5 * positive + 0.5 * negative < least:
                least, best = 0.5 * positive + 0.5 * negative, (bands, rows)
    return best


@kernel
def fold(signatures: Words, rows: int, out: Hashes) -> None:
    """Fill out[set, band] with a hash of the band's rows and its number."""
    for d in range(signatures.shape[0]):
        for band in range(out.shape[1]):
            h = np.uint64(band)
            for r in range(band * rows, (band + 1) * rows):
                h = mix(h * GOLDEN + np.uint64(signatures[d, r]))
            out[d, band] = h


@kernel
def pair(members: Ints, begins: Ints, sizes: Ints, most: int, neighbours: int, out: Ints) -> None:
    """Write the pairs of every bucket members[begins[k]:begins[k] + sizes[k]], the lower number first."""
    n = 0
    for k in range(begins.size):
        start, size = begins[k], sizes[k]
        for i in range(size):
            reach = size - 1 - i if size <= most else neighbours
            for step in range(1, reach + 1):
                a, b = members[start + i], members[start + (i + step) % size]
                out[0, n], out[1, n] = min(a, b), max(a, b)
                n += 1
