"""What holds for documents that a stage made of others, beyond the rules: whose parent leaves leaves too, and no child
may tell train what another split is tested on.

Children are judged where they are born; behind the next barrier they are documents like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.run import BORN
from pipeline.schema import LEDGER


def not_born(order: Sequence[str]) -> Callable[[Rule, pa.Table], pa.Array]:
    """Which documents a rule does not concern: children, by stages that had passed when they were made."""

    def exempt(rule: Rule, table: pa.Table) -> pa.Array:
        position = order.index(rule.stage) + 1 if rule.stage in order else 0
        return pc.greater_equal(table[BORN].combine_chunks(), max(position, 1))

    return exempt


def leaving(born: pa.Table, others: pa.Table, gone: pa.Table, order: Sequence[str]) -> list[pa.Table]:
    """Ledgers of the children that leave for another reason than a rule of their own.

    `born` and `others` are the children and the other documents that no rule dropped, `gone` the ledger up to here.
    """
    same = copies(born, others, order)
    left = pa.chunked_array([*gone["doc_id"].chunks, *same["doc_id"].chunks], pa.string())
    return [same, orphans(born, left.combine_chunks(), order)]


def copies(children: pa.Table, others: pa.Table, order: Sequence[str]) -> pa.Table:
    """Ledger of the children whose text is, to the byte, that of a document in another split.

    Both tables have doc_id, text_digest and split; `others` are the documents that stay and were no children here.
    """
    found = [LEDGER.empty_table()]
    for split in sorted(filter(None, children["split"].unique().to_pylist())):
        mine = children.filter(pc.equal(children["split"], split))
        held = others.filter(pc.not_equal(others["split"], split))
        place = pc.index_in(mine["text_digest"], held["text_digest"].combine_chunks())
        same = pc.is_valid(place)
        of = held["doc_id"].take(place.filter(same)).combine_chunks()
        detail = pc.binary_join_element_wise("dup_of", of, "=")
        found.append(_ledger(mine.filter(same), "text of another split", detail, order))
    return pa.concat_tables(found)


def orphans(children: pa.Table, gone: pa.Array, order: Sequence[str]) -> pa.Table:
    """Ledger of the children whose parent left in the segment that made them, and of their children in turn."""
    found = [LEDGER.empty_table()]
    while True:
        lost = pc.and_(pc.is_in(children["parent_id"], gone), pc.invert(pc.is_in(children["doc_id"], gone)))
        left = children.filter(lost)
        if left.num_rows == 0:
            return pa.concat_tables(found)
        found.append(_ledger(left, "parent left", left["parent_id"].combine_chunks(), order))
        gone = pa.concat_arrays([gone, left["doc_id"].combine_chunks()])


def _ledger(children: pa.Table, reason: str, detail: pa.Array, order: Sequence[str]) -> pa.Table:
    makers = [order[number - 1] for number in children[BORN].to_pylist()]
    said = [pa.array([word] * children.num_rows, pa.string()) for word in ("dropped", reason)]
    return pa.table([children["doc_id"].combine_chunks(), pa.array(makers, pa.string()), *said, detail], schema=LEDGER)
