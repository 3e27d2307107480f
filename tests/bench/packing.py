"""What packing wastes and cuts: `python tests/bench/packing.py [--write]`.

The shared corpus by the shipped recipe, packed at 512, 1,024 and 2,048: padding as a share of all places, and documents
that fit into a row and are cut all the same, read from the shards that were written. Beside it what two other ways
make of the same documents in the same order, counted from the document index: all of them end to end, cut at every
row (concatenate and chunk); and one document a row, padded or cropped.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import packed, table
from training.manifest import open_version
from training.shards import Split

LENGTHS = (512, 1024, 2048)
COLUMNS = (
    "length | documents | longer than a row | rows | padding | fit and are cut | end to end: fit and are cut | "
    "one a row: padding | one a row: tokens lost"
)


def figures(manifest: Path, length: int) -> dict[str, Any]:
    """The counts of one version, over its training split."""
    version = open_version(manifest, verify=False)
    split = Split(version, "train")
    laid = split.take(np.arange(len(split)))
    documents, count = np.unique(laid.documents, return_counts=True)
    sizes = np.bincount(laid.documents, weights=laid.lengths)[documents].astype(np.int64)
    begins = np.cumsum(sizes) - sizes
    crossing = begins // length != (begins + sizes - 1) // length
    fits = sizes <= length
    return {
        "documents": len(documents),
        "longer": int((~fits).sum()),
        "rows": len(split),
        "padding": 1 - int(laid.used.sum()) / (len(split) * length),
        "cut": int((fits & (count > 1)).sum()),
        "crossing": int((fits & crossing).sum()) / int(fits.sum()),
        "single": 1 - int(np.minimum(sizes, length).sum()) / (len(documents) * length),
        "lost": 1 - int(np.minimum(sizes, length).sum()) / int(sizes.sum()),
    }


def text(found: dict[int, dict[str, Any]]) -> str:
    """A line a length."""
    lines = [f"| {COLUMNS} |", "|" + "---|" * (COLUMNS.count("|") + 1)]
    for length, row in found.items():
        counts = [f"{row[name]:,}" for name in ("documents", "longer", "rows")]
        cells = [*counts, f"{row['padding']:.3%}", str(row["cut"])]
        cells += [f"{row[name]:.1%}" for name in ("crossing", "single", "lost")]
        lines.append(f"| {length} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Build the versions where they are not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds corpus/")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    printed = text({length: figures(packed.version(length, options.data), length) for length in LENGTHS})
    print(printed)
    if options.write:
        command = " ".join(["python tests/bench/packing.py", *sys.argv[1:]])
        wanted = "Wanted: padding at most .2 %, and no document cut that fits."
        table.section("packing", f"`{command}`, {date.today()}. {wanted}\n\n{printed}")


if __name__ == "__main__":
    main()
