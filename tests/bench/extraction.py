"""How well and how fast HTML becomes text: `python tests/bench/extraction.py [--data DIR] [--write]`.

F1 against the articles that people marked (scrapinghub's article-extraction-benchmark), of tokens and of 4-grams as
its authors count, and pages for each CPU second of the stage and of the process that it asks; each worker of a build
has one of those.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pipeline import extraction
from pipeline.sources._charset import text_of
from pipeline.stage import load
from tests.bench import table
from tests.pipeline.test_html import batch, shares

SIDES: list[dict[str, Any]] = [
    {"extractor": "trafilatura"},
    {"extractor": "trafilatura", "favour": "precision"},
    {"extractor": "trafilatura", "favour": "recall"},
    {"extractor": "resiliparse"},
    {"extractor": "plain"},
]


def pages(data: Path, side: dict[str, Any]) -> tuple[int, float]:
    """How many pages, and the seconds that they take; a first page starts the process."""
    texts = [text_of(gzip.decompress(path.read_bytes()))[0] for path in sorted((data / "html").glob("*.html.gz"))]
    stage = load("html", side)
    stage(batch(texts[0]))
    rounds = 2 if side["extractor"] == "trafilatura" else 8
    start = spent()
    for _ in range(rounds):
        stage(batch(*texts))
    return rounds * len(texts), spent() - start


def spent() -> float:
    """CPU seconds of this process and of the one that extracts."""
    (asked,) = extraction.running.processes
    ticks = Path(f"/proc/{asked}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    lines = ["| extractor | F1, tokens | F1, 4-grams | pages a CPU second |", "|---|---|---|---|"]
    for side in SIDES:
        favour = {name: value for name, value in side.items() if name != "extractor"}
        f1 = [shares(options.data, side["extractor"], words, **favour) for words in (1, 4)]
        count, taken = pages(options.data, side)
        name = " ".join([side["extractor"], *favour.values()])
        lines.append(f"| {name} | {f1[0]:.3f} | {f1[1]:.3f} | {count / taken:.0f} |")
        print(lines[-1], flush=True)
    if options.write:
        command = " ".join(["python tests/bench/extraction.py", *sys.argv[1:]])
        table.section("extraction", f"`{command}`, {date.today()}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
