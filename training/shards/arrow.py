"""Columns of a mapped Arrow file as numpy arrays: views where they lie, their types, the digest of their buffers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.manifest import ManifestError
from training.shards.rows import Ints


def batches(path: Path, wanted: Mapping[str, pa.DataType], layout: str) -> list[pa.RecordBatch]:
    """The record batches of a file, which keep its mapping alive.

    Raises ManifestError where it cannot be read, its columns are not the wanted ones, or a value is null.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        found = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: not an Arrow IPC file that can be read ({error})") from error
    types = {field.name: field.type for field in reader.schema}
    for name in sorted(set(wanted) | set(types)):
        if not _same_type(types.get(name), wanted.get(name)):
            raise ManifestError(
                f"{path}: column {name!r} is {types.get(name, 'absent')}, in {layout} shard it is "
                f"{wanted.get(name, 'absent')}"
            )
    if any(column.null_count for batch in found for column in batch.columns):
        raise ManifestError(f"{path}: null values; {layout} shard has none")
    return found


def view(array: pa.Array) -> Ints:
    """The values of an array of integers without nulls, where they lie; its own `to_numpy` would load pandas."""
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _same_type(found: pa.DataType | None, wanted: pa.DataType | None) -> bool:
    """Equal but for the name and nullability of list items, which say nothing about the buffers."""
    if found is None or wanted is None:
        return False
    if pa.types.is_fixed_size_list(wanted) and pa.types.is_fixed_size_list(found):
        return bool(found.list_size == wanted.list_size and found.value_type == wanted.value_type)
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return bool(found.value_type == wanted.value_type)
    return bool(found == wanted)


def buffers_digest(found: Sequence[pa.RecordBatch], names: Sequence[str]) -> str:
    """Digest of the columns' buffers: their names, sizes of lists, values; not of the file's bytes."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in names:
        hasher.update(name.encode())
        columns = [batch.column(name) for batch in found]
        for column in columns:
            if pa.types.is_list(column.type):
                hasher.update(np.diff(view(column.offsets)).data)
        for column in columns:
            hasher.update(np.ascontiguousarray(_values(column)).data)
    return hasher.hexdigest()


def _values(column: pa.Array) -> Ints:
    """All values of a column, end to end."""
    if pa.types.is_list(column.type):
        ends = view(column.offsets)
        return view(column.values)[ends[0] : ends[-1]] if len(ends) else view(column.values)[:0]
    return view(column.flatten() if pa.types.is_fixed_size_list(column.type) else column)


def by_block(at: Ints) -> Iterator[tuple[int, Ints]]:
    """Each block that is named in `at`, and where."""
    order = np.argsort(at, kind="stable")
    return ((number, order[here]) for number, here in runs(at[order]))


def runs(ascending: Ints) -> Iterator[tuple[int, slice]]:
    """Each number of an ascending array, and where it stands."""
    cuts = np.flatnonzero(np.diff(ascending, prepend=-1, append=-1)).tolist()
    return ((int(ascending[a]), slice(a, z)) for a, z in itertools.pairwise(cuts))


def numbered(sizes: Ints) -> NDArray[Any]:
    """0, 1, ..., sizes[0] - 1, 0, 1, ..., sizes[1] - 1, ..."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
