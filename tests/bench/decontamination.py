"""What decontamination finds, and how fast: `python tests/bench/decontamination.py [--data DIR] [--write]`.

Every item of every evaluation set of the data folder is planted once, context and first ending word by word, in the
middle of a real page of the corpus: how many are found of those that are long enough, whichever of their endings is
planted. The same with each word of it replaced by another word of the corpus with a chance of 5 %
(in Chinese each character, by another): recall under noise. Then the pages as they are, into which nothing was planted:
which of them hold an item, and at which n-gram. Throughput is that of the sketch.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.kernels.overlap import find, grams
from pipeline.stages._evaluation import Evaluation, Item, load, spelt
from tests.bench import table

NGRAM, SHORT, MOST_ITEMS = 13, 8, 100
NOISE = 0.05


def planted(items: Sequence[Item], pages: Sequence[str], noise: float) -> list[str]:
    """A page for each item, with its first text in the middle."""
    draw = random.Random(3)
    vocabulary = [word for page in pages[:400] for word in page.split()]
    letters = [char for page in pages for char in page[:200] if "\u4e00" <= char <= "\u9fff"]
    found = []
    for number, item in enumerate(items):
        page = pages[number % len(pages)]
        text = item.texts[0]
        if noise:
            words = [draw.choice(vocabulary) if draw.random() < noise else word for word in text.split()]
            text = "".join(
                draw.choice(letters) if "\u4e00" <= char <= "\u9fff" and draw.random() < noise else char
                for char in " ".join(words)
            )
        half = page.find(" ", len(page) // 2)
        found.append(f"{page[:half]} {text} {page[half:]}")
    return found


def met(evaluation: Evaluation, texts: Sequence[str]) -> np.ndarray:
    """Whether document number k holds some of item number k."""
    hits = find(pa.array(texts, pa.large_string()), evaluation.index)
    found = np.zeros(len(texts), bool)
    for document in range(len(texts)):
        for gram in hits.grams[hits.bounds[document] : hits.bounds[document + 1]].tolist():
            members = evaluation.members[evaluation.bounds[gram] : evaluation.bounds[gram + 1]]
            found[document] |= document in members
    return found


def recall(evaluation: Evaluation, pages: Sequence[str]) -> list[list[str]]:
    """A row for each set: items, those long enough, the shares that are found verbatim and under noise."""
    shortest = [min(np.diff(grams(pa.array(item.texts), 1).bounds)) for item in evaluation.items]
    known = np.array(shortest) >= SHORT
    plain, noisy = (met(evaluation, planted(evaluation.items, pages, noise)) for noise in (0.0, NOISE))
    names = np.array([item.name for item in evaluation.items])
    rows = []
    for name in [*dict.fromkeys(names.tolist()), "all"]:
        mine = (names == name) | (name == "all")
        some = mine & known
        shares = [f"{found[some].mean():.2%}" for found in (plain, noisy)]
        words = f"{np.mean([len(evaluation.items[k].texts[0].split()) for k in np.flatnonzero(some)[:2000]]):.0f}"
        rows.append([name, f"{mine.sum():,}", f"{some.sum():,}", words, *shares])
    return rows


def clean(evaluation: Evaluation, pages: Sequence[str]) -> list[str]:
    """A sentence for each page that holds an item although none was planted."""
    hits = find(pa.array(pages, pa.large_string()), evaluation.index)
    said = []
    for document in np.flatnonzero(np.diff(hits.bounds)).tolist():
        gram = int(hits.grams[hits.bounds[document]])
        item = evaluation.items[int(evaluation.members[evaluation.bounds[gram]])]
        said.append(f"page {document}: row {item.row} of {item.name} at {spelt(evaluation, gram)!r}")
    return said


def speed(evaluation: Evaluation, pages: Sequence[str], threads: int) -> tuple[float, float]:
    """Megabytes a CPU second, and a second of the wall clock."""
    text = pa.array(pages, pa.large_string())
    parts = [text.slice(first, 512) for first in range(0, len(text), 512)]
    find(parts[0], evaluation.index)
    start, spent = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: find(part, evaluation.index).bounds[-1], parts))
    taken = time.process_time() - spent, time.perf_counter() - start
    size = pc.sum(pc.binary_length(text)).as_py() / 1e6
    return size / taken[0], size / taken[1]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    asked = parser.parse_args()
    sets = [str(path) for path in sorted((asked.data / "eval").iterdir()) if path.suffix in (".jsonl", ".parquet")]
    evaluation = load(sets, NGRAM, SHORT, MOST_ITEMS)
    pages = pq.read_table(asked.data / "corpus" / "debian_docs.parquet", columns=["text"])["text"].to_pylist()
    rows = recall(evaluation, pages)
    head = ["set", "items", "long enough", "words", "found verbatim", "found at 5 % noise"]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * 5], *rows)]
    hits = clean(evaluation, pages)
    rates = [speed(evaluation, pages, threads) for threads in (1, 2)]
    lines += ["", f"Of {len(pages):,} pages into which nothing was planted {len(hits)} hold an item:", ""]
    lines += [f"- {line}" for line in hits]
    lines += [
        "",
        f"{evaluation.index.keys.size:,} n-grams, {rates[0][0]:.0f} MB a CPU second by one thread; by two "
        f"{rates[1][0]:.0f}, and {rates[1][1]:.0f} a second of the wall clock (others work on the same cores).",
    ]
    print("\n".join(lines))
    if asked.write:
        command = " ".join(["python tests/bench/decontamination.py", *sys.argv[1:]])
        table.section("decontamination", f"`{command}`, {date.today()}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
