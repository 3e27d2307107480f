"""Records sorted into buckets under a bound of memory: what does not fit goes to a scratch folder.

The one law: a bucket gives its records back in the order in which they were added, whether or not they went over the
disk, so nothing that is made of them depends on how much memory there was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.limits import Workspace


class Spill:
    """`buckets` files of records of one dtype; a quarter of the workspace is held of them before they are written.

    `sizes` counts the records of each bucket. A full disk is an OSError, which the store explains.
    """

    def __init__(self, workspace: Workspace, name: str, dtype: Any, buckets: int) -> None:
        self._folder, self._memory = workspace.folder, workspace.memory // 4
        self._paths = [workspace.folder / f"{name}-{number}" for number in range(buckets)]
        self._dtype, self._held = np.dtype(dtype), 0
        self._waiting: list[list[NDArray[Any]]] = [[] for _ in range(buckets)]
        self.sizes = np.zeros(buckets, np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, buckets: NDArray[np.integer], records: NDArray[Any]) -> None:
        """Add each record to its bucket, behind those that are there."""
        if not len(records):
            return
        # numpy sorts 16 bits by radix.
        order = np.argsort(buckets.astype(np.uint16) if len(self) <= 1 << 16 else buckets, kind="stable")
        sorted_ = records[order]
        counts = np.bincount(buckets, minlength=len(self))
        self.sizes += counts
        ends = np.cumsum(counts).tolist()
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                self._waiting[number].append(sorted_[start:end])
        self._held += sorted_.nbytes
        if self._held > self._memory:
            self._flush()

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path, waiting in zip(self._paths, self._waiting, strict=True):
            if waiting:
                with path.open("ab") as file:
                    for records in waiting:
                        # Not by `tofile`, which says nothing where the last bytes do not fit.
                        file.write(records.view(np.uint8).data)
                waiting.clear()
        self._held = 0

    def read(self, bucket: int) -> NDArray[Any]:
        """The records of a bucket in the order in which they were added."""
        path, waiting = self._paths[bucket], self._waiting[bucket]
        written = [np.fromfile(path, self._dtype)] if path.exists() else []
        return np.concatenate([np.empty(0, self._dtype), *written, *waiting])

    def take(self, bucket: int) -> NDArray[Any]:
        """The same, and the bucket is empty afterwards."""
        records = self.read(bucket)
        if self._paths[bucket].exists():
            self._paths[bucket].unlink()
        self._held -= sum(part.nbytes for part in self._waiting[bucket])
        self._waiting[bucket].clear()
        self.sizes[bucket] = 0
        return records

    def runs(self, memory: int, keep: bool = False) -> Iterator[NDArray[Any]]:
        """All records, as many buckets at a time as `memory` bytes hold and one at the least; taken, unless `keep`."""
        first, give = 0, self.read if keep else self.take
        while first < len(self):
            held = np.cumsum(self.sizes[first:]) * self._dtype.itemsize
            last = first + max(1, int(np.searchsorted(held, memory, side="right")))
            if self.sizes[first:last].any():
                yield np.concatenate([give(bucket) for bucket in range(first, last) if self.sizes[bucket]])
            first = last
