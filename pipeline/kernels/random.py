"""Random numbers that are arithmetic: draw k of seed s, with no state and no library's stream (SplitMix64).

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix64(seeds: NDArray[np.uint64], draws: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64, of the shape the two broadcast to: draw number `draws` (from 0) of the generator started at `seeds`."""
    x = np.atleast_1d(seeds) + (np.atleast_1d(draws) + np.uint64(1)) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(MIX_2)
    return x ^ (x >> np.uint64(31))


def stream(seed: int, count: int) -> NDArray[np.uint64]:
    """The first `count` draws of one generator, uint64 [count]."""
    return splitmix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64), np.arange(count, dtype=np.uint64))
