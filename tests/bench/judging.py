"""How fast the stages judge that need a model or a list: `python tests/bench/judging.py [--data DIR] [--write]`.

MB of text a CPU second over real pages (data/corpus), and how many times the CPU time of one thread two threads get in
a second of the clock: 2 where nothing holds them back and the machine has room. The classifier is DCLM's set-up,
trained on the 251 pages of data/quality; fastText's own `predict` stands beside it on the same texts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.filters import texts, training
from pipeline.filters.training import Settings
from pipeline.run import widen
from pipeline.schema import documents
from pipeline.stage import Stage, load
from pipeline.threads import Threads
from tests.bench import table
from tests.given import HERE

ROWS, BATCHES = 1000, 4


def pages(data: Path) -> list[pa.RecordBatch]:
    """Some batches of pages of every language, with an address each."""
    table_ = pq.read_table(data / "corpus" / "debian_docs.parquet", columns=["id", "text"])
    step = table_.num_rows // (ROWS * BATCHES)
    rows = table_.take(pa.array(range(0, ROWS * BATCHES * step, step))).to_pylist()
    made = [
        {"doc_id": r["id"], "text": r["text"], "url": f"https://a.debian.org/{r['id']}", "source": "d"} for r in rows
    ]
    return [widen(documents(made[n : n + ROWS])) for n in range(0, len(made), ROWS)]


def filter_of(data: Path, folder: Path) -> Path:
    """A model in DCLM's set-up."""
    rows = pq.read_table(data / "quality" / "web_quality_labels.parquet").to_pylist()
    sides = {label: [texts.line(r["text"]) for r in rows if r["label"] == (label == "hq")] for label in ("hq", "cc")}
    training.train(sides, Settings(), folder / "model.bin")
    return folder / "model.bin"


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU seconds, CPU seconds for each second of the clock): the best of three."""
    taken, shares = [], []
    for _ in range(3):
        start, began = time.process_time(), time.perf_counter()
        work()
        taken.append(time.process_time() - start)
        shares.append(taken[-1] / (time.perf_counter() - began))
    return min(taken), max(shares)


def measured(stage: Stage, batches: list[pa.RecordBatch], size: int) -> tuple[float, float]:
    """(MB a CPU second, how many times the CPU that one thread gets two threads get)."""

    def all_of() -> None:
        for batch in batches:
            stage(batch)

    def halves() -> None:
        with Threads(2) as pool:
            for done in [pool.submit(stage, batch) for batch in batches]:
                done.result()

    halves()
    all_of()
    (cpu, one), (_, two) = spent(all_of), spent(halves)
    return size / cpu / 1e6, two / one


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    batches = pages(options.data)
    size = sum(pc.sum(pc.binary_length(batch["text"])).as_py() for batch in batches)
    lines = ["| stage | MB a CPU second | CPU that two threads get to that of one |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        model = filter_of(options.data, Path(folder))
        cases: list[tuple[str, dict[str, Any]]] = [
            ("classifier", {"model": str(model)}),
            ("language", {}),
            ("lines_language", {}),
            ("scripts", {}),
            ("compression", {}),
            ("toxicity", {"words": [str(HERE / "words.txt")]}),
            ("url", {"hosts": str(HERE / "hosts.txt"), "words": str(HERE / "url_words.txt")}),
            ("perplexity", {"model": str(HERE / "bigrams.arpa")}),
        ]
        for name, params in cases:
            speed, share = measured(load(name, params), batches, size)
            lines.append(f"| `{name}` | {speed:,.0f} | {share:.2f} |")
            print(lines[-1], flush=True)
        import fasttext.FastText

        theirs = fasttext.FastText.load_model(str(model))
        rows = [text.replace("\n", " ") for batch in batches for text in batch["text"].to_pylist()]
        cpu, _ = spent(lambda: [theirs.predict(row, 2) for row in rows])
        lines.append(f"| fastText's `predict`, the classifier's model | {size / cpu / 1e6:,.0f} | |")
        print(lines[-1], flush=True)
    if options.write:
        command = " ".join(["python tests/bench/judging.py", *sys.argv[1:]])
        table.section("judging", f"`{command}`, {date.today()}, {size / 1e6:.0f} MB.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
