"""The whole chain: from a Parquet file to packed shards, by FineWeb's recipe.

Language, Gopher's repetition and quality, C4's lines where datatrove runs as it comes, FineWeb's own filters, MinHash,
tokens. The texts are of many languages, so
any of them may stay and stop words of one are not asked for. Ours drops exact duplicates too, checks candidates, packs
rows, draws a split and writes the books; datatrove writes the tokens of the documents one after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison
from tests.bench.works import dedup_peers as peers
from tests.bench.works.signals import BOUNDS, DATATROVE

TITLE, OURS, LIKELY, END = "whole chain, Parquet to packed shards", "gristmill", 0.65, "<|endoftext|>"
COMPARISONS = [
    Comparison(
        "the same with c4", "gristmill_c4", "datatrove", "sample", 50, 80, "as it comes: spaCy's words and sentences"
    ),
    Comparison(TITLE, OURS, "datatrove_whitespace", "corpus", 12, 20, "words by str.split"),
    Comparison("the same, its tokenizer trained", "gristmill_trained", OURS, "corpus", how="one that is given"),
    Comparison("the same, of JSON lines", "gristmill_lines", OURS, "corpus", how="of Parquet"),
    Comparison(TITLE, OURS, "copy", "corpus", how="pyarrow reads and writes the same rows"),
]
CARD = """
name = "docs"
kind = "files"
title = "The input"
description = "Of the bench."
homepage = "https://www.debian.org/doc/"
licence = "GPL-2.0-only"
languages = ["mul"]
[params]
paths = ["{path}"]
"""
Work = Callable[[], dict[str, Any]]


def gristmill(data: Path, folder: Path, workers: int = 1, tokenizer: bool = True, c4: bool = False) -> Work:
    """A build into a fresh store, by so many workers; before the clock one of a few rows, which loads the kernels."""
    import pyarrow.parquet as pq

    few = folder / "few.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(data).slice(0, 64), few)
    built(few, folder / "few", data.parent if tokenizer else None, workers, c4)
    return lambda: built(data, folder / "whole", data.parent if tokenizer else None, workers, c4)


def gristmill_c4(data: Path, folder: Path) -> Work:
    """With C4's lines, which need no mark at their end, as in FineWeb."""
    return gristmill(data, folder, c4=True)


def gristmill_trained(data: Path, folder: Path) -> Work:
    """With a tokenizer of 16,384 entries trained on 16 MB of what is kept."""
    return gristmill(data, folder, 1, tokenizer=False)


def gristmill_lines(data: Path, folder: Path) -> Work:
    """From the same rows as JSON lines."""
    import orjson
    import pyarrow.parquet as pq

    lines = folder / "lines.jsonl"
    gristmill(data, folder)
    with lines.open("wb") as file:
        for batch in pq.ParquetFile(data).iter_batches(4096, columns=["id", "text"]):
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())
    return lambda: built(lines, folder / "whole", data.parent, 1)


def built(data: Path, folder: Path, tokenizer: Path | None, workers: int, c4: bool = False) -> dict[str, Any]:
    """Numbers of the rows that are kept, and tokens, of a build whose store is `folder`; prints its steps."""
    from pipeline import recipe
    from pipeline.build import Mill
    from pipeline.runner import Local
    from pipeline.runner import workers as pooled
    from pipeline.store import Store

    folder.mkdir(parents=True)
    (folder / "docs.toml").write_text(CARD.format(path=data), "utf-8")
    checked = recipe.parse(table(tokenizer, c4), "the bench's recipe", folder)
    steps = Steps()
    with pooled(workers, checked.foreign) as pool:
        version = Mill(Store(folder / "store"), Local(pool), steps, workers=workers).build(checked)
    steps.phase("", 0)
    index = version.index()
    first = 1 if data.suffix == ".jsonl" else 0
    rows = sorted(int(name.rpartition(":")[2]) - first for name in index["doc_id"].to_pylist())
    return {"kept": rows, "tokens": sum(index["tokens"].to_pylist()), "seconds": steps.seconds}


def table(tokenizer: Path | None, c4: bool) -> dict[str, Any]:
    """The recipe: datatrove's bounds, its text for the language (all of it), and the same tokenizer."""
    rules: dict[str, dict[str, Any]] = {name: {} for name in DATATROVE}
    for stage, bounds in BOUNDS.items():
        for column, breaks, bound in bounds:
            if column != "stop_word_count":
                rules[stage].setdefault(column, {})["below" if breaks(0, 1) else "above"] = bound
    stages = [{"use": "language", "characters": 1 << 30, "drop": {"score": {"below": LIKELY}}}]
    stages += [{"use": s, "dialect": "datatrove", "drop": rules[s]} for s in ("repetition", "gopher")]
    if c4:
        stages += [{"use": "c4", "terminal_punctuation": False, "drop": rules["c4"]}]
        stages += [{"use": "c4_lines", "terminal_punctuation": False}]
    stages += [{"use": "fineweb", "dialect": "datatrove", "drop": rules["fineweb"]}]
    stages += [{"use": name, "drop": {"dup_rank": {"above": 0}}} for name in ("exact", "near")]
    given = {"tokenizer": str(tokenizer / "tokenizer.json")} if tokenizer else {"vocab_size": 16_384, "sample": "16MB"}
    return {
        "name": "chain",
        "sources": ["docs.toml"],
        "stage": stages,
        "tokens": given,
        "pack": {"length": 1024, "split": {"val": 0.02}},
    }


class Steps:
    """Says how long each step of a build took; `quiet` prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.name, self.began = "", (0.0, 0.0)
        self.seconds: dict[str, tuple[float, float]] = {}

    def phase(self, name: str, total: int) -> None:
        now = time.perf_counter(), time.process_time()
        if self.name:
            wall, cpu = (now[i] - self.began[i] for i in (0, 1))
            self.seconds[self.name] = wall, cpu
        if self.name and not self.quiet:
            print(f"{cpu:8.2f} s of CPU {wall:8.2f} s of wall clock   {self.name}")
        self.name, self.began = name, now

    def advance(self, done: int = 1) -> None:
        return


def datatrove(data: Path, folder: Path, language: Any = "eng", c4: bool = True) -> Work:
    """Its FineWeb chain through its local executor, one task a step (one a band for the second of MinHash)."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline import dedup, filters
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils import lid
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    logger.remove()
    # The model lies here, and the fastText that installs bears another name than the one that it looks for.
    lid.cached_asset_path_or_download = lambda *_, **__: str(data.parent / "lid.176.ftz")
    lid.check_required_dependencies = lambda *_: None
    filters.LanguageFilter._requires_dependencies = []
    config = dedup.MinhashConfig(n_grams=peers.WORDS, num_buckets=peers.BANDS, hashes_per_bucket=peers.ROWS)
    load_word_tokenizer(language).word_tokenize("The mill turns.")
    good, signed, banded, gone, tokens = (str(folder / n) for n in ("good", "signed", "banded", "gone", "tokens"))
    kept: list[int] = []

    def read(where: Path | str, pattern: str) -> ParquetReader:
        return ParquetReader(str(where), glob_pattern=pattern, doc_progress=False, file_progress=False)

    def noted(documents: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in documents:
            kept.append(document.id)
            yield document

    filtering = [
        filters.LanguageFilter(language_threshold=LIKELY),
        filters.GopherRepetitionFilter(language=language),
        filters.GopherQualityFilter(language=language, min_stop_words=None),
        *([filters.C4QualityFilter(filter_no_terminal_punct=False, language=language)] if c4 else []),
        filters.FineWebQualityFilter(language=language),
    ]
    tokenizer = DocumentTokenizer(tokens, str(data.parent / "tokenizer.json"), eos_token=END, seed=1)
    steps = [
        (1, [read(data.parent, data.name), *filtering, ParquetWriter(good, compression="zstd")]),
        (1, [read(good, "*.parquet"), dedup.MinhashDedupSignature(signed, config=config, language=language)]),
        (peers.BANDS, [dedup.MinhashDedupBuckets(signed, banded, config=config)]),
        (1, [dedup.MinhashDedupCluster(banded, gone, config=config)]),
        (1, [read(good, "*.parquet"), dedup.MinhashDedupFilter(gone), noted, tokenizer]),
    ]

    def work() -> dict[str, Any]:
        for number, (tasks, pipeline) in enumerate(steps):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
        places = {name: row for row, name in enumerate(peers.ids(data))}
        size = sum(path.stat().st_size for path in (folder / "tokens").glob("*.ds"))
        return {"kept": sorted(places[name] for name in kept), "tokens": size // 2}

    return work


def datatrove_whitespace(data: Path, folder: Path) -> Work:
    """Without c4 and with words split at white space, which is the fastest word tokenizer that it can be given."""
    return datatrove(data, folder, peers.whitespace(), c4=False)


def copy(data: Path, folder: Path) -> Work:
    """The rows read and written, with the codec that they had."""
    import pyarrow.parquet as pq

    def work() -> dict[str, Any]:
        pq.write_table(pq.read_table(data), folder / "copy.parquet", compression="zstd")
        return {}

    return work


def differences(ours: dict[str, Any], theirs: dict[str, Any], data: Path) -> str:
    """Whom each side keeps, and how many tokens that is."""
    if not theirs:
        seconds = ours["seconds"].items()
        slow = sorted(((cpu, name) for name, (_, cpu) in seconds), reverse=True)[:3]
        return "ratio below 1: the fraction of its speed; CPU seconds: " + ", ".join(f"{n} {s:.1f}" for s, n in slow)
    mine, other = set(ours["kept"]), set(theirs["kept"])
    said = f"kept {len(mine):,} and {len(other):,}"
    said += f", {len(mine & other):,} the same" if mine != other else ", the same"
    return f"{said}; {ours['tokens']:,} and {theirs['tokens']:,} tokens, with those of the ends of text"


SIDES = {
    side.__name__: side
    for side in (
        gristmill,
        gristmill_c4,
        gristmill_trained,
        gristmill_lines,
        datatrove,
        datatrove_whitespace,
        copy,
    )
}
