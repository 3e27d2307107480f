"""The report of `decontaminate`: which item of which set, which documents, at which n-gram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import references
from pipeline.stages._evaluation import Evaluation, spelt

Ints = NDArray[np.int64]

REPORT = pa.schema(
    [
        pa.field("set", pa.string()),  # the name of the evaluation set
        pa.field("row", pa.int64()),  # of the item in it, from 0
        pa.field("item", pa.string()),  # its id: set, row and text (`_evaluation.Item`)
        pa.field("text_digest", pa.string()),  # of its text alone
        pa.field("doc_id", pa.string()),  # who holds some of it; null for an item that is too short
        pa.field("size", pa.int32()),  # words in its n-grams, 0 where it is too short
        pa.field("ngrams", pa.int32()),  # how many different ones the document holds
        pa.field("of", pa.int32()),  # how many there are
        pa.field("start", pa.int64()),  # bytes [start, end) of the document as it was compared: the first place
        pa.field("end", pa.int64()),
        pa.field("ngram", pa.string()),  # which n-gram stands there
    ]
)


def reported(
    evaluation: Evaluation, doc_ids: pa.ChunkedArray, gram: Ints, rank: Ints, start: Ints, end: Ints
) -> pa.Table:
    """REPORT by set, row and document, of places that count: n-gram, number of the document, and span.

    Items that are too short are in it with a null document.
    """
    rows = _met(evaluation, gram, rank, start, end)
    brief = np.flatnonzero(evaluation.sizes == 0)
    item = np.concatenate([rows["item"], brief])
    every = [evaluation.items[k] for k in item.tolist()]
    ids = pa.array(
        np.append(rows["rank"], np.zeros(brief.size, np.int64)), mask=np.arange(item.size) >= len(rows["rank"])
    )
    counted = {
        name: np.concatenate([rows[name], np.zeros(brief.size, np.int64)]) for name in ("ngrams", "start", "end")
    }
    columns = {
        "set": [one.name for one in every],
        "row": [one.row for one in every],
        "item": [one.id for one in every],
        "text_digest": [one.text_digest for one in every],
        "doc_id": doc_ids.combine_chunks().take(ids),
        "size": evaluation.sizes[item],
        "of": evaluation.counts[item],
        **counted,
        "ngram": [*(spelt(evaluation, one) for one in rows["gram"].tolist()), *[None] * brief.size],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in REPORT]
    return pa.table(arrays, schema=REPORT).sort_by([(name, "ascending") for name in ("set", "row", "doc_id")])


def _met(evaluation: Evaluation, gram: Ints, rank: Ints, start: Ints, end: Ints) -> dict[str, Ints]:
    """A row for each item and document: how many n-grams they share, and the first place with its n-gram."""
    held = np.diff(evaluation.bounds)[gram]
    place = np.repeat(np.arange(gram.size), held)
    nth = np.arange(place.size) - np.repeat(np.cumsum(held) - held, held)
    item = evaluation.members[evaluation.bounds[gram][place] + nth]
    order = np.lexsort((gram[place], start[place], rank[place], item))
    place, item = place[order], item[order]
    new = np.ones(place.size, bool)
    new[1:] = (item[1:] != item[:-1]) | (rank[place][1:] != rank[place][:-1])
    # A document may hold an n-gram twice.
    once = np.unique(np.stack([np.cumsum(new) - 1, gram[place]]), axis=1)[0]
    first = place[new]
    columns = {"item": item[new], "rank": rank[first], "start": start[first], "end": end[first], "gram": gram[first]}
    return {**columns, "ngrams": np.bincount(once, minlength=first.size)}


def described(evaluation: Evaluation, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each set its `name`, `digest`, `items`, how many are `too_short`, and its n-grams that are too `common`."""
    found = []
    for name, said in zip(names, references.current(names), strict=True):
        called = references.title(name)
        every = zip(evaluation.items, evaluation.sizes.tolist(), strict=True)
        sizes = [size for item, size in every if item.name == called]
        known = {"name": called, "digest": said, "items": len(sizes), "too_short": sizes.count(0)}
        found.append({**known, "common": evaluation.common[called]})
    return found
