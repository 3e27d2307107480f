"""How fast text is cleaned and judged as Chinese: `python tests/bench/cleaning.py [--data FILE] [--write]`.

Megabytes of text for each CPU second of a stage on one core, over every fifth page of documentation and over those in
folders of Chinese; the best of three rounds, compilation apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pipeline.stage import load
from tests.bench import table

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus" / "debian_docs.parquet"
SIDES: list[tuple[str, dict[str, Any]]] = [
    ("normalise", {}),
    ("normalise", {"repair": "ftfy"}),
    ("refinedweb", {}),
    ("refinedweb_lines", {"units": "script"}),
    ("c4_lines", {}),
    ("c4_lines", {"units": "script"}),
    ("chinese", {}),
    ("near", {}),
    ("near", {"fold_chinese": True}),
]


def speed(text: pa.Array, use: str, params: dict[str, Any]) -> float:
    """MB of text a CPU second."""
    stage, batch = load(use, params), pa.record_batch([text], names=["text"])
    stage(batch.slice(0, 8))
    taken = []
    for _ in range(3):
        start = time.process_time()
        stage(batch)
        taken.append(time.process_time() - start)
    return pc.sum(pc.binary_length(text)).as_py() / min(taken) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Parquet file with columns text and lang_dir")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    pages = pq.read_table(options.data, columns=["text", "lang_dir"])
    some = pages.take(pa.array(range(0, len(pages), 5)))
    chinese = pages.filter(pc.starts_with(pages["lang_dir"], "zh"))
    texts = [side["text"].combine_chunks().cast(pa.large_string()) for side in (some, chinese)]
    lines = ["| stage | every fifth page, MB/s | Chinese, MB/s |", "|---|---|---|"]
    for use, params in SIDES:
        name = " ".join([use, *(f"{key}={value}" for key, value in params.items())])
        lines.append(f"| {name} | " + " | ".join(f"{speed(text, use, params):.0f}" for text in texts) + " |")
        print(lines[-1], flush=True)
    if options.write:
        command = " ".join(["python tests/bench/cleaning.py", *sys.argv[1:]])
        table.section("cleaning", f"`{command}`, {date.today()}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
