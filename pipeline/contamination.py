"""What a version says of evaluation items that its documents hold: contamination.parquet, and the manifest's entry.

    set, row, item       the evaluation set, the row of the item in it (from 0), and the item's id: 32 hexadecimal
                         characters, blake2b-128 of set, row and text_digest with a line feed between them
    text_digest          blake2b-128 of the letters and digits of the item's contexts and endings, each behind the other
                         with a line feed between, in lower case: the same item has it in any set
    doc_id               a document that holds one of its n-grams; null where the item is too short to be looked for
    size, ngrams, of     words in its n-grams; how many of them the document holds, and how many the item has
    start, end, ngram    the first place in the document as it was compared, in bytes, and the n-gram that stands there
    fate                 kept: the passage is in the version; cut: the document is, without it; dropped: neither is;
                         too short: nobody looked
    split                where a document that is kept, or was cut, stands; null for any other

By set, row and doc_id. An item is contaminated for whoever read one of its documents with fate "kept". Whoever scores
items looks them up by `item`, or by `text_digest` where sets were cut or named otherwise.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.books import BuildKeys
from pipeline.mixing import COPY
from pipeline.schema import REPORT_FILE
from pipeline.store import Store, read_parquet, write_parquet

FILE = "contamination.parquet"
FATES = KEPT, CUT, DROPPED, SHORT = "kept", "cut", "dropped", "too short"


def write(store: Store, keys: BuildKeys, index: pa.Table, folder: Path) -> dict[str, Any]:
    """Write the file and return its entry of the manifest; nothing where no stage reported."""
    found = [relate for segment in keys.segments for relate in segment.relates if reported(store, relate)]
    if not found:
        return {}
    table, said = of(store, found[0], index)
    write_parquet(folder / FILE, table)
    return {"contamination": {"file": FILE, **_counted(table, said)}}


def reported(store: Store, relate: dict[str, str]) -> bool:
    """Whether a relating stage left a report."""
    return "report" in store.result(relate["cluster"])


def of(store: Store, relate: dict[str, str], index: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """(a stage's report with the fate and split of each document, what it says of how it was made)."""
    table = _with_copies(read_parquet(store.file(relate["cluster"], REPORT_FILE)), index)
    said = store.result(relate["cluster"])["report"]
    place = pc.index_in(table["doc_id"], index["doc_id"].combine_chunks())
    held = CUT if said["remove"] else KEPT
    fate = pc.if_else(pc.is_valid(place), held, pc.if_else(pc.is_valid(table["doc_id"]), DROPPED, SHORT))
    split = index["split"].combine_chunks().take(place)
    return table.append_column("fate", fate).append_column("split", split).combine_chunks(), said


def _with_copies(table: pa.Table, index: pa.Table) -> pa.Table:
    """The report, in which documents that stand again in the mixture hold what the first one holds."""
    copies = index.filter(pc.match_substring_regex(index["doc_id"], f"{COPY}[0-9]+$")).select(["doc_id", "parent_id"])
    held = copies.filter(pc.is_in(copies["parent_id"], table["doc_id"].combine_chunks()))
    if not held.num_rows:
        return table
    named = held.rename_columns(["copy", "doc_id"])
    again = table.join(named, "doc_id", join_type="inner")
    again = again.set_column(again.schema.get_field_index("doc_id"), "doc_id", again["copy"]).select(table.column_names)
    both = pa.concat_tables([table, again.cast(table.schema)])
    return both.sort_by([(name, "ascending") for name in ("set", "row", "doc_id")]).combine_chunks()


def _counted(table: pa.Table, said: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says: of each set how many items were met, and of how many a document is kept."""
    met = table.filter(pc.not_equal(table["fate"], SHORT))
    items = {(row["set"], row["item"]): False for row in met.to_pylist()}
    items |= {(row["set"], row["item"]): True for row in met.to_pylist() if row["fate"] == KEPT}
    every, kept = Counter(name for name, _ in items), Counter(name for (name, _), stays in items.items() if stays)
    sets = [{**one, "met": every[one["name"]], "contaminated": kept[one["name"]]} for one in said["sets"]]
    # Imported here: who reads a manifest for its digest needs none of this.
    from pipeline.manifest import table_digest

    known = {"rows": table.num_rows, "documents": len(met["doc_id"].unique()), "digest": table_digest(table)}
    return {**known, "removed": said["remove"], "sets": sets}
