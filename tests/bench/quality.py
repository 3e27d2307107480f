"""How well a trained filter tells good web pages: `python tests/bench/quality.py [--data DIR] [--write]`.

251 web pages with a human label, 141 of them good (DCLM's, data/quality). One half trains and the other judges, both
ways round, over five seeded splits; the area under the ROC curve is the mean of the ten, its interval that of 300 draws
of the pages. The last rows train on other texts altogether: documentation and encyclopedia against whole raw pages, and
judge all 251. For comparison, what the number of a page's characters alone says.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import fasttext_model, sources
from pipeline.catalog import cards
from pipeline.filters import judging, texts, training
from pipeline.filters.training import Settings
from pipeline.run import widen
from pipeline.scores import scores
from pipeline.sources._charset import text_of
from pipeline.stage import load
from tests.bench import table
from tests.pipeline.test_html import batch

SPLITS, RESAMPLES, BUCKETS = 5, 300, 200_000
SIDES: dict[str, dict[str, Any]] = {
    "DCLM's settings": {},
    "25 epochs, learning rate .5": {"epoch": 25, "lr": 0.5},
    "the same, single words": {"epoch": 25, "lr": 0.5, "wordNgrams": 1},
    "the same, with 2- to 4-grams of characters": {"epoch": 25, "lr": 0.5, "wordNgrams": 1, "minn": 2, "maxn": 4},
}
Scores = NDArray[np.float64]


def judged(train: dict[str, list[str]], pages: Sequence[str], settings: Settings) -> Scores:
    """Scores of some pages by a filter trained on others."""
    with tempfile.TemporaryDirectory() as folder:
        training.train(train, settings, Path(folder) / "model.bin")
        model = fasttext_model.read(Path(folder) / "model.bin")
    return scores(model, pa.array(pages, pa.large_string()), "hq")


def halves(pages: Sequence[str], good: NDArray[np.bool_], settings: Settings) -> Iterator[tuple[Any, Scores]]:
    """(row numbers, scores) of each half, judged by a filter that was trained on the other."""
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(pages))
        cut = len(pages) // 2
        for held, kept in ((order[:cut], order[cut:]), (order[cut:], order[:cut])):
            train = {label: [pages[n] for n in kept if good[n] == (label == "hq")] for label in ("hq", "cc")}
            yield held, judged(train, [pages[n] for n in held], settings)


def area(found: Sequence[tuple[Any, Scores]], good: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The mean area over halves, and the bounds of its interval by drawing pages again."""
    draw = np.random.default_rng(0)

    def mean(times: NDArray[np.int64]) -> float:
        areas = []
        for rows, values in found:
            drawn = np.repeat(values, times[rows]), np.repeat(good[rows], times[rows])
            areas.append(judging.auc(drawn[0][drawn[1]], drawn[0][~drawn[1]]))
        return float(np.mean(areas))

    again = [mean(np.bincount(draw.integers(good.size, size=good.size), minlength=good.size)) for _ in range(RESAMPLES)]
    low, high = np.quantile(again, [0.025, 0.975])
    return mean(np.ones(good.size, np.int64)), float(low), float(high)


def written(data: Path) -> dict[str, list[str]]:
    """Text that people wrote to be read: Debian's documentation in English, and WikiText-2's articles by paragraph."""
    docs = pq.read_table(data / "corpus" / "debian_docs.parquet").to_pylist()
    pages = [texts.line(row["text"]) for row in docs if row["lang_dir"] in ("en", "C", "en-US")][::2]
    wiki = (data / "lm" / "wikitext2_valid.txt").read_text("utf-8").split("\n")
    return {"documentation": pages, "encyclopedia": [texts.line(p) for p in wiki if len(p) > 200]}


def raw(data: Path) -> list[str]:
    """Whole pages as they are found: menus, notices and all, of the HTML and the crawl archives."""
    whole = load("html", {"extractor": "plain"})
    found = [text_of(gzip.decompress(path.read_bytes()))[0] for path in sorted((data / "html").glob("*.html.gz"))]
    pages: list[str] = whole(batch(*found))["text"].to_pylist()
    card = {"name": "raw", "kind": "warc", "title": "raw", "description": "raw", "homepage": "https://example.org"}
    card |= {"licence": "NOASSERTION", "languages": ["mul"], "params": {"paths": [str(data / "warc" / "*.warc.gz")]}}
    parsed = cards.parse(card, "raw")
    for item in sources.survey(parsed):
        for chunk in sources.read(parsed, item):
            pages += whole(widen(chunk.documents))["text"].to_pylist()
    return list(dict.fromkeys(line for page in pages if (line := texts.line(page))))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    rows = pq.read_table(options.data / "quality" / "web_quality_labels.parquet").to_pylist()
    pages, good = [texts.line(row["text"]) for row in rows], np.array([row["label"] == 1 for row in rows])
    lines = ["| trained on | as | texts, hq + cc | AUC | 95 % |", "|---|---|---|---|---|"]

    def say(what: str, how: str, counts: str, found: Sequence[tuple[Any, Scores]]) -> None:
        mean, low, high = area(found, good)
        lines.append(f"| {what} | {how} | {counts} | {mean:.3f} | {low:.3f} to {high:.3f} |")
        print(lines[-1], flush=True)

    everyone = np.arange(good.size)
    length = [(everyone, np.array([float(len(page)) for page in pages]))]
    say("nothing", "the number of characters", "", length)
    half = f"about {good.sum() // 2} + {(~good).sum() // 2}"
    for name, settings in SIDES.items():
        say("half of the pages", name, half, list(halves(pages, good, Settings(bucket=BUCKETS, **settings))))
    web = raw(options.data)
    for name, positive in written(options.data).items():
        settings = Settings(bucket=BUCKETS)
        counts = f"{len(positive):,} + {len(web):,}"
        found = judged({"hq": positive, "cc": web}, pages, settings)
        say(f"{name} against raw pages", "DCLM's settings", counts, [(everyone, found)])
    start, size = time.process_time(), sum(len(text.encode()) for text in pages)
    with tempfile.TemporaryDirectory() as folder:
        train = {label: [p for p, g in zip(pages, good, strict=True) if g == (label == "hq")] for label in ("hq", "cc")}
        training.train(train, Settings(bucket=BUCKETS), Path(folder) / "model.bin")
        bound = load("classifier", {"model": str(Path(folder) / "model.bin")})
        documents = batch(*pages)
        bound(documents)
        start = time.process_time()
        for _ in range(20):
            bound(documents)
        speed = 20 * size / (time.process_time() - start) / 1e6
    print(f"stage classifier: {speed:.0f} MB of text a CPU second")
    if options.write:
        command = " ".join(["python tests/bench/quality.py", *sys.argv[1:]])
        said = f"`{command}`, {date.today()}. Stage `classifier`: {speed:.0f} MB of text a CPU second."
        table.section("quality", said + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
