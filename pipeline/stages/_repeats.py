"""What stands at several places of a corpus: records grouped by hash, in bounded memory.

Records go over BUCKETS files by the top bits of their hashes and are sorted one bucket at a time, so what is held is
a bucket: a 256th of 40 bytes a record, or all records of the one hash that is most frequent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.cuts import Places
from pipeline.limits import Workspace
from pipeline.spill import Spill

BUCKETS = 256
TOP = np.uint64(56)
RECORD = np.dtype(
    [("high", "u8"), ("low", "u8"), ("part", "i4"), ("row", "i4"), ("start", "i8"), ("end", "i8")], align=True
)
# Places with equal content have the same group; a group's places stand together.
FOUND = pa.schema(
    [("group", pa.int64()), ("part", pa.int32()), ("row", pa.int64()), ("start", pa.int64()), ("end", pa.int64())]
)


def repeats(records: Iterable[NDArray], workspace: Workspace, across: bool) -> Iterator[pa.Table]:
    """Tables of FOUND: the places of every hash that stands at two (`across` documents: in two documents).

    Records come in the order of their places, by document at least.
    """
    spill = Spill(workspace, "hashes", RECORD, BUCKETS)
    for some in records:
        spill.add((some["high"] >> TOP).astype(np.int64), some)
    groups = 0
    for bucket in range(BUCKETS):
        found = spill.take(bucket)
        order = _grouped(found["high"], found["low"])
        number = np.cumsum(_changes(found["high"][order], found["low"][order])) - 1
        columns = [found[name][order] for name in ("part", "row")] if across else [np.arange(order.size)]
        different = _changes(number, *columns)
        several = np.bincount(number, different)[number] > 1
        found, number = found[order[several]], number[several]
        number = groups + np.cumsum(_changes(number)) - 1
        groups = int(number.max(initial=groups - 1)) + 1
        yield pa.table([number, *(found[name] for name in FOUND.names[1:])], FOUND.names).cast(FOUND)


def whole_groups(found: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, in tables none of which ends within a group."""
    waiting = FOUND.empty_table()
    for table in found:
        waiting = pa.concat_tables([waiting, table])
        if waiting.num_rows:
            end = pc.index(waiting["group"], waiting["group"][-1]).as_py()
            yield waiting.slice(0, end)
            waiting = waiting.slice(end).combine_chunks()
    yield waiting


def placed(
    documents: pa.Table, found: Iterable[pa.Table]
) -> Iterator[tuple[pa.Table, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(table of whole groups, its rows that lie in these documents, group and rank of the document of each), in order.

    Groups are numbered from 0 within a table.
    """
    places = Places.of(documents)
    for table in whole_groups(found):
        rank = places.find(table["part"].to_numpy(), table["row"].to_numpy())
        here = np.flatnonzero(rank >= 0)
        group = np.unique(table["group"].to_numpy()[here], return_inverse=True)[1]
        order = in_order(group, rank[here])
        here = here[order]
        yield table, here, group[order], rank[here]


def in_order(group: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows by group, in a group by rank, and as they came where both are equal."""
    return np.argsort(group * (int(rank.max(initial=0)) + 1) + rank, kind="stable")


def _grouped(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The rows so that equal hashes stand together, as they came. Two unstable sorts are a third of a stable one."""
    order = np.argsort(high)
    number = np.cumsum(_changes(high[order]))
    order = order[np.argsort(number * high.size + order)]
    new = _changes(high[order])
    if (_changes(low[order]) == new).all():
        return order
    return np.lexsort((low, high))


def _changes(*columns: NDArray) -> NDArray[np.bool_]:
    """True at each row that differs from the one before in some column; true at the first."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
