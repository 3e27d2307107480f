"""Passages that documents share with evaluation items: reported item by item, and cut, or a reason to drop.

An item is met where a document holds one of its runs of `ngram` words: 13, as GPT-3 (arXiv 2005.14165, appendix C),
which also says what a word is (`kernels.overlap`); `short` words, 8, where its question has fewer than `ngram`. In
scripts without spaces a word is a character. An item of fewer than `short` words cannot be told from common speech: it
is listed as too short and never met.

    [[stage]]
    use = "decontaminate"
    sets = ["{data}/eval/arc_easy.jsonl", "{data}/eval/cmmlu_test.parquet"]
    drop.cut_spans = {above = 10}

Every run that is met is cut, with `around` characters on each side (GPT-3: 200), and what touches is one span. Which
documents go whole is for a rule to say:

    drop.cut_bytes = {above = 0}      whoever shares anything
    drop.cut_spans = {above = 10}     who would fall into more than ten pieces (GPT-3)
    drop.cut_share = {above = 0.5}    who is little but an item

With `remove = false` nothing is cut and no rule can fire: the items are reported, and evaluation tells clean from
contaminated (PaLM, arXiv 2204.02311, section 8; Llama 2, arXiv 2307.09288, appendix A.6).

What is common is no evidence: a run that over `most_documents` of the documents hold that are still here (GPT-3: 10,
"common cultural phrases, legal boilerplate"), or over `most_items` items (the instruction before each question of a
set). So put it behind `exact` and `near`: a page of which twenty copies are here would hide what it holds.

    cut_bytes   bytes that go
    cut_spans   passages that go
    cut_share   cut_bytes over the bytes of the text, 0 for an empty one

The report (`contamination.parquet` in the version, `_contamination.REPORT`) has a row for each item and document that
met, also of documents that stay; `fate` and `split` are filled in when a version is sealed (`pipeline.contamination`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import references
from pipeline.cuts import SPANS
from pipeline.kernels.overlap import find
from pipeline.kernels.unicode import table_digest
from pipeline.limits import Workspace
from pipeline.spill import Spill
from pipeline.stage import cut
from pipeline.stages._contamination import described, reported
from pipeline.stages._evaluation import load, spelt
from pipeline.stages._repeats import BUCKETS, FOUND, placed

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

__all__ = ["FOUND", "compare", "decontaminate", "report", "spans"]

MOST_WORDS = 100
PLACE = np.dtype([("gram", "i8"), ("part", "i4"), ("row", "i4"), ("start", "i8"), ("end", "i8")], align=True)


@cut
def decontaminate(
    batch: pa.RecordBatch,
    *,
    sets: list[str],
    ngram: int = 13,
    short: int = 8,
    around: int = 0,
    most_documents: int = 10,
    most_items: int = 100,
    remove: bool = True,
) -> dict[str, pa.Array]:
    """Sketch every document: lists of the number of each `gram` that it shares, its `start` and `end` in bytes.

    Raises SourceError where an evaluation set cannot be read.
    """
    found = find(batch["text"], load(sets, ngram, short, most_items).index, around)
    offsets = pa.array(found.bounds, pa.int32())
    columns = {"gram": found.grams, "start": found.starts, "end": found.ends}
    return {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}


def check(
    *, sets: list[str], ngram: int, short: int, around: int, most_documents: int, most_items: int, remove: bool
) -> None:
    """Raise ValueError for parameters that cannot be."""
    if not sets:
        raise ValueError("sets is empty: name at least one evaluation set (a card, a file, the folder of a version)")
    if not 2 <= short <= ngram <= MOST_WORDS:
        raise ValueError(f"short and ngram must be from 2 to {MOST_WORDS} words, short the lower: {short}, {ngram}")
    if around < 0 or min(most_documents, most_items) < 1:
        raise ValueError(
            "around must be 0 or more, most_documents and most_items 1 or more, not "
            f"{around}, {most_documents}, {most_items}"
        )
    references.check(sets)


def resources(*, sets: list[str], **params: object) -> dict[str, str]:
    """The content of the sets, and the table of characters that decides what a word is."""
    return {
        "unicode14": table_digest(),
        **{f"set {references.title(name)}": said for name, said in references.digests(sets).items()},
    }


def compare(
    sketches: Iterator[pa.Table],
    texts: Callable[[int, list[int]], pa.Array],
    *,
    workspace: Workspace,
    **params: object,
) -> Iterator[pa.Table]:
    """The places of every n-gram of an item, among all documents that entered; `group` is its number."""
    spill = Spill(workspace, "places", PLACE, BUCKETS)
    for sketch in sketches:
        records = _records(sketch)
        spill.add(records["gram"] % BUCKETS, records)
    for bucket in range(BUCKETS):
        found = spill.take(bucket)
        found = found[np.argsort(found["gram"], kind="stable")]
        yield pa.table([found[name] for name in PLACE.names or ()], FOUND.names).cast(FOUND)


def _records(sketch: pa.Table) -> NDArray:
    counts = sketch["gram"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    records = np.empty(int(counts.sum()), PLACE)
    for name in ("part", "row"):
        records[name] = np.repeat(sketch[name].to_numpy(), counts)
    for name in ("gram", "start", "end"):
        records[name] = sketch[name].combine_chunks().flatten().to_numpy()
    return records


def spans(
    documents: pa.Table, found: Iterable[pa.Table], *, most_documents: int = 10, remove: bool = True, **params: object
) -> Iterator[pa.Table]:
    """The places of n-grams that at most `most_documents` of these documents hold; none without `remove`."""
    for table, _ in _evidence(documents, found, most_documents) if remove else ():
        yield table.select(SPANS.names)


def _evidence(
    documents: pa.Table, found: Iterable[pa.Table], most_documents: int
) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """(places that count, rank of the document of each), by n-gram and document."""
    for table, here, group, rank in placed(documents, found):
        new = (np.diff(group, prepend=-1) != 0) | (np.diff(rank, prepend=-1) != 0)
        few = np.bincount(group, new)[group] <= most_documents
        yield table.take(pa.array(here[few])), rank[few]


def report(
    documents: pa.Table, found: Iterable[pa.Table], *, sets: list[str], remove: bool = True, **params: Any
) -> tuple[pa.Table, dict[str, Any]]:
    """(`_contamination.REPORT`; what a manifest says of how it was made)."""
    evaluation = load(sets, *(params[name] for name in ("ngram", "short", "most_items")))
    columns = [
        (table["group"].to_numpy(), rank, table["start"].to_numpy(), table["end"].to_numpy())
        for table, rank in _evidence(documents, found, params["most_documents"])
    ]
    places = [np.concatenate([np.empty(0, np.int64), *each]) for each in zip(*columns, strict=True)]
    return reported(evaluation, documents["doc_id"], *places), {"remove": remove, "sets": described(evaluation, sets)}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Documents that hold an item of the sets ever more often."""
    from pipeline.examples import TOP, cut_examples, fresh

    evaluation = load(*(params[name] for name in ("sets", "ngram", "short", "most_items")))
    if not params["remove"]:
        raise ValueError("remove is false, so nothing is cut")
    if not evaluation.of.size:
        raise ValueError("no item of the sets has as many words as are looked for")
    item = spelt(evaluation, 0)
    filler = params["around"] // 5 + 3

    def passage(n: int) -> str:
        return item if n < TOP else " ".join(fresh(n, filler))

    return cut_examples(rule, limit, "decontaminate", params, passage, copies=1)
