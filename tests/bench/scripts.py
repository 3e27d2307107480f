"""Speed by script: `python tests/bench/scripts.py`. How fast signals and sketches go over languages without spaces.

Documents are made of 5,000 bytes each of lingua's test sentences, ten of a language in eighty copies that differ in
their first sentence, so every language is the same kind of text. The sketch of near, and the signals of gopher,
repetition and fineweb, with words between white space and by script; then a build with words by script, from Parquet to
the survivors of near. Medians of CPU seconds, the languages in turn; the last column is the speed beside English, in
bytes.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LANGUAGES, BYTES = ("en", "zh", "ja", "th", "ko", "ru"), 5000
DOCUMENTS, COPIES = 10, 80
BUILD = "build by script"


def main() -> None:
    """Measure and print."""
    root = Path(__file__).resolve().parents[2]
    sys.path[0] = str(root)
    from pipeline import stage, together
    from pipeline.stages.near import near

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=root.parent / "shared/data/lid/lingua_sentences.parquet")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    works: dict[str, Callable[[pa.RecordBatch], object]] = {"near": near}
    for name, units in (("signals", {}), ("signals by script", {"units": "script"})):
        stages = [stage.load(*each) for each in (("repetition", units), ("gopher", units), ("fineweb", {}))]
        works[name] = functools.partial(together.measure, stages)
    batches = documents(options.data)
    seconds: dict[tuple[str, str], list[float]] = {}
    for run in range(options.runs + 1):
        for language, batch in batches.items():
            for work, do in works.items():
                began = time.process_time()
                do(batch)
                if run:
                    seconds.setdefault((work, language), []).append(time.process_time() - began)
            spent = through(batch)
            if run:
                seconds.setdefault((BUILD, language), []).append(spent)
    for work in (*works, BUILD):
        speed = {lang: b["text"].nbytes / 1e6 / statistics.median(seconds[work, lang]) for lang, b in batches.items()}
        for language, rate in speed.items():
            print(f"{work:18} {language}  {rate:6.1f} MB/s  {rate / speed['en']:.2f} of English")


def through(batch: pa.RecordBatch) -> float:
    """CPU seconds of a build's steps from reading to survivors."""
    from pipeline import recipe
    from pipeline.build import Mill
    from pipeline.runner import Local
    from pipeline.store import Store
    from tests.bench.works import chain

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, script = Path(name), {"units": "script"}
        rows = {"id": [str(row) for row in range(batch.num_rows)], "text": batch["text"]}
        pq.write_table(pa.table(rows), folder / "in.parquet", compression="zstd", row_group_size=2000)
        (folder / "docs.toml").write_text(chain.CARD.format(path=folder / "in.parquet"), "utf-8")
        uses = [{"use": "repetition", **script}, {"use": "gopher", **script}, {"use": "fineweb"}]
        table = {
            "name": "scripts",
            "sources": ["docs.toml"],
            "stage": [*uses, {"use": "near", "drop": {"dup_rank": {"above": 0}}}],
            "tokens": {"vocab_size": 400, "sample": "100KB"},
            "pack": {"split": {"val": 0.5}},
        }
        steps = chain.Steps(quiet=True)
        Mill(Store(folder / "store"), Local(None), steps).build(recipe.parse(table, "the bench's recipe", folder))
        steps.phase("", 0)
        counted = ("read", "judge", "cluster", "survivors")
        return sum(cpu for step, (_, cpu) in steps.seconds.items() if step.startswith(counted))


def documents(path: Path) -> dict[str, pa.RecordBatch]:
    """Documents of each language, as many and in as many copies, which differ in their first sentence."""
    table = pq.read_table(path)
    found = {}
    for language in LANGUAGES:
        mine = table.filter(pc.equal(table["lang"], language))["text"].to_pylist()
        whole = [""]
        for sentence in mine:
            whole[-1] += sentence + "\n"
            if len(whole[-1].encode()) >= BYTES:
                whole.append("")
        texts = [f"{mine[(7 * c) % len(mine)]}\n{text}" for c in range(COPIES) for text in whole[:DOCUMENTS]]
        found[language] = pa.record_batch({"text": pa.array(texts)})
    return found


if __name__ == "__main__":
    main()
