"""The distinct shingle sets of a corpus, numbered by digest, and the pairs of them that share a band.

Documents with equal sets are one node, so a page that stands a million times is compared once. What grows with the
corpus in memory is 28 bytes a distinct set; sketches, bands and pairs wait in buckets (`spill`) by ranges of hashes,
which are uniform, and are sorted a few buckets at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels._jit import Hashes, Ints
from pipeline.kernels.bands import band_hashes, candidates, ring
from pipeline.limits import Workspace
from pipeline.spill import Spill
from pipeline.stages._clusters import whole

RANGES = 256
# Sorting and pairing a run of records takes several times what they take themselves.
SHARE = 16
# A distinct set: the halves of its digest, the first document by part and row that has it, and its size.
PLACE = np.dtype([("high", "u8"), ("low", "u8"), ("part", "i4"), ("row", "i4"), ("size", "i4")])
BAND = np.dtype([("hash", "u8"), ("set", "i8")])
PAIR = np.dtype([("a", "i8"), ("b", "i8")])


def gather(sketches: Iterator[pa.Table], bands: int, rows: int, workspace: Workspace) -> tuple[NDArray, Spill]:
    """Read the sketches of every partition: PLACE of the distinct sets by digest, and BAND records by band and range.

    Raises ValueError for sketches of another shape.
    """
    record = np.dtype([("place", PLACE), ("bands", "u8", (bands,))])
    met = Spill(workspace, "sketches", record, RANGES)
    for sketch in sketches:
        records = _records(sketch.filter(pc.is_valid(sketch["digest"])), record, bands, rows)
        met.add(_range(records["place"]["high"], RANGES), records)
    split = int(np.clip(met.sizes.sum() * BAND.itemsize * SHARE // workspace.memory + 1, 1, RANGES))
    banded = Spill(workspace, "bands", BAND, bands * split)
    places, count = [np.empty(0, PLACE)], 0
    for records in met.runs(workspace.memory // SHARE):
        records = records[_first_of_each(records["place"])]
        places.append(records["place"].copy())
        hashes = np.ascontiguousarray(records["bands"].T)
        entries = np.empty(hashes.shape, BAND)
        entries["hash"], entries["set"] = hashes, np.arange(count, count + len(records))
        which = np.arange(bands)[:, None] * split + _range(hashes, split)
        banded.add(which.ravel(), entries.ravel())
        count += len(records)
    return np.concatenate(places), banded


def pairs(
    places: NDArray,
    banded: Spill,
    bands: int,
    threshold: float,
    most: int,
    neighbours: int,
    workspace: Workspace,
    since: int = 0,
) -> tuple[Spill, int]:
    """PAIR records (a < b) of sets that share a band, each once, and the number of band buckets that were too large.

    Left out are pairs whose sizes alone keep them below `threshold`: no two sets are more alike than their sizes are;
    and pairs of sets that both stand in a partition before `since`.
    """
    found = Spill(workspace, "candidates", PAIR, RANGES)
    split, large = len(banded) // bands, 0
    for bucket in range(len(banded)):
        entries = _with_new(banded.take(bucket), places, since)
        sets = entries["set"].copy()
        hashes, mixers = entries["hash"].copy(), ring(places["high"][sets], bucket // split)
        shared, too_many = candidates(hashes, sets, mixers, most, neighbours)
        sizes = places["size"][shared]
        shared = shared[:, sizes.min(axis=0) >= threshold * sizes.max(axis=0)]
        shared = shared[:, places["part"][shared].max(axis=0) >= since] if since else shared
        found.add(shared[0] * RANGES // max(len(places), 1), _pair(shared))
        large += too_many
    once = Spill(workspace, "pairs", PAIR, RANGES)
    for records in found.runs(workspace.memory // SHARE):
        records = _distinct(records, len(places))
        once.add(records["a"] * RANGES // len(places), records)
    return once, large


def _with_new(entries: NDArray, places: NDArray, since: int) -> NDArray:
    """The entries of hashes that a set has which stands in no partition before `since`."""
    if not since:
        return entries
    hashes = np.ascontiguousarray(entries["hash"])
    new = np.unique(hashes[places["part"][entries["set"]] >= since])
    if not new.size:
        return entries[:0]
    # They are few among many: to look each up costs a fraction of sorting all.
    return entries[new[np.minimum(np.searchsorted(new, hashes), new.size - 1)] == hashes]


def digests(places: NDArray) -> pa.Array:
    """binary(16) of some sets."""
    words = np.empty((len(places), 2), ">u8")
    words[:, 0], words[:, 1] = places["high"], places["low"]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(words), [None, pa.py_buffer(words)])


def _records(sketch: pa.Table, record: np.dtype, bands: int, rows: int) -> NDArray:
    out = np.empty(sketch.num_rows, record)
    signed = unpacked(whole(sketch["signature"]), "<u4")
    if sketch.num_rows and signed.shape[1] != bands * rows:
        raise ValueError(f"near: sketches have {signed.shape[1]} positions, not {bands} x {rows}: sketch again")
    words = unpacked(whole(sketch["digest"]), ">u8")
    place = out["place"]
    place["high"], place["low"] = words[:, 0], words[:, 1]
    for field, name in (("part", "part"), ("row", "row"), ("size", "shingles")):
        place[field] = sketch[name]
    out["bands"] = band_hashes(signed.reshape(-1, bands * rows), bands)
    return out


def unpacked(array: pa.Array, dtype: str) -> NDArray:
    """The bytes of a fixed_size_binary array without nulls as numbers of this machine [n, numbers in a row]."""
    width = array.type.byte_width
    raw = np.frombuffer(array.buffers()[1] or b"", np.uint8)[array.offset * width :][: len(array) * width]
    words = np.ascontiguousarray(raw).view(dtype)
    return words.astype(words.dtype.newbyteorder("="), copy=False).reshape(len(array), width // words.itemsize)


def _range(hashes: Hashes, count: int) -> Ints:
    """Which of `count` equal ranges each hash lies in."""
    return ((hashes >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def _first_of_each(places: NDArray) -> Ints:
    """Positions of the first place of each digest by part and row, in order of digest."""
    order = np.argsort(places["high"])
    high = places["high"][order]
    equal = np.flatnonzero(high[1:] == high[:-1])
    if equal.size:
        # Only these need the other keys.
        tied = np.unique(np.concatenate([equal, equal + 1]))
        some = places[order[tied]]
        order[tied] = order[tied][np.lexsort((some["row"], some["part"], some["low"], some["high"]))]
    high, low = places["high"][order], places["low"][order]
    new = np.ones(order.size, bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return order[new]


def _pair(pairs: Ints) -> NDArray:
    out = np.empty(pairs.shape[1], PAIR)
    out["a"], out["b"] = pairs
    return out


def _distinct(records: NDArray, sets: int) -> NDArray:
    """The pairs of so many sets once each, sorted."""
    # Sets are counted in 32 bits, so a pair is one number.
    once = np.unique(records["a"] * sets + records["b"])
    return _pair(np.stack(np.divmod(once, sets)))
