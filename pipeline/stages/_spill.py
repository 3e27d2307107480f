"""Records dealt into buckets, in memory while there is room and in files beyond: how a comparison stays bounded.

The one law: what is read back is what was put in, bucket by bucket and within one in the order in which it came,
whether or not it went through a file. So nothing that is made of it knows how much memory there was.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.limits import Workspace


class Buckets:
    """Records of one numpy type in `count` numbered buckets; about `memory` bytes of them wait in memory.

    A full disk is an OSError, for the store to explain. Files lie in the workspace's folder, which its owner removes.
    """

    def __init__(self, workspace: Workspace, name: str, dtype: np.dtype, count: int, memory: int) -> None:
        self.dtype, self.sizes = dtype, np.zeros(count, np.int64)
        self._folder, self._room = workspace.folder / name, memory
        self._waiting: list[tuple[NDArray, NDArray[np.int64]]] = []
        self._held = 0
        self._spilt = False

    def add(self, records: NDArray, buckets: NDArray[np.int64]) -> None:
        """Put record k into bucket buckets[k]."""
        self.sizes += np.bincount(buckets, minlength=self.sizes.size)
        self._waiting.append((records, buckets))
        # Sorting them takes as much again.
        self._held += 2 * (records.nbytes + buckets.nbytes)
        if self._held > self._room:
            self._spill()

    def take(self, first: int, last: int) -> NDArray:
        """The records of buckets first, ..., last - 1, one bucket after another."""
        if not self._spilt:
            records, begins = self._sort()
            return records[begins[first] : begins[last]]
        self._spill()
        numbers = np.flatnonzero(self.sizes[first:last]) + first
        parts = [np.fromfile(self._folder / str(number), self.dtype) for number in numbers.tolist()]
        return np.concatenate([np.empty(0, self.dtype), *parts])

    def ranges(self, memory: int) -> Iterator[NDArray]:
        """All records, in runs of as many buckets as `memory` bytes hold, and one at the least."""
        ends = np.cumsum(self.sizes)
        first = 0
        while first < ends.size:
            most = (ends[first - 1] if first else 0) + memory // self.dtype.itemsize
            last = max(first + 1, int(np.searchsorted(ends, most, side="right")))
            if self.sizes[first:last].any():
                yield self.take(first, last)
            first = last

    def _sort(self) -> tuple[NDArray, NDArray[np.int64]]:
        """What waits, by bucket, and where each bucket begins in it."""
        begins = np.append(0, np.cumsum(self.sizes if not self._spilt else self._counts()))
        if len(self._waiting) != 1 or (np.diff(self._waiting[0][1]) < 0).any():
            records = np.concatenate([np.empty(0, self.dtype), *(records for records, _ in self._waiting)])
            buckets = np.concatenate([np.empty(0, np.int64), *(buckets for _, buckets in self._waiting)])
            order = np.argsort(buckets.astype(np.uint16) if self.sizes.size <= 1 << 16 else buckets, kind="stable")
            self._waiting = [(records[order], buckets[order])]
        return self._waiting[0][0], begins

    def _counts(self) -> NDArray[np.int64]:
        waiting = (np.bincount(buckets, minlength=self.sizes.size) for _, buckets in self._waiting)
        return sum(waiting, np.zeros(self.sizes.size, np.int64))

    def _spill(self) -> None:
        """Append what waits to a file for each bucket."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spilt = True
        if self._waiting:
            records, begins = self._sort()
            for number in np.flatnonzero(np.diff(begins)).tolist():
                with (self._folder / str(number)).open("ab") as file:
                    records[begins[number] : begins[number + 1]].tofile(file)
        self._waiting, self._held = [], 0
