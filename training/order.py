"""Which row comes when: a permutation that is arithmetic, so an order has no state to lose.

    row(position) = permutation(seed, epoch)(position mod rows),   epoch = position div rows

A Feistel network over the smallest even number of bits that holds `rows` is a bijection whatever its
round function (Luby and Rackoff 1988); walking its cycle until the value falls below `rows` keeps it one
on exactly that range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). The law: each
epoch visits every row once, and a resume needs one integer. 512 rows of a 10 M row epoch take about 1 ms.

Round keys come from blake2b over (seed, epoch, round): no generator's stream decides what a run has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6  # three give a pseudorandom permutation from good rounds; small domains deserve more


def rows(count: int, seed: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Row numbers in [0, count) at these global positions; positions beyond `count` are further epochs."""
    if count < 1:
        raise ValueError("an order over no rows; the split is empty")
    positions = np.asarray(positions, np.int64)
    out = np.empty(positions.shape, np.int64)
    epochs = positions // count
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        out[chosen] = permutation(count, seed, int(epoch), positions[chosen] % count)
    return out


def permutation(count: int, seed: int, epoch: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The permutation of range(count) that (seed, epoch) names, evaluated at `positions`, each in [0, count)."""
    return _walked(_network, count, seed, epoch, positions)


def positions(count: int, seed: int, epoch: int, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The inverse of `permutation`: where in that epoch each of `rows`, each in [0, count), stands."""
    return _walked(_network_back, count, seed, epoch, rows)


def _walked(
    network: Callable[[NDArray[np.uint64], int, tuple[np.uint64, ...]], NDArray[np.uint64]],
    count: int,
    seed: int,
    epoch: int,
    starts: NDArray[np.integer[Any]],
) -> NDArray[np.int64]:
    """Where each of `starts` comes out below `count`, passed through the network until it does."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = _keys(seed, epoch)
    values = np.asarray(starts, np.uint64).copy()
    walking = np.arange(values.size)
    while walking.size:
        stepped = network(values[walking], half, keys)
        values[walking] = stepped
        walking = walking[stepped >= count]
    return values.astype(np.int64)


def _network(values: NDArray[np.uint64], half: int, keys: tuple[np.uint64, ...]) -> NDArray[np.uint64]:
    """One pass of the Feistel network over 2 * half bits."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << bits) | right


def _network_back(values: NDArray[np.uint64], half: int, keys: tuple[np.uint64, ...]) -> NDArray[np.uint64]:
    """The inverse of `_network`: its rounds undone, the last one first."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in reversed(keys):
        left, right = right ^ (mix(left ^ key) & mask), left
    return (left << bits) | right


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    y = x >> np.uint64(30)
    y ^= x
    y *= np.uint64(0xBF58476D1CE4E5B9)
    shifted = y >> np.uint64(27)
    y ^= shifted
    y *= np.uint64(0x94D049BB133111EB)
    return y ^ np.right_shift(y, np.uint64(31), out=shifted)


def uniform(keys: NDArray[np.uint64], places: NDArray[np.uint64], *name: str) -> NDArray[np.float64]:
    """A number in [0, 1) for each key and place, which are broadcast: 53 bits of these and a name alone."""
    bits = mix(mix(mix(keys ^ np.uint64(derive(*name))) ^ mix(places)))
    return (bits >> np.uint64(11)).astype(np.float64) / (1 << 53)


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(derive("order", seed, epoch, round_)) for round_ in range(ROUNDS))


def derive(*parts: str | int) -> int:
    """A 64-bit number named by its parts: the one root of all randomness in a run."""
    named = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little")
