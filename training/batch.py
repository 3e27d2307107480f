"""Whose rows are they, and what was read: positions of a step, shares of ranks, and the hash chain.

Law: the rows of a step are a function of the seed and the step alone. World size only says which
positions are mine, micro-batching only how many are laid out at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.order import derive, mix
from training.shards import Rows


def share(step: int, batch: int, rank: int = 0, world: int = 1) -> tuple[int, int]:
    """First global position of `rank` in 0-based `step`, and the end of its share; sizes differ by one row at most."""
    return step * batch + batch * rank // world, step * batch + batch * (rank + 1) // world


def positions(step: int, batch: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """The global positions of that share."""
    return np.arange(*share(step, batch, rank, world), dtype=np.int64)


def micro_batches(rows: Rows, parts: int) -> Iterator[Rows]:
    """Cut rows into parts, as even as can be."""
    for part in range(parts):
        yield rows.slice(len(rows) * part // parts, len(rows) * (part + 1) // parts)


def parts(batch: int, size: int, world: int = 1) -> int:
    """Micro-batches of at most `size` rows that the largest share of a step needs."""
    largest = -(-batch // world)
    return -(-largest // size)


def chain_start(version: str, seed: int, batch: int) -> str:
    """The chain before anything was read: it names what would be read."""
    return hashlib.blake2b(f"gristmill.chain/1 {version} {seed} {batch}".encode(), digest_size=16).hexdigest()


def chain_next(previous: str, rows: Rows) -> str:
    """Append a step to the chain: the ordered spans (document, offset, length) of all its rows."""
    spans = np.stack([rows.piece_row, rows.documents, rows.offsets, rows.lengths], axis=1).astype("<i8")
    return hashlib.blake2b(bytes.fromhex(previous) + spans.tobytes(), digest_size=16).hexdigest()


def row_keys(seed: int, step: int, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """64 random bits for each row of a step: the only source of an objective's randomness, so masks resume exactly."""
    return mix(mix(np.asarray(rows, np.uint64)) ^ np.uint64(derive("row", seed, step)))
