"""Candidate pairs become verified pairs: the part of `near` that goes back to the texts.

Signatures are folded into band hashes as they are read and only one document stands for each distinct set, so what is
held for a corpus is about 150 bytes a distinct set. Texts are fetched once for each pair of partitions that share
candidates, and less often while their shingle sets fit into `held_bytes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.minhash import band_hashes
from pipeline.kernels.shingles import Sets, jaccards, set_digests, shingle_sets
from pipeline.stages._clusters import whole

Texts = Callable[[int, list[int]], pa.Array]
PLACE = pa.schema([("digest", pa.binary(16)), ("part", pa.int32()), ("row", pa.int32()), ("shingles", pa.int32())])


@dataclass(frozen=True)
class Sketched:
    """The distinct sets, sorted by digest: a document that has each, the set's size and its band hashes."""

    digests: pa.Array
    part: NDArray[np.int32]
    row: NDArray[np.int32]
    sizes: NDArray[np.int32]
    bands: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def mixers(self) -> NDArray[np.uint64]:
        """A number of each set that depends on its shingles alone: the first half of its digest."""
        return _words(self.digests, ">u8")[:, 0]

    @classmethod
    def gather(cls, sketches: Iterator[pa.Table], bands: int, rows: int) -> Sketched:
        """Read sketch tables, keeping the first document by part and row of each distinct set."""
        places, folded = [PLACE.empty_table()], [np.empty((bands, 0), np.uint64)]
        for sketch in sketches:
            sketch = sketch.filter(pc.is_valid(sketch["digest"]))
            signed = _words(whole(sketch["signature"]), "<u8")
            if sketch.num_rows and signed.shape[1] != bands * rows:
                raise ValueError(f"near: sketches have {signed.shape[1]} positions, not {bands} x {rows}: sketch again")
            places.append(sketch.select(PLACE.names).cast(PLACE))
            folded.append(band_hashes(signed.reshape(-1, bands * rows), bands))
        table = pa.concat_tables(places)
        digests = whole(table["digest"])
        part, row, sizes = (np.asarray(table[name]) for name in ("part", "row", "shingles"))
        halves = _words(digests, ">u8")
        order = np.lexsort((row, part, halves[:, 1], halves[:, 0]))
        new = np.ones(order.size, bool)
        new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        order = order[new]
        hashes = np.ascontiguousarray(np.concatenate(folded, axis=1)[:, order])
        return cls(digests.take(pa.array(order)), part[order], row[order], sizes[order], hashes)


def verify(known: Sketched, pairs: NDArray[np.int64], texts: Texts, ngram: int, held_bytes: int) -> NDArray[np.float64]:
    """Exact Jaccard similarity of the sets pairs[0, k] and pairs[1, k] of `known`, from their texts.

    Raises RuntimeError where a text is not the one that was sketched.
    """
    swap = known.part[pairs[0]] > known.part[pairs[1]]
    left, right = np.where(swap, pairs[::-1], pairs)
    held = _Held(known, np.unique(pairs), texts, ngram, held_bytes)
    order = np.lexsort((known.part[right], known.part[left]))
    parts = np.stack([known.part[left[order]], known.part[right[order]]])
    cuts = np.flatnonzero((parts[:, 1:] != parts[:, :-1]).any(axis=0)) + 1
    similarity = np.empty(left.size, np.float64)
    for block in np.split(order, cuts) if order.size else []:
        a, b = int(known.part[left[block[0]]]), int(known.part[right[block[0]]])
        similarity[block] = jaccards(held.sets(a), held.sets(b), held.local[left[block]], held.local[right[block]])
    return similarity


class _Held:
    """The shingle sets of the candidates of a partition, the last used ones kept up to a number of bytes."""

    def __init__(self, known: Sketched, wanted: NDArray[np.int64], texts: Texts, ngram: int, held_bytes: int) -> None:
        self._known, self._texts, self._ngram, self._room = known, texts, ngram, held_bytes
        order = wanted[np.lexsort((known.row[wanted], known.part[wanted]))]
        parts, begins = np.unique(known.part[order], return_index=True)
        self._members = dict(zip(parts.tolist(), np.split(order, begins[1:]), strict=True)) if order.size else {}
        self.local = np.full(len(known), -1, np.int64)
        for members in self._members.values():
            self.local[members] = np.arange(members.size)
        self._sets: OrderedDict[int, Sets] = OrderedDict()

    def sets(self, part: int) -> Sets:
        """The sets of one partition's candidates; `local` says where each lies."""
        if part not in self._sets:
            self._sets[part] = self._load(part)
        self._sets.move_to_end(part)
        while len(self._sets) > 2 and sum(values.nbytes for values, _ in self._sets.values()) > self._room:
            self._sets.popitem(last=False)
        return self._sets[part]

    def _load(self, part: int) -> Sets:
        members = self._members[part]
        rows = self._known.row[members].tolist()
        text = self._texts(part, rows)
        text = whole(text) if isinstance(text, pa.ChunkedArray) else text
        sets = shingle_sets(text, self._ngram)
        expected = self._known.digests.take(pa.array(members))
        if not expected.equals(pa.array(set_digests(sets), expected.type)):
            raise RuntimeError(f"near: the texts of partition {part} are not those that were sketched: sketch again")
        return sets


def _words(array: pa.Array, order: str) -> NDArray[np.uint64]:
    """The bytes of a fixed_size_binary array without nulls as uint64 [n, width / 8]."""
    width = array.type.byte_width
    raw = np.frombuffer(array.buffers()[1] or b"", np.uint8)[array.offset * width :][: len(array) * width]
    return np.ascontiguousarray(raw).view(order).astype(np.uint64, copy=False).reshape(len(array), width // 8)
