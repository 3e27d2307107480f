"""Lines or paragraphs that stand in many documents are cut: menus, licence texts, notices, untranslated blocks.

A unit that stands in more than `most_documents` of the documents that are still here is cut from all of them but the
first by doc_id (`keep = "first"`), or from all (`keep = "none"`). It is cut at every place where it stands there; a
unit that one document repeats and no other has stays, which is for a rule over repetition.

    [[stage]]
    use = "paragraphs"
    unit = "line"
    drop.cut_share = {above = 0.8}

How others do it: CCNet (arXiv 1911.00359) compares lines lower-cased, with digits as 0 and without punctuation, and
cuts what stands in two documents from both: `most_documents = 1, keep = "none", min_characters = 1`. Dolma (arXiv
2402.00159) compares lines as they are and keeps the first: `match = "exact"`. FineWeb (arXiv 2406.17557, 3.4) tried
lines with and without a least length of ten words and found that cutting every repeated line makes a worse corpus
than cutting none: prefer a higher `most_documents`. Here a line of text that is cut takes its line feed along, and
white space that is left out of the comparison is not a difference under either `match`.

    cut_bytes   bytes that go, line feeds included
    cut_spans   passages that go, those that touch counted as one
    cut_share   cut_bytes over the bytes of the text, 0 for an empty one

What is measured is the text as it entered the segment's barrier, and a document that leaves by a rule over these very
signals takes the passages along of which it was the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.cuts import SPANS
from pipeline.kernels.passages import units
from pipeline.kernels.unicode import table_digest
from pipeline.limits import Workspace
from pipeline.stage import cut
from pipeline.stages._repeats import FOUND, RECORD, placed, repeats

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

__all__ = ["FOUND", "compare", "paragraphs", "spans"]

Unit = Literal["line", "paragraph"]
Match = Literal["folded", "exact"]
Keep = Literal["first", "none"]


@cut
def paragraphs(
    batch: pa.RecordBatch,
    *,
    unit: Unit = "line",
    match: Match = "folded",
    min_characters: int = 20,
    most_documents: int = 1,
    keep: Keep = "first",
) -> dict[str, pa.Array]:
    """Sketch every document: lists of `high` and `low` halves of the hash, `start` and `end` of each unit, in bytes.

    Units of fewer than `min_characters` characters, as they are compared, are left in peace.
    """
    found = units(batch["text"], unit == "paragraph", match == "folded", min_characters)
    offsets = pa.array(found.bounds, pa.int32())
    columns = {"high": found.hashes[:, 0], "low": found.hashes[:, 1], "start": found.starts, "end": found.ends}
    return {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}


def check(*, unit: Unit, match: Match, min_characters: int, most_documents: int, keep: Keep) -> None:
    """Raise ValueError for parameters that cannot be."""
    if min(min_characters, most_documents) < 1:
        raise ValueError(f"min_characters and most_documents must be 1 or more, not {min_characters}, {most_documents}")


def resources(**params: object) -> dict[str, str]:
    """The table of characters that decides what is compared."""
    return {"unicode14": table_digest()}


def compare(
    sketches: Iterator[pa.Table],
    texts: Callable[[int, list[int]], pa.Array],
    *,
    workspace: Workspace,
    **params: object,
) -> Iterator[pa.Table]:
    """The places of every unit that stands in two documents of all that entered."""
    return repeats(map(_records, sketches), workspace, across=True)


def _records(sketch: pa.Table) -> np.ndarray:
    counts = sketch["start"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    records = np.empty(int(counts.sum()), RECORD)
    for name in ("part", "row"):
        records[name] = np.repeat(sketch[name].to_numpy(), counts)
    for name in ("high", "low", "start", "end"):
        records[name] = sketch[name].combine_chunks().flatten().to_numpy()
    return records


def spans(
    documents: pa.Table,
    found: Iterable[pa.Table],
    *,
    most_documents: int = 1,
    keep: Keep = "first",
    **params: object,
) -> Iterator[pa.Table]:
    """The places of units in more than `most_documents` of these documents, but for those that are kept."""
    for table, here, group, rank in placed(documents, found):
        begins = np.diff(group, prepend=-1) != 0
        new = begins | (np.diff(rank, prepend=-1) != 0)
        many = np.bincount(group, new)[group] > most_documents
        first = rank == rank[begins][group] if keep == "first" else np.zeros(rank.size, bool)
        yield table.take(pa.array(here[many & ~first])).select(SPANS.names)


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Documents that share lines or paragraphs."""
    from pipeline.examples import cut_examples, cycled, fresh

    def passage(n: int) -> str:
        return " ".join(fresh(n) + cycled(params["min_characters"] // 4 + 3)) + "."

    between = "\n" if params["unit"] == "line" else "\n\n"
    return cut_examples(rule, limit, "paragraphs", params, passage, between, params["most_documents"] + 1)
