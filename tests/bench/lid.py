"""How often the language of a sentence is told right: `python tests/bench/lid.py [--data DIR] [--write]`.

74,150 sentences in 75 languages (lingua-py's, data/lid): the mean of the languages' accuracies, `no` counting as nb,
which it takes in. Sentences alone, and documents of five sentences of one language. A second opinion is trained on the
half of the sentences whose hash is odd; what is said of it is said of the other half. Both halves come from one
collection, so on text of another kind expect less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.filters import texts, training
from pipeline.filters.training import Settings
from pipeline.stage import load
from tests.bench import table

SETTINGS = Settings(wordNgrams=1, minn=2, maxn=4, dim=16, epoch=8, lr=0.5, bucket=100_000)
JOINED = 5


def accuracy(rows: list[tuple[str, str]], **params: object) -> dict[str, float]:
    """Of each language the share of its (language, text) rows that the stage calls so."""
    found = load("language", params)(pa.record_batch([pa.array([t for _, t in rows], pa.large_string())], ["text"]))
    said = ["nb" if lang == "no" else lang for lang in found["lang"].to_pylist()]
    right: dict[str, list[bool]] = defaultdict(list)
    for (lang, _), mine in zip(rows, said, strict=True):
        right[lang].append(lang == mine)
    return {lang: float(np.mean(some)) for lang, some in right.items()}


def joined(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Documents of some sentences of a language each."""
    of: dict[str, list[str]] = defaultdict(list)
    for lang, text in rows:
        of[lang].append(text)
    return [(lang, "\n".join(some[n : n + JOINED])) for lang, some in of.items() for n in range(0, len(some), JOINED)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    read = pq.read_table(options.data / "lid" / "lingua_sentences.parquet")
    every = list(zip(read["lang"].to_pylist(), read["text"].to_pylist(), strict=True))
    odd = [xxhash.xxh3_64_intdigest(text.encode()) % 2 == 1 for _, text in every]
    train: dict[str, list[str]] = defaultdict(list)
    for (lang, text), mine in zip(every, odd, strict=True):
        if mine:
            train[lang].append(texts.line(text))
    half = [row for row, mine in zip(every, odd, strict=True) if not mine]
    lines = ["| texts | models | macro accuracy | languages below .1 |", "|---|---|---|---|"]

    def say(what: str, models: str, found: dict[str, float]) -> None:
        lost = sum(share < 0.1 for share in found.values())
        lines.append(f"| {what} | {models} | {np.mean(list(found.values())):.3f} | {lost} of {len(found)} |")
        print(lines[-1], flush=True)

    say("every sentence", "lid.176", accuracy(every))
    say(f"documents of {JOINED}", "lid.176", accuracy(joined(every)))
    say("half of the sentences", "lid.176", accuracy(half))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "second.bin"
        training.train(train, SETTINGS, model)
        for doubt in (0.3, 0.5, 0.7):
            found = accuracy(half, second=str(model), doubt=doubt)
            say("half of the sentences", f"lid.176, below {doubt:g} a second", found)
        say(f"documents of {JOINED} of that half", "the same, below 0.5", accuracy(joined(half), second=str(model)))
    if options.write:
        command = " ".join(["python tests/bench/lid.py", *sys.argv[1:]])
        table.section("languages", f"`{command}`, {date.today()}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
