"""Records sorted into buckets under a bound of memory: what does not fit goes to a scratch folder.

The one law: a bucket gives its records back in the order in which they were added, whether or not they went over the
disk, so nothing that is made of them depends on how much memory there was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.limits import Workspace


class Spill:
    """`buckets` files of records of one dtype; a quarter of the workspace is held of them before they are written.

    `sizes` counts the records of each bucket. Records are the spill's once they are added, and what comes back is not
    to be written to. A full disk is an OSError, which the store explains.
    """

    def __init__(self, workspace: Workspace, name: str, dtype: Any, buckets: int) -> None:
        self._folder, self._name, self._memory = workspace.folder, name, workspace.memory // 4
        self._dtype, self._held = np.dtype(dtype), 0
        # numpy moves bytes as they are, and records field by field.
        self._raw: Any = np.dtype((np.void, self._dtype.itemsize)) if self._dtype.fields else self._dtype
        self._waiting: list[list[NDArray[Any]]] = [[] for _ in range(buckets)]
        self._written: set[int] = set()
        self.sizes = np.zeros(buckets, np.int64)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, buckets: NDArray[np.integer], records: NDArray[Any]) -> None:
        """Add each record to its bucket, behind those that are there."""
        if not len(records):
            return
        # numpy sorts 16 bits by radix.
        order = np.argsort(buckets.astype(np.uint16) if len(self) <= 1 << 16 else buckets, kind="stable")
        sorted_ = self._bytes(records)[order]
        counts = np.bincount(buckets, minlength=len(self))
        self.sizes += counts
        ends = np.cumsum(counts).tolist()
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                self._waiting[number].append(sorted_[start:end])
        self._hold(sorted_)

    def extend(self, bucket: int, records: NDArray[Any]) -> None:
        """Add all records to one bucket."""
        if len(records):
            self.sizes[bucket] += len(records)
            self._waiting[bucket].append(self._bytes(records))
            self._hold(records)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{self._name}-{bucket}"

    def _bytes(self, records: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(records).view(self._raw)

    def _hold(self, records: NDArray[Any]) -> None:
        self._held += records.nbytes
        if self._held > self._memory:
            self._flush()

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for bucket, waiting in enumerate(self._waiting):
            if waiting:
                with self._path(bucket).open("ab") as file:
                    for records in waiting:
                        # Not by `tofile`, which says nothing where the last bytes do not fit.
                        file.write(records.view(np.uint8).data)
                self._written.add(bucket)
                waiting.clear()
        self._held = 0

    def read(self, bucket: int) -> NDArray[Any]:
        """The records of a bucket in the order in which they were added."""
        return self._together(self._parts(bucket))

    def take(self, bucket: int) -> NDArray[Any]:
        """The same, and the bucket is empty afterwards."""
        return self._together(self._take(bucket))

    def runs(self, memory: int, keep: bool = False) -> Iterator[NDArray[Any]]:
        """All records, as many buckets at a time as `memory` bytes hold and one at the least; taken, unless `keep`."""
        first, give = 0, self._parts if keep else self._take
        while first < len(self):
            held = np.cumsum(self.sizes[first:]) * self._dtype.itemsize
            last = first + max(1, int(np.searchsorted(held, memory, side="right")))
            if self.sizes[first:last].any():
                yield self._together(part for bucket in range(first, last) for part in give(bucket))
            first = last

    def _parts(self, bucket: int) -> list[NDArray[Any]]:
        written = [np.fromfile(self._path(bucket), self._raw)] if bucket in self._written else []
        return [*written, *self._waiting[bucket]]

    def _take(self, bucket: int) -> list[NDArray[Any]]:
        parts = self._parts(bucket)
        if bucket in self._written:
            self._path(bucket).unlink()
            self._written.remove(bucket)
        self._held -= sum(part.nbytes for part in self._waiting[bucket])
        self._waiting[bucket].clear()
        self.sizes[bucket] = 0
        return parts

    def _together(self, parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
        whole = list(parts)
        joined = whole[0] if len(whole) == 1 else np.concatenate([np.empty(0, self._raw), *whole])
        return joined.view(self._dtype)
