"""Records sorted into buckets under a bound of memory: what does not fit goes to a scratch folder.

The one law: a bucket gives its records back in the order in which they were added, whether or not they went over the
disk, so nothing that is made of them depends on how much memory there was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.limits import Workspace


class Spill:
    """`buckets` files of records of one dtype; a quarter of the workspace is held of them before they are written."""

    def __init__(self, workspace: Workspace, name: str, dtype: Any, buckets: int) -> None:
        self._folder, self._memory = workspace.folder, workspace.memory // 4
        self._paths = [workspace.folder / f"{name}-{number}" for number in range(buckets)]
        self._dtype, self._held = np.dtype(dtype), 0
        self._waiting: list[list[NDArray[Any]]] = [[] for _ in range(buckets)]

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, buckets: NDArray[np.integer], records: NDArray[Any]) -> None:
        """Add each record to its bucket, behind those that are there."""
        if not len(records):
            return
        order = np.argsort(buckets, kind="stable")
        sorted_ = records[order]
        ends = np.cumsum(np.bincount(buckets, minlength=len(self))).tolist()
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
                        records.tofile(file)
                waiting.clear()
        self._held = 0

    def take(self, bucket: int) -> NDArray[Any]:
        """The records of a bucket in the order in which they were added; the bucket is empty afterwards."""
        path, waiting = self._paths[bucket], self._waiting[bucket]
        written = [np.fromfile(path, self._dtype)] if path.exists() else []
        path.unlink(missing_ok=True)
        records = np.concatenate([np.empty(0, self._dtype), *written, *waiting])
        self._held -= sum(part.nbytes for part in waiting)
        waiting.clear()
        return records
